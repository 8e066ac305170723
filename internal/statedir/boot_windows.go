package statedir

import "os"

func fileOf(*os.File) (fileID, bool) { return fileID{}, false }

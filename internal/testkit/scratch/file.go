package scratch

import (
	"os"
	"path/filepath"

	"github.com/mmrun/mmrun/vfs"
)

// File is an empty file that is closed at the end of the test.
func File(t interface {
	Fatal(...any)
	Cleanup(func())
}, dir, name string) vfs.File {
	f, err := vfs.OS.OpenFile(filepath.Join(dir, name), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o666)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

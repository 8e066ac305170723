package fsck

import (
	"path/filepath"

	"github.com/mmrun/mmrun/internal/statedir"
	"github.com/mmrun/mmrun/vfs"
)

// Module reads the module that a state directory keeps, as it is there: whether it is the one that
// the state was created from, Verify and Open tell.
func Module(dir string) ([]byte, error) {
	if err := statedir.MustExist(dir); err != nil {
		return nil, err
	}
	return vfs.ReadAll(vfs.OS, filepath.Join(dir, statedir.ModuleName), statedir.MaxModule)
}

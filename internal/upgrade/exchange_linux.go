package upgrade

import (
	"errors"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/mmrun/mmrun/vfs"
)

// exchange gives two directories each other's name, in one step and durably.
func exchange(a, b string) error {
	err := unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		return exchangeByNames(a, b)
	}
	if err != nil {
		return err
	}
	return vfs.OS.SyncDir(filepath.Dir(b))
}

package mmrun

import (
	"errors"
	"os"

	"golang.org/x/sys/windows"
)

var errWouldBlock error = windows.ERROR_LOCK_VIOLATION

// tryLock locks a byte far behind the process id, which others read.
func tryLock(f *os.File) error {
	const lockAt = 1 << 30
	return windows.LockFileEx(windows.Handle(f.Fd()),
		windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0,
		&windows.Overlapped{Offset: lockAt})
}

// unlock gives the lock up with its file.
func unlock(f *os.File) error { return f.Close() }

func isNotEmpty(err error) bool { return errors.Is(err, windows.ERROR_DIR_NOT_EMPTY) }

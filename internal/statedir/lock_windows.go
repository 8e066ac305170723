package statedir

import (
	"io/fs"
	"os"

	"golang.org/x/sys/windows"
)

var errWouldBlock error = windows.ERROR_LOCK_VIOLATION

func tryLock(f *os.File) error { return lockByte(f, windows.LOCKFILE_EXCLUSIVE_LOCK) }

// lockShared keeps owners out for as long as f is open, and lets other readers in.
func lockShared(f *os.File) error { return lockByte(f, 0) }

// lockByte locks a byte far behind the process id, which others read.
func lockByte(f *os.File, how uint32) error {
	const lockAt = 1 << 30
	return windows.LockFileEx(windows.Handle(f.Fd()),
		how|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, &windows.Overlapped{Offset: lockAt})
}

// unlock gives the lock up with its file.
func unlock(f *os.File) error { return f.Close() }

// onDisk is what a file takes on the disk, in bytes, as far as is known here.
func onDisk(info fs.FileInfo) int64 { return info.Size() }

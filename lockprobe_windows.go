package mmrun

import (
	"io/fs"
	"os"

	"golang.org/x/sys/windows"
)

// lockShared keeps owners out for as long as f is open, and lets other readers in. The byte is
// that of tryLock.
func lockShared(f *os.File) error {
	const lockAt = 1 << 30
	return windows.LockFileEx(windows.Handle(f.Fd()),
		windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, &windows.Overlapped{Offset: lockAt})
}

// diskUsage is what a file takes on the disk, in bytes, as far as is known here.
func diskUsage(info fs.FileInfo) int64 { return info.Size() }

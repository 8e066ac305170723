//go:build unix

package statedir

import (
	"errors"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

var errWouldBlock error = unix.EWOULDBLOCK

func tryLock(f *os.File) error { return flock(f, unix.LOCK_EX) }

// lockShared keeps owners out for as long as f is open, and lets other readers in.
func lockShared(f *os.File) error { return flock(f, unix.LOCK_SH) }

func flock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		if err != unix.EINTR {
			return err
		}
	}
}

// unlock gives the lock up and closes its file. Closing alone is not enough: a program that this
// process is just starting has a copy of the descriptor until it is executed, and with it the lock.
func unlock(f *os.File) error {
	return errors.Join(unix.Flock(int(f.Fd()), unix.LOCK_UN), f.Close())
}

// onDisk is what a file takes on the disk, in bytes: a sparse one less than its length.
func onDisk(info fs.FileInfo) int64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Blocks * 512
	}
	return info.Size()
}

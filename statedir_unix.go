//go:build unix

package mmrun

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

var errWouldBlock error = unix.EWOULDBLOCK

func tryLock(f *os.File) error {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err != unix.EINTR {
			return err
		}
	}
}

// unlock gives the lock up and closes its file. Closing alone is not enough: a program that this process
// is just starting has a copy of the descriptor until it is executed, and with it the lock.
func unlock(f *os.File) error {
	return errors.Join(unix.Flock(int(f.Fd()), unix.LOCK_UN), f.Close())
}

func isNotEmpty(err error) bool { return errors.Is(err, unix.ENOTEMPTY) }

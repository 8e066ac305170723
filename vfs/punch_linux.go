package vfs

import (
	"errors"

	"golang.org/x/sys/unix"
)

// Punch makes a hole, which stays a part of the file.
func (f *osFile) Punch(offset, length int64) error {
	for {
		err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE,
			offset, length)
		switch {
		case err == unix.EINTR:
		case errors.Is(err, unix.EOPNOTSUPP):
			return writeZeros(f, offset, length)
		default:
			return Explain(err)
		}
	}
}

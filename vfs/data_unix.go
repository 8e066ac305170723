//go:build linux || darwin || freebsd

package vfs

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// nextData moves the offset of the open file, which nothing else in this package uses.
func nextData(f *os.File, offset int64) (start, end int64, ok bool) {
	if f == nil { // a file that is not the system's
		return 0, 0, false
	}
	fd := int(f.Fd())
	start, err := unix.Seek(fd, offset, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) { // a hole up to the end
		end, err := unix.Seek(fd, 0, io.SeekEnd)
		return end, end, err == nil
	}
	if err != nil {
		return 0, 0, false
	}
	end, err = unix.Seek(fd, start, unix.SEEK_HOLE)
	return start, end, err == nil && end > start
}

package vfs

import (
	"errors"
	"os"

	"github.com/edsrzf/mmap-go"
	"golang.org/x/sys/unix"
)

const dirSyncWorks = true

// syncData needs no msync: on Linux the dirty pages of a shared mapping are pages of the
// file's cache, and fdatasync writes those, mapped or not.
func syncData(f *os.File, _ []mmap.MMap) error {
	for {
		err := unix.Fdatasync(int(f.Fd()))
		if err != unix.EINTR {
			return err
		}
	}
}

func allocate(f *os.File, offset, length int64) error {
	if err := checkSize(offset + length); err != nil {
		return err
	}
	for {
		err := unix.Fallocate(int(f.Fd()), 0, offset, length)
		switch {
		case err == unix.EINTR:
		case errors.Is(err, unix.EOPNOTSUPP):
			return allocateByWriting(f, offset, length)
		default:
			return err
		}
	}
}

// checkSize refuses what RLIMIT_FSIZE forbids before the kernel does: the kernel would also send
// SIGXFSZ. Go's runtime ignores that, but the program around it may not, and its default action
// ends the process.
func checkSize(size int64) error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &limit); err == nil && uint64(size) > limit.Cur {
		return unix.EFBIG
	}
	return nil
}

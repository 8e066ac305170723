package mmapmem

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Write protection is a userfaultfd in the mode that needs no handler: the kernel lets a write to a
// protected page through by itself and only clears the page's mark (Linux 6.7, any kind of mapping;
// no privilege). One descriptor serves all mappings of the process.

// From linux/userfaultfd.h.
const (
	ioctlUffdAPI      = 0xc018aa3f // _IOWR(0xAA, 0x3F, struct uffdio_api)
	ioctlUffdRegister = 0xc020aa00 // _IOWR(0xAA, 0x00, struct uffdio_register)

	uffdAPI             = 0xaa
	uffdFeatureWPAsync  = 1 << 15
	uffdRegisterModeWP  = 1 << 1
	uffdUserModeOnly    = 1
	uffdFeaturesMarkers = 1<<12 | 1<<13 // write protection of file mappings, and of absent pages
)

type uffdAPIArg struct{ api, features, ioctls uint64 }

type uffdRegisterArg struct{ start, length, mode, ioctls uint64 }

func openWriteProtection() (int, error) {
	const flags = unix.O_CLOEXEC | unix.O_NONBLOCK | uffdUserModeOnly
	fd, _, errno := unix.Syscall(unix.SYS_USERFAULTFD, flags, 0, 0)
	if errno != 0 {
		return -1, fmt.Errorf("userfaultfd: %w", errno)
	}
	arg := uffdAPIArg{api: uffdAPI, features: uffdFeatureWPAsync | uffdFeaturesMarkers}
	// arg lives for the time of the call.
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, ioctlUffdAPI,
		uintptr(unsafe.Pointer(&arg))); errno != 0 {
		unix.Close(int(fd))
		return -1, fmt.Errorf("userfaultfd: UFFDIO_API: %w", errno)
	}
	return int(fd), nil
}

// register makes the pages of a whole mapping ones that can be protected, until it is unmapped.
func (k *kernel) register(mapping []byte) error {
	arg := uffdRegisterArg{
		// The mapping is not on Go's heap and does not move.
		start:  uint64(uintptr(unsafe.Pointer(unsafe.SliceData(mapping)))),
		length: uint64(len(mapping)),
		mode:   uffdRegisterModeWP,
	}
	// arg lives for the time of the call.
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(k.uffd), ioctlUffdRegister,
		uintptr(unsafe.Pointer(&arg))); errno != 0 {
		return fmt.Errorf("userfaultfd: UFFDIO_REGISTER: %w", errno)
	}
	return nil
}

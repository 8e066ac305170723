package mmapmem

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// writeProtection is a userfaultfd on a mapping, in the mode that needs no handler: the kernel
// lets a write to a protected page through by itself and only clears the page's mark (Linux 6.7,
// any kind of mapping; no privilege).
type writeProtection struct{ f *os.File }

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

func openWriteProtection(mapping []byte) (*writeProtection, error) {
	fd, _, errno := unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|unix.O_NONBLOCK|uffdUserModeOnly, 0, 0)
	if errno != 0 {
		return nil, fmt.Errorf("userfaultfd: %w", errno)
	}
	w := &writeProtection{os.NewFile(fd, "userfaultfd")}
	api := uffdAPIArg{api: uffdAPI, features: uffdFeatureWPAsync | uffdFeaturesMarkers}
	if err := w.ioctl(ioctlUffdAPI, unsafe.Pointer(&api)); err != nil {
		return nil, err
	}
	register := uffdRegisterArg{
		// The mapping is not on Go's heap and does not move.
		start:  uint64(uintptr(unsafe.Pointer(unsafe.SliceData(mapping)))),
		length: uint64(len(mapping)),
		mode:   uffdRegisterModeWP,
	}
	if err := w.ioctl(ioctlUffdRegister, unsafe.Pointer(&register)); err != nil {
		return nil, err
	}
	return w, nil
}

// ioctl closes the descriptor on an error.
func (w *writeProtection) ioctl(request uintptr, arg unsafe.Pointer) error {
	// arg points to a live variable of the caller for the time of the call.
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, w.f.Fd(), request, uintptr(arg)); errno != 0 {
		_ = w.f.Close()
		return fmt.Errorf("userfaultfd: ioctl %#x: %w", request, errno)
	}
	return nil
}

func (w *writeProtection) close() error { return w.f.Close() }

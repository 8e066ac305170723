package mmapmem

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

var trackers = []func(*Memory) (tracker, error){openScan, openPagemap}

// faultCounter is the number of page faults of the process so far. Linux counts a fault before
// it returns from it, those made by the kernel on the process's behalf (a read(2) into the
// mapping) included, so that a page cannot have become private while the sum stood still.
func faultCounter() int64 {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return -1
	}
	return int64(u.Minflt) + int64(u.Majflt)
}

// pageRegion is struct page_region of linux/fs.h.
type pageRegion struct{ start, end, categories uint64 }

// scanArg is struct pm_scan_arg of linux/fs.h.
type scanArg struct {
	size, flags, start, end, walkEnd                           uint64
	vec, vecLen, maxPages                                      uint64
	categoryInverted, categoryMask, categoryAnyof, categoryRet uint64
}

const (
	ioctlPagemapScan = 0xc0606610 // _IOWR('f', 16, struct pm_scan_arg)

	pageIsWritten = 1 << 1 // not write-protected by userfaultfd
	pageIsFile    = 1 << 2
	pageIsPresent = 1 << 3
	pageIsSwapped = 1 << 4

	scanProtect = 1 << 0 // PM_SCAN_WP_MATCHING: write-protect what is found, atomically

	scanRegions = 1024 // 24 KiB
)

// scanTracker asks the kernel for the pages that are present or swapped and are not the file's.
// Once some are write-protected, those that are still so are left out.
type scanTracker struct {
	m       *Memory
	f       *os.File
	regions []pageRegion
	wp      *writeProtection // nil until the first call of protect
}

func openScan(m *Memory) (tracker, error) {
	f, err := os.Open("/proc/self/pagemap")
	if err != nil {
		return nil, err
	}
	t := &scanTracker{m: m, f: f, regions: make([]pageRegion, scanRegions)}
	if os.Getpagesize() != PageSize {
		return nil, errors.Join(fmt.Errorf("machine pages have %d bytes", os.Getpagesize()), f.Close())
	}
	if err := t.scan(uint64(len(m.live)), 0, func(uint32, uint32) {}); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return t, nil
}

func (t *scanTracker) name() string {
	if t.wp != nil {
		return "pagemap-scan+wp"
	}
	return "pagemap-scan"
}

func (t *scanTracker) counter() int64 { return faultCounter() }

func (t *scanTracker) close() error {
	if t.wp == nil {
		return t.f.Close()
	}
	return errors.Join(t.wp.close(), t.f.Close())
}

func (t *scanTracker) private(fn func(first, end uint32)) error { return t.scan(t.m.size, 0, fn) }

// protect implements protector. The mapping is registered for it at the first call only: a
// mapping registered with userfaultfd reads its file in single pages instead of in runs.
func (t *scanTracker) protect(fn func(first, end uint32)) error {
	if t.wp == nil {
		wp, err := openWriteProtection(t.m.live)
		if err != nil {
			return err
		}
		t.wp = wp
	}
	return t.scan(t.m.size, scanProtect, fn)
}

// scan calls fn for the private pages among the first size bytes.
func (t *scanTracker) scan(size, flags uint64, fn func(first, end uint32)) error {
	if size == 0 {
		return nil
	}
	// The address of the mapping is a number to the kernel; the mapping is not on Go's heap
	// and cannot move.
	base := uint64(uintptr(unsafe.Pointer(unsafe.SliceData(t.m.live))))
	arg := scanArg{
		flags: flags,
		start: base, end: base + size,
		// The regions are on Go's heap, which does not move, and t keeps them alive.
		vec: uint64(uintptr(unsafe.Pointer(unsafe.SliceData(t.regions)))), vecLen: uint64(len(t.regions)),
		categoryInverted: pageIsFile, categoryMask: pageIsFile,
		categoryAnyof: pageIsPresent | pageIsSwapped, categoryRet: pageIsPresent,
	}
	arg.size = uint64(unsafe.Sizeof(arg))
	seen := base // everything before has been reported
	if t.wp != nil {
		arg.categoryMask |= pageIsWritten
	}
	for arg.start < arg.end {
		// The argument outlives the call; Syscall keeps it alive.
		n, _, errno := unix.Syscall(unix.SYS_IOCTL, t.f.Fd(), ioctlPagemapScan, uintptr(unsafe.Pointer(&arg)))
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			return fmt.Errorf("find private pages: PAGEMAP_SCAN: %w", errno)
		}
		for _, r := range t.regions[:n] {
			fn(uint32((r.start-base)/PageSize), uint32((r.end-base)/PageSize))
			seen = r.end
		}
		// Linux 6.18 returns regions behind walkEnd when there are more than 512: it resumes its
		// own walk and leaves walkEnd where it resumed last. They must not be reported twice.
		next := max(arg.walkEnd, seen)
		if next <= arg.start {
			return fmt.Errorf("find private pages: PAGEMAP_SCAN stopped at offset %d of %d", arg.start-base, size)
		}
		arg.start = next
	}
	return nil
}

// pagemapTracker reads the same from the entries of /proc/self/pagemap.
type pagemapTracker struct {
	m   *Memory
	f   *os.File
	buf []byte
}

func openPagemap(m *Memory) (tracker, error) {
	f, err := os.Open("/proc/self/pagemap")
	if err != nil {
		return nil, err
	}
	t := &pagemapTracker{m: m, f: f, buf: make([]byte, 64<<10)}
	if os.Getpagesize() != PageSize {
		return nil, errors.Join(fmt.Errorf("machine pages have %d bytes", os.Getpagesize()), f.Close())
	}
	if err := t.read(WasmPageSize, func(uint32, uint32) {}); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return t, nil
}

func (t *pagemapTracker) name() string   { return "pagemap" }
func (t *pagemapTracker) counter() int64 { return faultCounter() }
func (t *pagemapTracker) close() error   { return t.f.Close() }

func (t *pagemapTracker) private(fn func(first, end uint32)) error { return t.read(t.m.size, fn) }

func (t *pagemapTracker) read(size uint64, fn func(first, end uint32)) error {
	const (
		entry       = 8 // bytes
		fileOrShare = 1 << 61
		swapped     = 1 << 62
		present     = 1 << 63
	)
	first := uint64(uintptr(unsafe.Pointer(unsafe.SliceData(t.m.live)))) / PageSize
	for page, pages := uint64(0), size/PageSize; page < pages; {
		n := min((pages-page)*entry, uint64(len(t.buf)))
		if _, err := t.f.ReadAt(t.buf[:n], int64((first+page)*entry)); err != nil {
			return fmt.Errorf("find private pages: %w", err)
		}
		for at := uint64(0); at < n; at += entry {
			e := binary.NativeEndian.Uint64(t.buf[at:])
			if e&(present|swapped) != 0 && e&fileOrShare == 0 {
				fn(uint32(page+at/entry), uint32(page+at/entry)+1)
			}
		}
		page += n / entry
	}
	return nil
}

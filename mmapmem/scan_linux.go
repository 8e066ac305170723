package mmapmem

import (
	"fmt"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// kernel is what all kernel trackers of the process share: two descriptors, which stay open until
// it ends.
type kernel struct {
	pagemap  int  // of /proc/self/pagemap
	uffd     int  // userfaultfd, -1 if there is none
	protects bool // pages can be write-protected, also those that are not there
}

// openKernel finds out what this kernel can do, once.
var openKernel = sync.OnceValues(func() (*kernel, error) {
	if os.Getpagesize() != PageSize {
		return nil, fmt.Errorf("%w: its pages have %d bytes", errNoKernel, os.Getpagesize())
	}
	fd, err := unix.Open("/proc/self/pagemap", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("%w: /proc/self/pagemap: %w", errNoKernel, err)
	}
	k := &kernel{pagemap: fd, uffd: -1}
	if err := k.try(); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return k, nil
})

// try looks at a page of a file in memory.
func (k *kernel) try() error {
	fd, err := unix.MemfdCreate("mmrun", unix.MFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("%w: memfd_create: %w", errNoKernel, err)
	}
	f := os.NewFile(uintptr(fd), "memfd")
	defer f.Close()
	if err := f.Truncate(PageSize); err != nil {
		return err
	}
	page, err := mapLive(f, PageSize, Private)
	if err != nil {
		return err
	}
	defer unmap(page)
	if err := k.scan(page, queryPrivate, Run{0, 1}, func(uint32, uint32) {}); err != nil {
		return fmt.Errorf("%w: %w", errNoKernel, err)
	}
	if k.uffd, err = openWriteProtection(); err != nil {
		return nil
	}
	if k.protects = k.canProtect(page); !k.protects {
		unix.Close(k.uffd)
		k.uffd = -1
	}
	return nil
}

// canProtect tells whether this kernel keeps a page protected that is not there: otherwise each
// such page is found again and again. Before Linux 6.9, and 2c7ad9a590d1 in it, it could also
// take a page that is swapped out for protected.
func (k *kernel) canProtect(page []byte) bool {
	if !kernelSince(6, 9) || k.register(page) != nil {
		return false
	}
	hits := 0
	count := func(uint32, uint32) { hits++ }
	// Read, so that there is a page table, dropped, protected, and asked for.
	if unix.Madvise(page, unix.MADV_POPULATE_READ) != nil || reclaim(page) != nil ||
		k.scan(page, queryWritten.protecting(), Run{0, 1}, count) != nil || hits != 1 {
		return false
	}
	return k.scan(page, queryWritten, Run{0, 1}, count) == nil && hits == 1
}

func kernelSince(major, minor int) bool {
	var u unix.Utsname
	var x, y int
	if unix.Uname(&u) != nil {
		return false
	}
	if n, _ := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &x, &y); n != 2 {
		return false
	}
	return x > major || x == major && y >= minor
}

// pageRegion is struct page_region of linux/fs.h: two addresses, and the categories.
type pageRegion struct{ start, end, _ uint64 }

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

// scanBuffers are the regions that scans in progress fill; instances share them.
var scanBuffers = sync.Pool{New: func() any { return new([scanRegions]pageRegion) }}

// A query is what scan asks for.
type query struct{ flags, inverted, mask, anyof, ret uint64 }

var (
	// queryPrivate finds what is present or swapped and is not the file's.
	queryPrivate = query{inverted: pageIsFile, mask: pageIsFile,
		anyof: pageIsPresent | pageIsSwapped, ret: pageIsPresent}
	// queryWritten finds what is not protected. It has a path of its own in the kernel if it is
	// exactly this.
	queryWritten = query{mask: pageIsWritten, ret: pageIsWritten}
)

// unprotected is q for pages that are not protected.
func (q query) unprotected() query {
	q.mask |= pageIsWritten
	return q
}

// protecting is q, with protection for what is found.
func (q query) protecting() query {
	q.flags |= scanProtect
	return q
}

// scan calls found for runs of the pages among those of r that q asks for, in ascending order, none
// twice.
func (k *kernel) scan(mapping []byte, q query, r Run, found func(first, end uint32)) error {
	if r.First == r.End {
		return nil
	}
	regions := scanBuffers.Get().(*[scanRegions]pageRegion)
	defer scanBuffers.Put(regions)
	// The address of the mapping is a number to the kernel; the mapping is not on Go's heap
	// and cannot move.
	base := uint64(uintptr(unsafe.Pointer(unsafe.SliceData(mapping))))
	arg := scanArg{
		flags: q.flags,
		start: base + uint64(r.First)*PageSize, end: base + uint64(r.End)*PageSize,
		// The regions are on Go's heap, which does not move, and the deferred Put keeps them alive.
		vec: uint64(uintptr(unsafe.Pointer(regions))), vecLen: scanRegions,
		categoryInverted: q.inverted, categoryMask: q.mask,
		categoryAnyof: q.anyof, categoryRet: q.ret,
	}
	arg.size = uint64(unsafe.Sizeof(arg))
	seen := arg.start // everything before has been reported
	for arg.start < arg.end {
		// The argument outlives the call; Syscall keeps it alive.
		n, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(k.pagemap), ioctlPagemapScan,
			uintptr(unsafe.Pointer(&arg)))
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			return fmt.Errorf("find changed pages: PAGEMAP_SCAN: %w", errno)
		}
		for _, f := range regions[:n] {
			found(uint32((f.start-base)/PageSize), uint32((f.end-base)/PageSize))
			seen = f.end
		}
		// Linux 6.18 returns regions behind walkEnd when there are more than 512: it resumes its
		// own walk and leaves walkEnd where it resumed last. They must not be reported twice.
		next := max(arg.walkEnd, seen)
		if next <= arg.start {
			return fmt.Errorf("find changed pages: PAGEMAP_SCAN stopped at offset %d of %d",
				arg.start-base, arg.end-base)
		}
		arg.start = next
	}
	return nil
}

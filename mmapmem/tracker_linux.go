package mmapmem

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"
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
//
// To tell whether a page is the file's, the kernel looks at what it knows of the page, which is a cache miss for each page that
// is mapped (35 ns). Once all pages have been protected, it is enough to ask for those that are not any more, which is
// in the page tables (2 ns), and to look closer at the few that are found; see privateAmongWritten.
type scanTracker struct {
	m       *Memory
	f       *os.File
	regions []pageRegion
	wp      *writeProtection // nil until the first call of protect
	marks   bool             // pages that are not there can be protected, too
	spent   time.Duration    // on looks at every page before there was any protection
	cold    []run            // pages that are not protected and not known to be private
	found   []run            // private pages among them
	fetched uint32           // pages before have been mapped, if they were in memory
	idle    int              // scans that found nothing since then
}

// A query is what scan asks for.
type query struct{ flags, inverted, mask, anyof, ret uint64 }

var (
	queryPrivate = query{inverted: pageIsFile, mask: pageIsFile, anyof: pageIsPresent | pageIsSwapped, ret: pageIsPresent}
	// queryWritten finds what is not protected. It has a path of its own in the kernel if it is exactly this.
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

func openScan(m *Memory) (tracker, error) {
	f, err := os.Open("/proc/self/pagemap")
	if err != nil {
		return nil, err
	}
	t := &scanTracker{m: m, f: f, regions: make([]pageRegion, scanRegions)}
	if os.Getpagesize() != PageSize {
		return nil, errors.Join(fmt.Errorf("machine pages have %d bytes", os.Getpagesize()), f.Close())
	}
	if err := t.scan(queryPrivate, run{0, uint32(len(m.live) / PageSize)}, func(uint32, uint32) {}); err != nil {
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

func (t *scanTracker) all() run { return run{0, uint32(t.m.size / PageSize)} }

func (t *scanTracker) private(fn func(first, end uint32)) error {
	switch {
	case t.marks:
		return t.privateAmongWritten(fn)
	case t.wp != nil:
		return t.scan(queryPrivate.unprotected(), t.all(), fn)
	}
	start := time.Now()
	err := t.scan(queryPrivate, t.all(), fn)
	t.spent += time.Since(start)
	return err
}

// mostCold is how many runs are looked at one by one, before all pages are at once.
const mostCold = 64

// privateAmongWritten is private for a memory of which all pages are protected but those that have been written since,
// that have been read for the first time, or whose page table is new. What turns out not to be private is protected, so that it
// is not found again.
func (t *scanTracker) privateAmongWritten(fn func(first, end uint32)) error {
	t.cold = t.cold[:0]
	slots := t.m.slotOf
	if err := t.scan(queryWritten, t.all(), func(first, end uint32) {
		for p := first; p < end; {
			from, known := p, slots[p] != 0
			for p < end && (slots[p] != 0) == known {
				p++
			}
			if known {
				fn(from, p)
			} else {
				t.cold = append(t.cold, run{from, p})
			}
		}
	}); err != nil {
		return err
	}
	t.fetch(len(t.cold) == 0)
	if len(t.cold) == 0 {
		return nil
	}
	ask := t.cold
	if len(ask) > mostCold {
		ask = []run{{t.cold[0].first, t.cold[len(t.cold)-1].end}}
	}
	found := t.found[:0]
	for _, r := range ask {
		if err := t.scan(queryPrivate.unprotected(), r, func(first, end uint32) {
			found = append(found, run{first, end})
		}); err != nil {
			return err
		}
	}
	t.found = found
	for _, r := range t.cold {
		// The parts of r in between what was found in it. Of what was found, the known pages have been
		// named, and none of them is in r.
		for len(found) > 0 && found[0].first < r.end {
			if f := found[0]; f.end > r.first {
				first, end := max(f.first, r.first), min(f.end, r.end)
				if err := t.mark(run{r.first, first}); err != nil {
					return err
				}
				fn(first, end)
				r.first = end
				if f.end > r.end {
					break // it goes on in the next run
				}
			}
			found = found[1:]
		}
		if err := t.mark(r); err != nil {
			return err
		}
	}
	return nil
}

// fetch maps pages of the file that are in memory, some each time, as the kernel would around each page that is read if the mapping
// were not registered. Otherwise a guest that goes through its memory causes a fault, and a scan, with each page.
func (t *scanTracker) fetch(idle bool) {
	if idle {
		t.idle++
	}
	end := t.all().end
	if t.fetched >= end && t.idle > fetchAgain {
		t.fetched = 0 // what has come into memory since
	}
	if t.fetched >= end {
		return
	}
	t.idle = 0
	r := run{t.fetched, min(t.fetched+fetchPages, end)}
	t.fetched = r.end
	var inMemory [fetchPages]byte
	if err := mincore(t.m.base[uint64(r.first)*PageSize:uint64(r.end)*PageSize], inMemory[:]); err != nil {
		return
	}
	wanted := func(p uint32) bool { return inMemory[p-r.first]&1 != 0 && t.m.slotOf[p] == 0 }
	for p := r.first; p < r.end; {
		from := p
		for p < r.end && wanted(p) {
			p++
		}
		if from < p {
			_ = unix.Madvise(t.m.live[uint64(from)*PageSize:uint64(p)*PageSize], unix.MADV_POPULATE_READ)
		}
		for p < r.end && !wanted(p) {
			p++
		}
	}
}

// mincore tells which pages of a mapped file are in memory.
func mincore(mapping []byte, pages []byte) error {
	_, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(unsafe.SliceData(mapping))), uintptr(len(mapping)),
		uintptr(unsafe.Pointer(unsafe.SliceData(pages))))
	if errno != 0 {
		return errno
	}
	return nil
}

const (
	fetchPages = 256
	fetchAgain = 1024 // scans that found nothing
)

// mark protects all pages of r, present or not.
func (t *scanTracker) mark(r run) error {
	return t.scan(queryWritten.protecting(), r, func(uint32, uint32) {})
}

// protect implements protector. The mapping is registered for it at the first call only: a
// mapping registered with userfaultfd reads its file in single pages instead of in runs.
func (t *scanTracker) protect(fn func(first, end uint32)) error {
	if t.wp == nil {
		wp, err := openWriteProtection(t.m.live)
		if err != nil {
			return err
		}
		t.wp, t.spent = wp, 0
		t.marks = t.canMark()
	}
	if err := t.scan(queryPrivate.unprotected().protecting(), t.all(), fn); err != nil || !t.marks {
		return err
	}
	return t.mark(t.all())
}

// canMark tells whether this kernel keeps a page protected that is not there: otherwise each such page is
// found again and again. Before Linux 6.9, and 2c7ad9a590d1 in it, it could also take a page that is swapped out for protected.
func (t *scanTracker) canMark() bool {
	if !kernelSince(6, 9) {
		return false
	}
	page, err := mapLive(t.m.file.OSFile(), PageSize, Private)
	if err != nil {
		return false
	}
	defer unmap(page)
	wp, err := openWriteProtection(page)
	if err != nil {
		return false
	}
	defer wp.close()
	found := 0
	count := func(uint32, uint32) { found++ }
	// Read, so that there is a page table, dropped, protected, and asked for.
	if unix.Madvise(page, unix.MADV_POPULATE_READ) != nil || unix.Madvise(page, unix.MADV_DONTNEED) != nil ||
		t.scanOf(page, queryWritten.protecting(), run{0, 1}, count) != nil || found != 1 {
		return false
	}
	return t.scanOf(page, queryWritten, run{0, 1}, count) == nil && found == 1
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

// avoidable implements protector.
func (t *scanTracker) avoidable() time.Duration { return t.spent }

// dropped implements protector.
func (t *scanTracker) dropped(runs []run) error {
	if !t.marks || len(runs) == 0 {
		return nil
	}
	if len(runs) > mostCold+len(t.m.hot) {
		// At once, with the hot pages in between: they are compared all the same.
		runs = []run{{runs[0].first, runs[len(runs)-1].end}}
	}
	for _, r := range runs {
		if err := t.mark(r); err != nil {
			return err
		}
	}
	return nil
}

// scan calls fn for the pages among those of r that q asks for.
func (t *scanTracker) scan(q query, r run, fn func(first, end uint32)) error {
	return t.scanOf(t.m.live, q, r, fn)
}

func (t *scanTracker) scanOf(mapping []byte, q query, r run, fn func(first, end uint32)) error {
	if r.first == r.end {
		return nil
	}
	// The address of the mapping is a number to the kernel; the mapping is not on Go's heap
	// and cannot move.
	base := uint64(uintptr(unsafe.Pointer(unsafe.SliceData(mapping))))
	arg := scanArg{
		flags: q.flags,
		start: base + uint64(r.first)*PageSize, end: base + uint64(r.end)*PageSize,
		// The regions are on Go's heap, which does not move, and t keeps them alive.
		vec: uint64(uintptr(unsafe.Pointer(unsafe.SliceData(t.regions)))), vecLen: uint64(len(t.regions)),
		categoryInverted: q.inverted, categoryMask: q.mask, categoryAnyof: q.anyof, categoryRet: q.ret,
	}
	arg.size = uint64(unsafe.Sizeof(arg))
	seen := arg.start // everything before has been reported
	for arg.start < arg.end {
		// The argument outlives the call; Syscall keeps it alive.
		n, _, errno := unix.Syscall(unix.SYS_IOCTL, t.f.Fd(), ioctlPagemapScan, uintptr(unsafe.Pointer(&arg)))
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			return fmt.Errorf("find private pages: PAGEMAP_SCAN: %w", errno)
		}
		for _, found := range t.regions[:n] {
			fn(uint32((found.start-base)/PageSize), uint32((found.end-base)/PageSize))
			seen = found.end
		}
		// Linux 6.18 returns regions behind walkEnd when there are more than 512: it resumes its
		// own walk and leaves walkEnd where it resumed last. They must not be reported twice.
		next := max(arg.walkEnd, seen)
		if next <= arg.start {
			return fmt.Errorf("find private pages: PAGEMAP_SCAN stopped at offset %d of %d", arg.start-base, arg.end-base)
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

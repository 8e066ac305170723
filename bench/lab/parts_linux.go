package lab

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Parts are the operations that an atomic event with cold pages is made of, each alone, on a
// file of its own that is mapped private and whole, as a touched memory is.
type Parts struct {
	f       *os.File
	pagemap *os.File
	live    []byte // private view of the file
	pages   []int  // the next pages to use, in random order
	used    []int  // those that are private
	rng     *rand.Rand
	a, b    [PageSize]byte
	regions [3 * 1024]uint64 // of PAGEMAP_SCAN
	sink    bool
}

// NewParts makes a file of mib MiB and maps it.
func NewParts(path string, mib int) (*Parts, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	block := bytes.Repeat([]byte{1}, MiB)
	for range mib {
		if _, err := f.Write(block); err != nil {
			return nil, err
		}
	}
	p := &Parts{f: f, rng: rand.New(rand.NewPCG(1, 2))}
	if err := f.Sync(); err != nil {
		return nil, err
	}
	if p.pagemap, err = os.Open("/proc/self/pagemap"); err != nil {
		return nil, err
	}
	p.live, err = unix.Mmap(int(f.Fd()), 0, mib*MiB, unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_NORESERVE)
	if err != nil {
		return nil, err
	}
	p.a, p.b = [PageSize]byte(block), [PageSize]byte(block)
	p.pages = p.rng.Perm(mib * pagesInMiB)
	return p, p.Map()
}

func (p *Parts) Close() error {
	return errors.Join(unix.Munmap(p.live), p.pagemap.Close(), p.f.Close())
}

// Map reads each page, so that all of the file is mapped.
func (p *Parts) Map() error {
	sum := byte(0)
	for at := 0; at < len(p.live); at += PageSize {
		sum += p.live[at]
	}
	p.sink = sum == 1
	return nil
}

// Fault writes to n random pages that are not private. It is the copy-on-write fault.
func (p *Parts) Fault(n int) error {
	if n > len(p.pages) {
		return fmt.Errorf("%d faults: only %d pages are left", n, len(p.pages))
	}
	for _, page := range p.pages[:n] {
		p.live[page*PageSize+8]++
	}
	p.used = append(p.used, p.pages[:n]...)
	p.pages = p.pages[n:]
	return nil
}

// Drop gives back the pages of the last n faults, one call each.
func (p *Parts) Drop(n int) error {
	last := p.used[len(p.used)-n:]
	for _, page := range last {
		if err := unix.Madvise(p.live[page*PageSize:][:PageSize], unix.MADV_DONTNEED); err != nil {
			return err
		}
	}
	p.pages = append(p.pages, last...)
	p.used = p.used[:len(p.used)-n]
	return nil
}

// DropAll gives back all pages.
func (p *Parts) DropAll() error { return p.Drop(len(p.used)) }

// Scan asks the kernel once which pages of the mapping are private.
func (p *Parts) Scan() error {
	const pageIsFile, pageIsPresent, pageIsSwapped = 1 << 2, 1 << 3, 1 << 4
	base := uint64(uintptr(unsafe.Pointer(unsafe.SliceData(p.live))))
	// struct pm_scan_arg of linux/fs.h: size, flags, start, end, walk end, vector, its length,
	// most pages, and four category masks. The mapping and p do not move.
	arg := [12]uint64{12 * 8, 0, base, base + uint64(len(p.live)), 0,
		uint64(uintptr(unsafe.Pointer(&p.regions[0]))), uint64(len(p.regions) / 3), 0,
		pageIsFile, pageIsFile, pageIsPresent | pageIsSwapped, pageIsPresent}
	for arg[2] < arg[3] {
		n, _, errno := unix.Syscall(unix.SYS_IOCTL, p.pagemap.Fd(), 0xc0606610,
			uintptr(unsafe.Pointer(&arg)))
		if errno != 0 {
			return fmt.Errorf("PAGEMAP_SCAN: %w", errno)
		}
		arg[2] = arg[4]
		if n > 0 { // the end of the walk lags behind when there were many regions
			arg[2] = max(arg[2], p.regions[3*n-2])
		}
	}
	return nil
}

// Compare compares two equal pages.
func (p *Parts) Compare() error {
	p.sink = bytes.Equal(p.a[:], p.b[:])
	return nil
}

// Copy copies a page, as is done to make a shadow.
func (p *Parts) Copy() error {
	p.b = p.a
	return nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Fold brings one random page of the file up to date: read, checksum, write. It is not synced.
func (p *Parts) Fold() error {
	offset := int64(p.rng.IntN(len(p.live)/PageSize)) * PageSize
	if _, err := unix.Pread(int(p.f.Fd()), p.a[:], offset); err != nil {
		return err
	}
	p.sink = crc32.Checksum(p.a[:], castagnoli) == 0
	_, err := unix.Pwrite(int(p.f.Fd()), p.a[:], offset)
	return err
}

// Faults reads the process's page-fault counters.
func (p *Parts) Faults() error {
	var u unix.Rusage
	return unix.Getrusage(unix.RUSAGE_SELF, &u)
}

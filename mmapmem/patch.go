package mmapmem

import (
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/mmrun/mmrun/internal/disk"
)

// patchPages bounds what a Patcher holds before it writes: 96 MiB of pages. A journal whose events
// go round over more pages than this is slow to fold, since each round writes and reads them all.
const patchPages = 24576

// patchRun is the longest run of neighbouring pages written at once: 64 KiB. Larger writes leave larger folios in
// the page cache, and those make reading and rewriting single pages of them slower (5 µs to 17 µs a page).
const patchRun = 16

// Patcher puts byte ranges into a memory file, merged by page: a page that is named a thousand
// times is read and written once. It works on the file alone and may do so while a Private
// Memory lies on the same file, as long as every page it names is private there.
//
// A page that is read, because it is changed in part, must have its checksum: otherwise the damage
// would get a new checksum and never be found. The exception is a page that an interrupted patch
// was about to write. Its new sum is on the disk, and applying the same ranges again leads to that
// sum (the page itself may be the old one, the new one, or torn between them).
//
// The pages are not durable before the caller syncs the file.
type Patcher struct {
	file  disk.File
	sums  *Sums // nil: none are kept
	pages map[uint32]*[PageSize]byte
	free  []*[PageSize]byte
	run   []byte

	lenient bool
	// suspects are pages in the map above that were read without their checksum and have not come
	// to it yet: page index -> the sum noted.
	suspects map[uint32]uint32

	// Pages and Bytes count what was written to the file.
	Pages, Bytes int64
}

// NewPatcher returns a Patcher for the file, which must be as long as the memory is after the
// patch. sums may be nil.
func NewPatcher(file disk.File, sums *Sums) *Patcher {
	return &Patcher{file: file, sums: sums, pages: make(map[uint32]*[PageSize]byte), suspects: make(map[uint32]uint32)}
}

// Lenient makes the Patcher take pages as they are, whatever their checksums: for a repair.
func (p *Patcher) Lenient() { p.lenient = true }

// Patch notes that the bytes at offset are now data. Later calls win. It may write earlier
// ranges to the file to stay within its bound.
func (p *Patcher) Patch(offset uint64, data []byte) error {
	for len(data) > 0 {
		at := offset % PageSize
		n := min(uint64(len(data)), PageSize-at)
		index := uint32(offset / PageSize)
		page, err := p.page(index, n == PageSize)
		if err != nil {
			return err
		}
		copy(page[at:], data[:n])
		if len(p.suspects) > 0 {
			p.acquit(index, page, n == PageSize)
		}
		offset += n
		data = data[n:]
	}
	return nil
}

// page returns the image of a page, reading it from the file unless all of it will be replaced.
func (p *Patcher) page(index uint32, whole bool) (*[PageSize]byte, error) {
	if page, ok := p.pages[index]; ok {
		return page, nil
	}
	if len(p.pages)-len(p.suspects) >= patchPages {
		if err := p.write(); err != nil {
			return nil, err
		}
	}
	var page *[PageSize]byte
	if n := len(p.free); n > 0 {
		page, p.free = p.free[n-1], p.free[:n-1]
	} else {
		page = new([PageSize]byte)
	}
	if !whole {
		n, err := p.file.ReadAt(page[:], int64(index)*PageSize)
		if err != nil && err != io.EOF {
			return nil, fmt.Errorf("read page %d: %w", index, err)
		}
		clear(page[n:])
		if err := p.suspect(index, page); err != nil {
			return nil, err
		}
	}
	p.pages[index] = page
	return page, nil
}

// suspect notes a page that does not have its checksum.
func (p *Patcher) suspect(index uint32, page *[PageSize]byte) error {
	if p.sums == nil || p.lenient {
		return nil
	}
	noted, err := p.sums.at(index)
	if err == nil && noted != pageSum(page[:]) {
		p.suspects[index] = noted
	}
	return err
}

// acquit clears a page that has come to its checksum, or whose old bytes do not matter any more.
func (p *Patcher) acquit(index uint32, page *[PageSize]byte, whole bool) {
	noted, ok := p.suspects[index]
	if ok && (whole || pageSum(page[:]) == noted) {
		delete(p.suspects, index)
	}
}

// Flush writes what has been noted to the file, in the order of addresses. The error wraps ErrSum
// if a page was damaged before; nothing is written over it then.
func (p *Patcher) Flush() error {
	if len(p.suspects) > 0 {
		pages := slices.Sorted(maps.Keys(p.suspects))
		return fmt.Errorf("%s: %d of %d pages to be changed, the first of them page %d: %w", p.file.Name(), len(pages), len(p.pages), pages[0], ErrSum)
	}
	return p.write()
}

// write writes all pages that are beyond suspicion.
func (p *Patcher) write() error {
	indexes := make([]uint32, 0, len(p.pages))
	for i := range p.pages {
		if _, suspect := p.suspects[i]; !suspect {
			indexes = append(indexes, i)
		}
	}
	if len(indexes) == 0 {
		return nil
	}
	slices.Sort(indexes)
	if p.sums != nil {
		for _, i := range indexes {
			if err := p.sums.set(i, p.pages[i][:]); err != nil {
				return err
			}
		}
		// The new sums are on the disk before the first new page: whatever a power cut leaves of
		// the pages can then be told from damage.
		if err := p.sums.Sync(); err != nil {
			return err
		}
	}
	for i := 0; i < len(indexes); {
		j := i
		p.run = p.run[:0]
		for j < len(indexes) && j-i < patchRun && indexes[j] == indexes[i]+uint32(j-i) {
			p.run = append(p.run, p.pages[indexes[j]][:]...)
			j++
		}
		if _, err := p.file.WriteAt(p.run, int64(indexes[i])*PageSize); err != nil {
			return err
		}
		p.Pages += int64(j - i)
		p.Bytes += int64(len(p.run))
		i = j
	}
	for _, i := range indexes {
		p.free = append(p.free, p.pages[i])
		delete(p.pages, i)
	}
	return nil
}

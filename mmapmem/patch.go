package mmapmem

import (
	"fmt"
	"io"
	"slices"

	"github.com/mmrun/mmrun/internal/disk"
)

// patchPages bounds what a Patcher holds before it writes: 16 MiB of pages.
const patchPages = 4096

// patchRun is the longest run of neighbouring pages written at once.
const patchRun = 256

// Patcher puts byte ranges into a memory file, merged by page: a page that is named a thousand
// times is read and written once. It works on the file alone and may do so while a Private
// Memory lies on the same file, as long as every page it names is private there.
//
// Nothing is durable before the caller syncs the file (and the sums).
type Patcher struct {
	file  disk.File
	sums  *Sums // nil: none are kept
	pages map[uint32]*[PageSize]byte
	free  []*[PageSize]byte
	run   []byte
	// Pages and Bytes count what was written to the file.
	Pages, Bytes int64
}

// NewPatcher returns a Patcher for the file, which must be as long as the memory is after the
// patch. sums may be nil.
func NewPatcher(file disk.File, sums *Sums) *Patcher {
	return &Patcher{file: file, sums: sums, pages: make(map[uint32]*[PageSize]byte)}
}

// Patch notes that the bytes at offset are now data. Later calls win. It may write earlier
// ranges to the file to stay within its bound.
func (p *Patcher) Patch(offset uint64, data []byte) error {
	for len(data) > 0 {
		at := offset % PageSize
		n := min(uint64(len(data)), PageSize-at)
		page, err := p.page(uint32(offset/PageSize), n == PageSize)
		if err != nil {
			return err
		}
		copy(page[at:], data[:n])
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
	if len(p.pages) == patchPages {
		if err := p.Flush(); err != nil {
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
	}
	p.pages[index] = page
	return page, nil
}

// Flush writes what has been noted to the file, in the order of addresses.
func (p *Patcher) Flush() error {
	indexes := make([]uint32, 0, len(p.pages))
	for i := range p.pages {
		indexes = append(indexes, i)
	}
	slices.Sort(indexes)
	for i := 0; i < len(indexes); {
		j := i
		p.run = p.run[:0]
		for j < len(indexes) && j-i < patchRun && indexes[j] == indexes[i]+uint32(j-i) {
			p.run = append(p.run, p.pages[indexes[j]][:]...)
			j++
		}
		if p.sums != nil {
			if err := p.sums.set(indexes[i], p.run); err != nil {
				return err
			}
		}
		if _, err := p.file.WriteAt(p.run, int64(indexes[i])*PageSize); err != nil {
			return err
		}
		p.Pages += int64(j - i)
		p.Bytes += int64(len(p.run))
		i = j
	}
	for _, page := range p.pages {
		p.free = append(p.free, page)
	}
	clear(p.pages)
	return nil
}

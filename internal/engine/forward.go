package engine

import (
	"slices"

	"github.com/mmrun/mmrun/globalsfile"
	"github.com/mmrun/mmrun/internal/delta"
	"github.com/mmrun/mmrun/internal/guest"
	"github.com/mmrun/mmrun/mmapmem"
	"github.com/mmrun/mmrun/rewriter"
	"github.com/mmrun/mmrun/wal"
)

// Forward brings an image forward by records that follow its commit.
type Forward struct {
	im       *Image
	state    *globalsfile.State // as of the last record
	maxPages uint32
	pages    map[uint32]*patches
	order    []uint32 // of pages that have not been given out, once reading has begun
	begun    bool
	chunk    []byte // of the image, not given out yet
	offset   uint64
	done     bool
	buf      []byte
}

// patches are the bytes of a page that records have changed.
type patches struct {
	data  [mmapmem.PageSize]byte
	known [mmapmem.PageSize / 64]uint64 // a bit for each byte of data
}

// NewForward is for an image whose pages have not been read.
func NewForward(im *Image) (*Forward, error) {
	_, info, err := rewriter.Rewrite(im.Module, rewriter.Options{})
	if err != nil {
		return nil, err
	}
	return &Forward{im: im, state: delta.Clone(im.State), maxPages: guest.MaxPages(&info),
		pages: make(map[uint32]*patches)}, nil
}

// Apply applies the next record.
func (f *Forward) Apply(r wal.Record) error {
	if err := checkRecord(r, f.state, f.maxPages); err != nil {
		return err
	}
	if err := applySmall(f.state, r); err != nil {
		return err
	}
	for offset, data := range r.Ranges() {
		for len(data) > 0 {
			page, at := offset/mmapmem.PageSize, offset%mmapmem.PageSize
			n := min(len(data), int(mmapmem.PageSize-at))
			p := f.pages[page]
			if p == nil {
				p = &patches{}
				f.pages[page] = p
			}
			copy(p.data[at:], data[:n])
			for i := at; i < at+uint32(n); i++ {
				p.known[i/64] |= 1 << (i % 64)
			}
			offset += uint32(n)
			data = data[n:]
		}
	}
	return nil
}

// Image is the image as of the last record. The one that was given must not be used any more, but
// to be closed.
func (f *Forward) Image() *Image {
	im := *f.im
	im.State = f.state
	im.Size = uint64(im.State.MemoryPages) * mmapmem.WasmPageSize
	im.cloneOf, im.close = "", nil
	im.next = f.next
	return &im
}

func (f *Forward) next(b []byte) (offset uint64, n int, err error) {
	if !f.begun {
		f.begun = true
		f.buf = make([]byte, ImageChunk)
		for p := range f.pages {
			f.order = append(f.order, p)
		}
		slices.Sort(f.order)
	}
	if len(f.chunk) == 0 && !f.done {
		offset, n, err := f.im.next(f.buf)
		if err != nil {
			return 0, 0, err
		}
		f.chunk, f.offset, f.done = f.buf[:n], offset, n == 0
	}
	// A page that the image does not have comes before its next ones.
	if len(f.order) > 0 {
		if at := uint64(f.order[0]) * mmapmem.PageSize; f.done || at < f.offset {
			n = copy(b, f.pages[f.order[0]].data[:])
			f.order = f.order[1:]
			return at, n, nil
		}
	}
	if f.done {
		return 0, 0, nil
	}
	offset = f.offset
	n = copy(b, f.chunk)
	f.chunk, f.offset = f.chunk[n:], f.offset+uint64(n)
	for len(f.order) > 0 && uint64(f.order[0])*mmapmem.PageSize < f.offset {
		f.pages[f.order[0]].onto(b[uint64(f.order[0])*mmapmem.PageSize-offset:])
		f.order = f.order[1:]
	}
	return offset, n, nil
}

func (p *patches) onto(page []byte) {
	for i := range p.data {
		if p.known[i/64]>>(i%64)&1 == 1 {
			page[i] = p.data[i]
		}
	}
}

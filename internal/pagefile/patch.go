package pagefile

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/mmrun/mmrun/internal/binding"
	"github.com/mmrun/mmrun/vfs"
)

// patchPages bounds what a Patcher holds before it writes: 96 MiB of pages. A checkpoint of events
// that go round over more pages than this is slow, since each round writes and reads them all.
const patchPages = 24576

// patchRun is the longest run of neighbouring pages written at once: 64 KiB. Larger writes leave
// larger folios in the page cache, and those make reading and rewriting single pages of them slower
// (5 µs to 17 µs a page).
const patchRun = 16

// Patcher puts byte ranges into a memory file, merged by page: a page that is named a thousand
// times is read and written once. It works on the file alone and may do so while a running memory
// lies on the same file, as long as that has the pages it names in private copies.
//
// A page that is read, because it is changed in part, must have its checksum: otherwise the damage
// would get a new checksum and never be found. The exception is a page that an interrupted patch
// was about to write. Its new checksum is on the disk, and applying the same ranges again leads to
// it (the page itself may be the old one, the new one, or torn between them).
//
// The pages are not durable before the caller syncs the file.
type Patcher struct {
	file      vfs.File
	checksums *Checksums // nil: none are kept
	pages     map[uint32]*patchedPage
	free      []*patchedPage
	order     []*patchedPage // what write writes
	run       []byte
	suspects  int // pages under suspicion
	savers    savers

	// Stamp is what the checksums are to say of themselves once all is written: which checkpoint
	// this is, and the commit up to which it has been patched. The zero value leaves the stamp as
	// it is. Pages that are written before all is, to stay within the bound, get one of their own.
	Stamp binding.Stamp

	// Pages and Bytes count what was written to the file.
	Pages, Bytes int64
}

type patchedPage struct {
	index uint32
	data  *[PageSize]byte
	// suspect: it was read without its checksum, noted, and has not come to it yet.
	suspect bool
	noted   uint32
	// known is the checksum of data while patches, the number of small ones that it has been
	// brought forward by, is not negative.
	known   uint32
	patches int
}

// NewPatcher returns a Patcher for the file, which must be as long as the memory is after the
// patch. checksums may be nil: then none are kept, and pages are taken as they are.
func NewPatcher(file vfs.File, checksums *Checksums) *Patcher {
	return &Patcher{file: file, checksums: checksums, pages: make(map[uint32]*patchedPage)}
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
		page.patch(int(at), data[:n])
		// It is beyond suspicion when it has come to its checksum, or when nothing is left of its
		// old bytes.
		if page.suspect && (n == PageSize || page.checksum() == page.noted) {
			page.suspect = false
			p.suspects--
		}
		offset += n
		data = data[n:]
	}
	return nil
}

// A checksum is brought forward by up to smallPatches patches of up to smallPatch bytes. To compute
// it anew costs half a microsecond when the page is not in the cache any more, and that is when the
// checksums are needed (BenchmarkCheckpointSums in mmrun).
const smallPatches = 6

func (page *patchedPage) patch(at int, data []byte) {
	if page.patches >= 0 && page.patches < smallPatches && len(data) <= smallPatch {
		page.known ^= checksumChange(page.data, at, data)
		page.patches++
	} else {
		page.patches = -1
	}
	copy(page.data[at:], data)
}

func (page *patchedPage) checksum() uint32 {
	if page.patches < 0 {
		page.known, page.patches = pageChecksum(page.data[:]), 0
	}
	return page.known
}

// page returns the image of a page, reading it from the file unless all of it will be replaced.
func (p *Patcher) page(index uint32, whole bool) (*patchedPage, error) {
	if page, ok := p.pages[index]; ok {
		return page, nil
	}
	if len(p.pages)-p.suspects >= patchPages {
		if err := p.write(binding.New()); err != nil {
			return nil, err
		}
	}
	var page *patchedPage
	if n := len(p.free); n > 0 {
		page, p.free = p.free[n-1], p.free[:n-1]
	} else {
		page = &patchedPage{data: new([PageSize]byte)}
	}
	page.index, page.patches = index, -1
	if !whole {
		if err := p.read(page); err != nil {
			return nil, err
		}
	}
	p.pages[index] = page
	return page, nil
}

// read reads a page from the file and holds it against its checksum.
func (p *Patcher) read(page *patchedPage) error {
	n, err := p.file.ReadAt(page.data[:], int64(page.index)*PageSize)
	if err != nil && err != io.EOF {
		return fmt.Errorf("read page %d: %w", page.index, err)
	}
	clear(page.data[n:])
	if p.checksums == nil {
		return nil
	}
	if page.noted, err = p.checksums.at(page.index); err != nil {
		return err
	}
	if page.suspect = page.noted != page.checksum(); page.suspect {
		p.suspects++
	}
	return nil
}

// Flush writes what has been noted to the file, in the order of addresses. The error wraps
// ErrChecksum if a page was damaged before; nothing is written over it then.
func (p *Patcher) Flush() error {
	if p.suspects > 0 {
		first := uint32(math.MaxUint32)
		for _, page := range p.pages {
			if page.suspect {
				first = min(first, page.index)
			}
		}
		return fmt.Errorf("%s: %d of %d pages to be changed, the first of them page %d: page %w",
			p.file.Name(), p.suspects, len(p.pages), first, ErrChecksum)
	}
	return p.write(p.Stamp.Checkpoint)
}

// write writes all pages that are beyond suspicion, as a part of the checkpoint of that number.
func (p *Patcher) write(checkpoint uint64) error {
	p.order = p.order[:0]
	for _, page := range p.pages {
		if !page.suspect {
			p.order = append(p.order, page)
		}
	}
	if len(p.order) == 0 && (p.checksums == nil || p.Stamp == binding.Stamp{}) {
		return nil
	}
	slices.SortFunc(p.order, func(a, b *patchedPage) int { return cmp.Compare(a.index, b.index) })
	if p.checksums != nil {
		for _, page := range p.order {
			if err := p.checksums.set(page.index, page.checksum()); err != nil {
				return err
			}
		}
		// The new checksums are on the disk before the first new page: whatever a power cut
		// leaves of the pages can then be told from damage.
		if err := p.checksums.Sync(); err != nil {
			return err
		}
		if err := p.stamp(checkpoint); err != nil {
			return err
		}
	}
	for rest := p.order; len(rest) > 0; {
		if n := zeroRun(rest); n >= leastHole {
			p.savers.before(rest[0].index, rest[0].index+uint32(n))
			err := vfs.Punch(p.file, int64(rest[0].index)*PageSize, int64(n)*PageSize)
			if err != nil {
				return err
			}
			p.Pages += int64(n)
			rest = rest[n:]
			continue
		}
		p.run = p.run[:0]
		n := 0
		for n < min(len(rest), patchRun) && rest[n].index == rest[0].index+uint32(n) {
			p.run = append(p.run, rest[n].data[:]...)
			n++
		}
		p.savers.before(rest[0].index, rest[0].index+uint32(n))
		if _, err := p.file.WriteAt(p.run, int64(rest[0].index)*PageSize); err != nil {
			return err
		}
		p.Pages += int64(n)
		p.Bytes += int64(len(p.run))
		rest = rest[n:]
	}
	for _, page := range p.order {
		delete(p.pages, page.index)
	}
	p.free = append(p.free, p.order...)
	return nil
}

// leastHole is how many pages of zeros become a hole: a hole costs a system call, and the page that
// is written next in it a block.
const leastHole = 16

var zeros [PageSize]byte

// zeroRun is how many pages of zeros in a row there are at the begin.
func zeroRun(pages []*patchedPage) (n int) {
	for n < len(pages) && pages[n].index == pages[0].index+uint32(n) && pages[n].checksum() == 0 &&
		bytes.Equal(pages[n].data[:], zeros[:]) {
		n++
	}
	return n
}

// stamp says which checkpoint the checksums are of, before the first of its pages is written.
func (p *Patcher) stamp(checkpoint uint64) error {
	if p.Stamp == (binding.Stamp{}) {
		return nil
	}
	s := p.Stamp
	s.Checkpoint = checkpoint
	if err := p.checksums.setStamp(s); err != nil {
		return err
	}
	return p.checksums.Sync()
}

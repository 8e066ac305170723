package pagefile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/mmrun/mmrun/vfs"
)

// Saver copies a memory file as it is at one instant, while checkpoints go on writing to it: before
// a [Patcher] writes over a page that has not been copied yet, it saves what is there.
type Saver struct {
	file vfs.File
	size uint64 // bytes

	mu     sync.Mutex
	at     uint64 // up to where the file has been copied
	saved  map[uint32]*[PageSize]byte
	failed error
}

// mostSaved bounds what a Saver holds: 256 MiB of pages.
const mostSaved = 65536

// ErrOverrun: so much was written while the memory was copied that the copy was given up.
var ErrOverrun = errors.New("more was written meanwhile than can be held")

// NewSaver is for the first size bytes of a memory file, which no Patcher is writing to at this
// instant. It must be given to the file's Patcher (Save) before the next one does.
func NewSaver(file vfs.File, size uint64) *Saver {
	return &Saver{file: file, size: size, saved: make(map[uint32]*[PageSize]byte)}
}

// before saves pages first to end-1 before they are written over.
func (s *Saver) before(first, end uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for p := max(first, uint32(s.at/PageSize)); p < end && uint64(p)*PageSize < s.size; p++ {
		if s.failed != nil || s.saved[p] != nil {
			continue
		}
		if len(s.saved) == mostSaved {
			s.failed = fmt.Errorf("%w: %d MiB", ErrOverrun, mostSaved*PageSize>>20)
			s.saved = nil
			continue
		}
		page := new([PageSize]byte)
		if err := readZeroPadded(s.file, page[:], int64(p)*PageSize); err != nil {
			// It is the copy that fails, not the checkpoint.
			s.failed, s.saved = err, nil
			continue
		}
		s.saved[p] = page
	}
}

// Next copies the next bytes of the memory into b, as many as fit, and tells where they are. Holes
// are left out, and so n is 0 at the end. b has a whole number of pages.
func (s *Saver) Next(b []byte) (offset uint64, n int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed != nil {
		return 0, 0, s.failed
	}
	start, _, err := vfs.NextData(s.file, int64(s.at))
	if err != nil {
		return 0, 0, err
	}
	offset = min(uint64(start)/PageSize*PageSize, s.size)
	// What was data and is a hole now is among the saved pages.
	if offset > s.at {
		for p := range s.saved {
			if at := uint64(p) * PageSize; at >= s.at && at < offset {
				offset = at
			}
		}
	}
	n = int(min(uint64(len(b)), s.size-offset))
	if err := readZeroPadded(s.file, b[:n], int64(offset)); err != nil {
		return 0, 0, err
	}
	for i := 0; i < n; i += PageSize {
		p := uint32((offset + uint64(i)) / PageSize)
		if page := s.saved[p]; page != nil {
			copy(b[i:], page[:])
			delete(s.saved, p)
		}
	}
	s.at = offset + uint64(n)
	return offset, n, nil
}

// savers are those that are told of what is about to be written.
type savers struct {
	mu  sync.Mutex
	set map[*Saver]bool
}

func (v *savers) before(first, end uint32) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for s := range v.set {
		s.before(first, end)
	}
}

// Save has s told of what is about to be written, beside others. No checkpoint may be under way.
func (p *Patcher) Save(s *Saver) {
	v := &p.savers
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.set == nil {
		v.set = make(map[*Saver]bool)
	}
	v.set[s] = true
}

// StopSaving ends that, at any time.
func (p *Patcher) StopSaving(s *Saver) {
	v := &p.savers
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.set, s)
}

// Checked reads a memory file and holds each page against its checksum.
type Checked struct {
	memory, checksums io.ReaderAt // checksums may be nil: nothing is checked
	noted             []byte
}

// NewChecked reads from those files.
func NewChecked(memory, checksums io.ReaderAt) *Checked {
	return &Checked{memory: memory, checksums: checksums}
}

// Read reads pages from an offset on, all of b. The error wraps ErrChecksum if one of them that is
// not in other is damaged.
func (c *Checked) Read(b []byte, offset uint64, other func(page uint32) bool) error {
	if err := readZeroPadded(c.memory, b, int64(offset)); err != nil || c.checksums == nil {
		return err
	}
	pages := len(b) / PageSize
	if need := pages * checksumSize; len(c.noted) < need {
		c.noted = make([]byte, need)
	}
	first := uint32(offset / PageSize)
	noted := c.noted[:pages*checksumSize]
	if err := readZeroPadded(c.checksums, noted, place(first)); err != nil {
		return err
	}
	for i := range pages {
		got := pageChecksum(b[i*PageSize:][:PageSize])
		if p := first + uint32(i); got != binary.LittleEndian.Uint32(noted[i*checksumSize:]) &&
			!other(p) {
			return fmt.Errorf("page %d: %w", p, ErrChecksum)
		}
	}
	return nil
}

// Put notes the checksum of a page of a file that is being made.
func (c *Checksums) Put(page uint32, data []byte) error { return c.set(page, pageChecksum(data)) }

// Bytes is the page as it is by now.
func (s *Suspect) Bytes() []byte { return s.page[:] }

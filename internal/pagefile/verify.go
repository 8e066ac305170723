package pagefile

import (
	"encoding/binary"
	"fmt"
	"io"
)

// Suspect is a page that does not have its checksum and that an interrupted patch may have been
// writing. It is told of the ranges that this patch was made of, in order, and says whether they
// lead to the checksum.
type Suspect struct {
	page  [PageSize]byte
	noted uint32
	ok    bool
}

// NewSuspect reads a page and its checksum.
func NewSuspect(memory, checksums io.ReaderAt, index uint32) (*Suspect, error) {
	s := &Suspect{}
	var noted [checksumSize]byte
	if err := readZeroPadded(memory, s.page[:], int64(index)*PageSize); err != nil {
		return nil, err
	}
	if err := readZeroPadded(checksums, noted[:], place(index)); err != nil {
		return nil, err
	}
	s.noted = binary.LittleEndian.Uint32(noted[:])
	s.ok = pageChecksum(s.page[:]) == s.noted // as it is, it is as of the checkpoint
	return s, nil
}

// Patch applies a range; offset is in the page. Replacing the whole page replaces the damage.
func (s *Suspect) Patch(offset int, data []byte) {
	copy(s.page[offset:], data)
	s.ok = s.ok || len(data) == PageSize || pageChecksum(s.page[:]) == s.noted
}

// Innocent tells whether the page has come to its checksum.
func (s *Suspect) Innocent() bool { return s.ok }

// Verify reads the memory file of size bytes and its checksums and calls bad for each page whose
// bytes do not have the checksum noted. It works on plain readers, so that a state can be checked
// without being opened. An error is one of reading, or wraps ErrChecksum or ErrVersion: of the
// header, so that nothing is known of the pages.
func Verify(memory, checksums io.ReaderAt, size uint64, bad func(page uint32)) error {
	if _, err := ReadStamp(checksums); err != nil {
		return err
	}
	const batch = 256 // pages
	pages := make([]byte, batch*PageSize)
	noted := make([]byte, batch*checksumSize)
	for first := uint64(0); first*PageSize < size; first += batch {
		n := min(batch, size/PageSize-first)
		if err := readZeroPadded(memory, pages[:n*PageSize], int64(first*PageSize)); err != nil {
			return fmt.Errorf("memory: %w", err)
		}
		at := place(uint32(first))
		if err := readZeroPadded(checksums, noted[:n*checksumSize], at); err != nil {
			return fmt.Errorf("checksums: %w", err)
		}
		for i := range n {
			got := pageChecksum(pages[i*PageSize : (i+1)*PageSize])
			if got != binary.LittleEndian.Uint32(noted[i*checksumSize:]) {
				bad(uint32(first + i))
			}
		}
	}
	return nil
}

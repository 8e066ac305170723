package mmapmem

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"unsafe"

	"github.com/mmrun/mmrun/vfs"
)

// Sums is the file of page checksums that lies beside a memory file.
//
//	offset 4*i   uint32, little endian: CRC-32C of page i, exclusive or that of a page of zeros
//
// A page of zeros so has the sum 0: a hole in the memory file is a hole here, and pages past the
// end of this file are zeros. The file has no header, because every one of its bytes is checked
// against the memory.
//
// Sums are as of the last checkpoint. A crash in the middle of one leaves new sums over pages of
// both ages; see [Patcher].
//
// A Sums is not safe for concurrent use.
type Sums struct {
	file   vfs.File
	mapped []byte
}

const (
	sumSize = 4
	// sumsUnit is the step in which the file grows: the sums of 4 MiB of memory.
	sumsUnit = 4096
)

// NewSums uses f, which may be empty. The caller keeps it open and closes it.
func NewSums(f vfs.File) *Sums { return &Sums{file: f} }

// Sync makes the sums durable. The error wraps ErrSync.
func (s *Sums) Sync() error {
	if err := s.file.Sync(); err != nil {
		return fmt.Errorf("%w: %w", ErrSync, err)
	}
	return nil
}

// at is the sum noted for a page.
func (s *Sums) at(page uint32) (uint32, error) {
	if s.mapped == nil {
		size, err := s.file.Size()
		if err != nil {
			return 0, err
		}
		if size > 0 {
			if err := s.grow(size); err != nil {
				return 0, err
			}
		}
	}
	if offset := int(page) * sumSize; offset < len(s.mapped) {
		return binary.LittleEndian.Uint32(s.mapped[offset:]), nil
	}
	return 0, nil
}

// Build notes the sums of all pages of a memory of size bytes.
func (s *Sums) Build(memory io.ReaderAt, size uint64) error {
	const batch = 256 * PageSize
	run := make([]byte, batch)
	for at := uint64(0); at < size; at += batch {
		n := min(batch, size-at)
		if err := readZeroPadded(memory, run[:n], int64(at)); err != nil {
			return err
		}
		for i := uint64(0); i < n; i += PageSize {
			if err := s.set(uint32((at+i)/PageSize), pageSum(run[i:i+PageSize])); err != nil {
				return err
			}
		}
	}
	return nil
}

// Clip notes that there is nothing behind a memory of size bytes. What a checkpoint of more memory has left there, of whose commits
// nothing is left, would be held against the pages of the next growth. It is for a file that set has not grown since.
func (s *Sums) Clip(size uint64) error {
	end, err := s.file.Size()
	if err != nil {
		return err
	}
	at := int64(size / PageSize * sumSize)
	for rest := make([]byte, min(64<<10, max(end-at, 0))); at < end; at += int64(len(rest)) {
		rest = rest[:min(int64(len(rest)), end-at)]
		if err := readZeroPadded(s.file, rest, at); err != nil {
			return err
		}
		if len(bytes.TrimRight(rest, "\x00")) > 0 {
			clear(rest)
			if _, err := s.file.WriteAt(rest, at); err != nil {
				return err
			}
		}
	}
	return nil
}

// set notes the sum of a page.
func (s *Sums) set(page, sum uint32) error {
	at := int64(page) * sumSize
	if int64(len(s.mapped)) < at+sumSize {
		if err := s.grow(at + sumSize); err != nil {
			return err
		}
	}
	// In one store, also where the compiler does not make one of PutUint32's four (with the race detector): a kill in between
	// would leave a sum that no page has. The mapping begins at a page, so the address is aligned.
	var b [sumSize]byte
	binary.LittleEndian.PutUint32(b[:], sum)
	atomic.StoreUint32((*uint32)(unsafe.Pointer(&s.mapped[at])), binary.NativeEndian.Uint32(b[:]))
	return nil
}

// grow maps at least end bytes, reserving their blocks first: a store to a hole on a full disk
// would be a SIGBUS.
func (s *Sums) grow(end int64) error {
	end = (end + sumsUnit - 1) / sumsUnit * sumsUnit
	size, err := s.file.Size()
	if err != nil {
		return err
	}
	size = max(end, size/sumsUnit*sumsUnit)
	if err := s.file.Allocate(0, size); err != nil {
		return err
	}
	if s.mapped != nil {
		if err := s.file.Unmap(s.mapped); err != nil {
			return err
		}
		s.mapped = nil
	}
	s.mapped, err = s.file.Map(size)
	return err
}

// ErrSum is what Verify's errors wrap: a page does not have the checksum noted for it.
var ErrSum = errors.New("page checksum mismatch")

// ErrSync is what the error of a failed sync wraps: it is unknown what is on the disk.
var ErrSync = errors.New("a sync failed, what is on the disk is unknown")

// Suspect is a page that does not have its checksum and that an interrupted patch may have been
// writing. It is told of the ranges that this patch was made of, in order, and says whether they
// lead to the sum.
type Suspect struct {
	page  [PageSize]byte
	noted uint32
	ok    bool
}

// NewSuspect reads a page and its sum.
func NewSuspect(memory, sums io.ReaderAt, index uint32) (*Suspect, error) {
	s := &Suspect{}
	var noted [sumSize]byte
	if err := readZeroPadded(memory, s.page[:], int64(index)*PageSize); err != nil {
		return nil, err
	}
	if err := readZeroPadded(sums, noted[:], int64(index)*sumSize); err != nil {
		return nil, err
	}
	s.noted = binary.LittleEndian.Uint32(noted[:])
	return s, nil
}

// Patch applies a range; offset is in the page. Replacing the whole page replaces the damage.
func (s *Suspect) Patch(offset int, data []byte) {
	copy(s.page[offset:], data)
	s.ok = s.ok || len(data) == PageSize || pageSum(s.page[:]) == s.noted
}

// Innocent tells whether the page has come to its checksum.
func (s *Suspect) Innocent() bool { return s.ok }

// Verify reads the memory file of size bytes and its sums and calls bad for each page whose
// bytes do not have the sum noted. It works on plain readers, so that a state can be checked
// without being opened. An error is one of reading.
func Verify(memory, sums io.ReaderAt, size uint64, bad func(page uint32)) error {
	const batch = 256 // pages
	pages := make([]byte, batch*PageSize)
	noted := make([]byte, batch*sumSize)
	for first := uint64(0); first*PageSize < size; first += batch {
		n := min(batch, size/PageSize-first)
		if err := readZeroPadded(memory, pages[:n*PageSize], int64(first*PageSize)); err != nil {
			return fmt.Errorf("memory: %w", err)
		}
		if err := readZeroPadded(sums, noted[:n*sumSize], int64(first*sumSize)); err != nil {
			return fmt.Errorf("page sums: %w", err)
		}
		for i := range n {
			if pageSum(pages[i*PageSize:(i+1)*PageSize]) != binary.LittleEndian.Uint32(noted[i*sumSize:]) {
				bad(uint32(first + i))
			}
		}
	}
	return nil
}

func readZeroPadded(r io.ReaderAt, p []byte, offset int64) error {
	n, err := r.ReadAt(p, offset)
	if err != nil && err != io.EOF {
		return err
	}
	clear(p[n:])
	return nil
}

package wal

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/mmrun/mmrun/vfs"
)

// errSync marks a failed sync inside of an error, the one kind that can not be survived.
var errSync = errors.New("sync failed")

// segment is one file with its mapping, and the present life in it.
type segment struct {
	file     vfs.File
	fileSize int64
	mapping  []byte // nil when the file is shorter than a header

	// The present life. header holds what will be written by begin until begun is true.
	begun  bool
	header header
	chain  uint32 // checksum of the last record, or of the header
	tail   int64  // offset behind the last record
	last   uint64 // sequence number of the last record, or the base
	synced int64  // all bytes before this offset are known to be on the disk

	found found
}

func openSegment(fsys vfs.FS, path string, flag int) (*segment, error) {
	f, err := fsys.OpenFile(path, flag, vfs.FilePerm)
	if err != nil {
		return nil, fmt.Errorf("wal: %w", err)
	}
	s := &segment{file: f}
	if s.fileSize, err = f.Size(); err == nil {
		err = s.remap()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("wal: %w", err), f.Close())
	}
	return s, nil
}

// remap maps what is there, never more: a touch behind the end of the file would be a SIGBUS.
func (s *segment) remap() error {
	length := min(s.fileSize, maxSize) &^ 7
	if length < headerSize {
		return nil
	}
	// A copy of the file may have holes, and to touch one on a full disk would be a SIGBUS.
	if err := s.file.Allocate(0, length); err != nil {
		return err
	}
	m, err := s.file.Map(length)
	if err != nil {
		return err
	}
	s.mapping = m
	return nil
}

// free is the room for a record.
func (s *segment) free() int64 {
	if !s.begun {
		return int64(len(s.mapping)) - headerSize
	}
	return int64(len(s.mapping)) - s.tail
}

// prepare makes the segment the next to be begun. Nothing is written yet, so that a wal
// without commits looks idle and is opened without reading further.
func (s *segment) prepare(base uint64, prev link) {
	s.begun = false
	s.header = header{state: stateOpen, salt: s.header.salt, base: base, prev: prev}
	s.chain, s.tail, s.last, s.synced = 0, headerSize, base, 0
}

// begin writes the header of the prepared life.
func (s *segment) begin(salt, durable uint64) {
	s.header.salt = salt
	s.header.durable = durable
	s.header.size = int64(len(s.mapping)) // Reserve may have grown it since prepare
	var b [headerBytes]byte
	s.chain = s.header.encode(&b)
	putHeader(s.mapping, &b)
	s.begun = true
}

// putIdle writes a header that says that there is nothing in the segment.
func (s *segment) putIdle(base uint64) {
	var b [headerBytes]byte
	h := header{state: stateIdle, base: base}
	h.encode(&b)
	if !bytes.Equal(s.mapping[:headerBytes], b[:]) { // a clean page costs no write at the sync
		putHeader(s.mapping, &b)
	}
}

// append stores c, which takes size bytes, at the tail. Commits up to durable are durable.
func (s *segment) append(c *Commit, size int64, durable uint64) {
	s.chain = putRecord(s.mapping[s.tail:s.tail+size], c, s.chain^mix(s.header.salt), durable)
	s.tail += size
	s.last = c.Seq
	s.putEndMark(durable)
}

func (s *segment) putEndMark(durable uint64) {
	if s.tail <= int64(len(s.mapping))-endMarkSize {
		putEndMark(s.mapping[s.tail:], s.header.salt, s.tail, s.last, durable)
	}
}

// resize gives the file of a segment without live records a new size and maps it anew.
//
// Growth is allocated, so that no store to the mapping can fail for want of room, and synced: an
// open header that promises bytes must not reach the disk before the file's length does.
//
// With zero, zeros are also written over the new part: fallocate leaves extents marked as
// unwritten, and each sync of a record would then have to change extents, too, which takes a
// transaction of the file system. A segment that is grown for one large record does without.
func (s *segment) resize(size int64, zero bool) error {
	size = (size + 7) &^ 7
	old := s.fileSize
	if s.mapping != nil {
		if err := s.file.Unmap(s.mapping); err != nil {
			return fmt.Errorf("wal: %w", err)
		}
		s.mapping = nil
	}
	err := s.setLength(size, zero)
	if err != nil && !errors.Is(err, errSync) {
		// Back to what it was; the blocks behind the end are given back.
		err = errors.Join(err, s.file.Truncate(old))
	} else {
		s.fileSize = size
	}
	err = errors.Join(err, s.remap())
	if err != nil {
		return fmt.Errorf("wal: %w", err)
	}
	return nil
}

// zeroChunk is how much is zeroed by one write, and so the size of the folios that the kernel
// keeps the file in. A store to a clean page makes the whole folio dirty, and the next sync writes
// all of it: with 256 KiB a synced append ran at 0.7 of the rate of a bare pwrite and fdatasync,
// with 64 KiB at 0.9, with 4 KiB at 1.0 (BenchmarkAppendSync, Linux 6.18, ext4).
const zeroChunk = 4 << 10

func (s *segment) setLength(size int64, zero bool) error {
	if size < s.fileSize {
		if err := s.file.Truncate(size); err != nil {
			return err
		}
	} else {
		if err := s.file.Allocate(s.fileSize, size-s.fileSize); err != nil {
			return err
		}
		if zero {
			zeros := make([]byte, zeroChunk)
			for at := s.fileSize; at < size; {
				n, err := s.file.WriteAt(zeros[:min(int64(len(zeros)), size-at)], at)
				if err != nil {
					return err
				}
				at += int64(n)
			}
		}
	}
	if err := s.file.Sync(); err != nil {
		return fmt.Errorf("%w: %w", errSync, err)
	}
	return nil
}

package wal

import (
	"fmt"

	"github.com/mmrun/mmrun/vfs"
)

// segment is one file with its mapping, and the present generation in it. No descriptor is kept:
// the file is opened to be read, emptied, or given another size.
type segment struct {
	fsys     vfs.FS
	path     string
	fileSize int64
	mapping  vfs.Mapping // nil between Open and Reset, and after Close
	bytes    []byte      // mapped

	// The present generation. header holds what will be written by begin until begun is true.
	begun  bool
	header header
	chain  uint32 // checksum of the last record, or of the header
	tail   int64  // offset behind the last record
	last   uint64 // sequence number of the last record, or the base
	synced int64  // all bytes before this offset are known to be on the disk

	warmth warmth
	found  found
}

func (s *segment) size() int64 { return int64(len(s.bytes)) }

// free is the room for a record.
func (s *segment) free() int64 {
	if !s.begun {
		return s.size() - headerSize
	}
	return s.size() - s.tail
}

// prepare makes the segment the next to be begun. Nothing is written yet, so that a wal
// without commits looks idle and is opened without reading further.
func (s *segment) prepare(base uint64, prev link, full int64) {
	s.begun = false
	s.header = header{state: stateOpen, salt: s.header.salt, base: base, prev: prev, full: full}
	s.chain, s.tail, s.last, s.synced = 0, headerSize, base, 0
}

// begin writes the header of the prepared generation.
func (s *segment) begin(salt, durable uint64) {
	s.header.salt = salt
	s.header.durable = durable
	s.header.size = s.size() // it may have grown since prepare
	var b [headerBytes]byte
	s.chain = s.header.encode(&b)
	s.warmth.cool(headerSize)
	putHeader(s.bytes, &b)
	s.begun = true
}

// append stores c, which takes size bytes, at the tail. Commits up to durable are durable.
func (s *segment) append(c *Commit, size int64, durable uint64) {
	if end := s.tail + size + endMarkSize; end > s.warmth.end {
		s.warmth.warm(s.mapping, s.tail, end)
	}
	record := s.bytes[s.tail : s.tail+size]
	s.chain = putRecord(record, c, s.chain^mix(s.header.salt), noteOf(c.Seq-1, durable))
	s.tail += size
	s.last = c.Seq
	s.putEndMark(durable)
}

func (s *segment) putEndMark(durable uint64) {
	if s.tail <= s.size()-endMarkSize {
		putEndMark(s.bytes[s.tail:], s.header.salt, s.tail, s.last, durable)
	}
}

// setMapping replaces the mapping, which may be nil. The old one is given back.
func (s *segment) setMapping(m vfs.Mapping) error {
	old := s.mapping
	s.mapping, s.bytes = m, nil
	if m != nil {
		s.bytes = m.Bytes()
		s.bytes = s.bytes[:len(s.bytes)&^7]
	}
	if old == nil {
		return nil
	}
	if err := old.Unmap(); err != nil {
		return fmt.Errorf("wal: %w", err)
	}
	return nil
}

// warmth says which pages of a segment can be stored to without a page fault. A store to a page
// of a mapped file that is clean, which it is after each sync, is a fault of 1.2 to 3.5 µs, and
// with usual records one append in 64 makes one: it was the 99th percentile of an event. Asking
// for pages in batches costs 1.3 µs for each (BenchmarkAppendTail). But a page that was asked
// for is written by the next sync, whether it was stored to or not. So a batch is as long as what
// has been appended since the last sync: with a sync after each commit nothing is asked for.
type warmth struct {
	from   int64 // where the tail was when pages were last made clean
	end    int64 // the pages before this offset have been stored to since, or asked for
	faults uint64
}

const (
	page = 4096
	// mostAhead is the longest batch: a pause of some 40 µs in one event of 2000.
	mostAhead = 32 * page
)

func pageUp(offset int64) int64 { return (offset + page - 1) &^ (page - 1) }

// cool says that the pages have become clean, with the tail at this offset.
func (w *warmth) cool(tail int64) { w.from, w.end = tail, 0 }

// warm makes the pages up to end, of what is about to be stored from tail on, ready.
func (w *warmth) warm(m vfs.Mapping, tail, end int64) {
	w.faults++
	start := max(w.end, tail&^(page-1))
	w.end = pageUp(end)
	// What is stored now belongs to the batch: of more than one page, all are asked for at once.
	ahead := min(tail-w.from, mostAhead) &^ (page - 1)
	if ahead > 0 || w.end-start > page {
		w.end += ahead
		m.Prefault(start, w.end-start)
	}
}

package wal

import (
	"errors"
	"fmt"
	"hash/crc32"
	"iter"
	"math"
)

// ErrTooLarge: the commit breaks a limit of the format, whatever segment it would go to.
var ErrTooLarge = errors.New("wal: commit too large")

// A record, at an offset that is a multiple of 8:
//
//	offset size
//	     0    4  CRC-32C of all bytes after this word, seeded (see below)
//	     4    4  length of the record in units of 8 bytes, this header and padding included
//	     8    8  sequence number of the commit
//	    16    4  memory size in wasm pages
//	    20    4  length of the small state in bytes
//	    24    4  number of ranges
//	    28    4  sync note: how many commits right before this one were not known to be durable
//	             when it was written; 2^32-1 for that many or more
//	    32    -  small state
//	     -    -  ranges, each: offset u32, length u32, bytes; not aligned
//	     -  0-7  zero padding
//
// The checksum is seeded with that of the record before (the first one with the header's),
// xored with 32 bits made from the segment's salt. A CRC maps different seeds to different
// checksums over the same bytes. So what lies behind the tail (a record of an older generation, or
// of this one at another place of the chain) is valid there only if the two seeds happen to be
// equal, and nothing needs to be zeroed. A record is valid only when all of it is stored: its
// checksum is stored last, and covers all the rest.
//
// The end mark follows the last record, and the next record overwrites it:
//
//	offset size
//	     0    4  CRC-32C of the 20 bytes after this word, seeded with the salt and the offset
//	     4    4  0, which is no record's length
//	     8    8  sequence number of the last commit
//	    16    4  sync note: how many commits up to that one were not known to be durable
//	    20    4  "end."
//
// It is stored after the record and again after a sync. Replay does not need it. It tells, when
// a record before it is found broken, that the log had gone further. So do the sync notes; they
// count commits, not bytes, since a commit that is not in the wal any more is no loss when
// it has been checkpointed.
//
// What the small state holds is the caller's: time, function or anything else that a record is to
// carry is a part of that.

const (
	maxSmall  = math.MaxUint32 // bytes of small state
	maxRanges = math.MaxUint32

	noteUnknown = math.MaxUint32 // of a sync note

	recordHeaderSize = 32
	rangeHeaderSize  = 8
	endMarkSize      = 24
)

var endMarkTag = le.Uint32([]byte("end."))

// mix is the part of a salt that goes into each checksum's seed.
func mix(salt uint64) uint32 { return uint32(salt) ^ uint32(salt>>32) }

// RecordSize is the number of bytes that c takes in a segment; more than [MaxRecord] if it can be
// in none.
func RecordSize(c *Commit) int64 {
	size, _ := measure(c)
	return size
}

// measure also tells whether all ranges lie inside of the memory. The size is larger than
// MaxRecord if the record breaks any limit.
func measure(c *Commit) (size int64, inside bool) {
	if uint64(len(c.Small)) > maxSmall || uint64(len(c.Ranges)) > maxRanges {
		return math.MaxInt64, true
	}
	inside = true
	size = recordHeaderSize + int64(len(c.Small)) + rangeHeaderSize*int64(len(c.Ranges))
	for _, r := range c.Ranges {
		size = min(size+int64(r.Len), 2*MaxRecord)
		if uint64(r.Offset)+uint64(r.Len) > uint64(len(c.Memory)) {
			inside = false
		}
	}
	return (size + 7) &^ 7, inside
}

// refusal says why a commit for which measure gave this can be in no segment. nil: it can be.
func refusal(c *Commit, size int64, inside bool) error {
	switch {
	case c.Seq > MaxSeq:
		return fmt.Errorf("commit %d: the largest sequence number is %d", c.Seq, uint64(MaxSeq))
	case !inside:
		return fmt.Errorf("commit %d: a range lies outside of the memory of %d bytes",
			c.Seq, len(c.Memory))
	case size <= MaxRecord:
		return nil
	case uint64(len(c.Small)) > maxSmall:
		return fmt.Errorf("%w: commit %d has a small state of %d bytes, the most is %d",
			ErrTooLarge, c.Seq, len(c.Small), int64(maxSmall))
	case uint64(len(c.Ranges)) > maxRanges:
		return fmt.Errorf("%w: commit %d has %d ranges, the most is %d",
			ErrTooLarge, c.Seq, len(c.Ranges), int64(maxRanges))
	}
	return fmt.Errorf("%w: commit %d has more than the %d bytes of the largest record",
		ErrTooLarge, c.Seq, int64(MaxRecord))
}

// putRecord stores c into b, which has the size that measure gave, and returns its checksum.
func putRecord(b []byte, c *Commit, seed, note uint32) (crc uint32) {
	le.PutUint32(b[4:], uint32(len(b)/8))
	le.PutUint64(b[8:], c.Seq)
	le.PutUint32(b[16:], c.WasmPages)
	le.PutUint32(b[20:], uint32(len(c.Small)))
	le.PutUint32(b[24:], uint32(len(c.Ranges)))
	le.PutUint32(b[28:], note)
	n := recordHeaderSize + copy(b[recordHeaderSize:], c.Small)
	for _, r := range c.Ranges {
		le.PutUint32(b[n:], r.Offset)
		le.PutUint32(b[n+4:], r.Len)
		n += rangeHeaderSize
		n += copy(b[n:], c.Memory[r.Offset:uint64(r.Offset)+uint64(r.Len)])
	}
	clear(b[n:])
	crc = crc32.Update(seed, castagnoli, b[4:])
	le.PutUint32(b[0:], crc) // last: see above
	return crc
}

// noteOf encodes that of the commits up to last those up to durable are known to be durable.
func noteOf(last, durable uint64) uint32 { return uint32(min(last-durable, noteUnknown)) }

// durableOf decodes it; 0 if that is not known.
func durableOf(last uint64, note uint32) uint64 {
	if note == noteUnknown || uint64(note) > last {
		return 0
	}
	return last - uint64(note)
}

func putEndMark(b []byte, salt uint64, offset int64, last, durable uint64) {
	le.PutUint32(b[4:], 0)
	le.PutUint64(b[8:], last)
	le.PutUint32(b[16:], noteOf(last, durable))
	le.PutUint32(b[20:], endMarkTag)
	le.PutUint32(b[0:], endMarkCRC(b, salt, offset))
}

func endMarkCRC(b []byte, salt uint64, offset int64) uint32 {
	return crc32.Update(mix(salt)^uint32(offset/8), castagnoli, b[4:endMarkSize])
}

// readEndMark reads the end mark at an offset in the generation with this salt.
func readEndMark(b []byte, offset int64, salt uint64) (last, durable uint64, ok bool) {
	if len(b) < endMarkSize || le.Uint32(b[4:]) != 0 || le.Uint32(b[20:]) != endMarkTag ||
		le.Uint32(b) != endMarkCRC(b, salt, offset) {
		return 0, 0, false
	}
	last = le.Uint64(b[8:])
	return last, durableOf(last, le.Uint32(b[16:])), true
}

// Record is a commit read back. Its slices lie in what it was read from: they are valid, and must
// not be written to, until the function that was given the record returns.
type Record struct {
	Seq       uint64
	WasmPages uint32
	Small     []byte

	ranges  []byte
	durable uint64 // the last commit known to be durable when this one was written
}

// Ranges gives the changed ranges in the order in which they were appended: the offset in the
// memory, and the bytes.
func (r Record) Ranges() iter.Seq2[uint32, []byte] {
	return func(yield func(uint32, []byte) bool) {
		for b := r.ranges; len(b) > 0; {
			length := rangeHeaderSize + int(le.Uint32(b[4:]))
			if !yield(le.Uint32(b), b[rangeHeaderSize:length:length]) {
				return
			}
			b = b[length:]
		}
	}
}

// fault is why there is no valid record at an offset.
type fault string

const (
	faultNone     fault = ""
	faultNoRoom   fault = "no room for another record"
	faultNoRecord fault = "no record"
	faultLength   fault = "impossible record length"
	faultSeq      fault = "sequence number of another place in the log"
	faultChecksum fault = "checksum mismatch"
	faultShape    fault = "the record's parts do not add up"
	faultHole     fault = "a record in a hole of the file"
	faultLastSeq  fault = "no sequence number is left"
)

// lengthOf is the length of a record that begins with b and has room bytes at most, 0 when there
// cannot be one.
func lengthOf(b []byte, room int64) (length int64, why fault) {
	if room < recordHeaderSize || len(b) < recordHeaderSize {
		return 0, faultNoRoom
	}
	length = int64(le.Uint32(b[4:])) * 8
	switch {
	case length == 0:
		return 0, faultNoRecord
	case length < recordHeaderSize || length > room:
		return 0, faultLength
	}
	return length, faultNone
}

// readRecord reads the record that b is, whatever the bytes are. seed is the checksum's, seq the
// sequence number that belongs here.
func readRecord(b []byte, seed uint32, seq uint64) (r Record, crc uint32, why fault) {
	if le.Uint64(b[8:]) != seq {
		return r, 0, faultSeq
	}
	crc = le.Uint32(b)
	if crc32.Update(seed, castagnoli, b[4:]) != crc {
		return r, 0, faultChecksum
	}
	r, why = splitRecord(b)
	return r, crc, why
}

// splitRecord finds the parts of a record. It trusts nothing in it.
func splitRecord(b []byte) (r Record, why fault) {
	seq := le.Uint64(b[8:])
	r = Record{Seq: seq, WasmPages: le.Uint32(b[16:]), durable: durableOf(seq-1, le.Uint32(b[28:]))}
	rest := b[recordHeaderSize:]
	small, ranges := uint64(le.Uint32(b[20:])), le.Uint32(b[24:])
	if small > uint64(len(rest)) {
		return r, faultShape
	}
	r.Small, rest = rest[:small:small], rest[small:]
	size := uint64(0)
	for range ranges {
		if uint64(len(rest))-size < rangeHeaderSize {
			return r, faultShape
		}
		n := uint64(le.Uint32(rest[size+4:]))
		size += rangeHeaderSize
		if uint64(len(rest))-size < n {
			return r, faultShape
		}
		size += n
	}
	if uint64(len(rest))-size > 7 {
		return r, faultShape
	}
	r.ranges = rest[:size:size]
	return r, faultNone
}

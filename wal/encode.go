package wal

import (
	"fmt"
	"hash/crc32"
)

// A record outside of a segment has the format of one inside. Its checksum is seeded with zero,
// and its sync note says that nothing is known: who sends records elsewhere needs to tie them
// together by other means than the salt of a file.

// Encode appends c to b as a record that belongs to no segment. The error is that of
// [Log.Append] for a commit that breaks a limit.
func Encode(b []byte, c *Commit) ([]byte, error) {
	size, inside := measure(c)
	if err := refusal(c, size, inside); err != nil {
		return b, fmt.Errorf("wal: %w", err)
	}
	if int64(int(size)) != size {
		return b, fmt.Errorf("wal: %w: commit %d takes %d bytes", ErrTooLarge, c.Seq, size)
	}
	n := len(b)
	b = append(b, make([]byte, size)...)
	putRecord(b[n:], c, 0, noteUnknown)
	return b, nil
}

// Decode reads the record that b begins with and gives what follows it. b may hold any bytes: the
// error is [ErrCorrupt] where they are no record. The record's slices are parts of b.
func Decode(b []byte) (r Record, rest []byte, err error) {
	length, why := lengthOf(b, int64(len(b)))
	if why == faultNone {
		seq := le.Uint64(b[8:])
		if seq > MaxSeq {
			why = faultLastSeq
		} else {
			r, _, why = readRecord(b[:length], 0, seq)
		}
	}
	if why != faultNone {
		return Record{}, b, fmt.Errorf("%w: %s", ErrCorrupt, why)
	}
	return r, b[length:], nil
}

// EncodeRecord appends a record that was read, in the form of [Encode].
func EncodeRecord(b []byte, r Record) []byte {
	size := (recordHeaderSize + len(r.Small) + len(r.ranges) + 7) &^ 7
	n := len(b)
	b = append(b, make([]byte, size)...)
	p := b[n:]
	le.PutUint32(p[4:], uint32(size/8))
	le.PutUint64(p[8:], r.Seq)
	le.PutUint32(p[16:], r.WasmPages)
	le.PutUint32(p[20:], uint32(len(r.Small)))
	ranges := uint32(0)
	for range r.Ranges() {
		ranges++
	}
	le.PutUint32(p[24:], ranges)
	le.PutUint32(p[28:], noteUnknown)
	at := recordHeaderSize + copy(p[recordHeaderSize:], r.Small)
	copy(p[at:], r.ranges)
	le.PutUint32(p, crc32.Update(0, castagnoli, p[4:]))
	return b
}

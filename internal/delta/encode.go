// Package delta encodes how the small state of one commit differs from that of the commit before,
// and applies it. A delta is the small state of a wal record.
package delta

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/mmrun/mmrun/globalsfile"
	"github.com/mmrun/mmrun/internal/section"
)

/*
A delta is a list of sections (internal/section), with the seed 0. All of them must be understood.
Numbers are unsigned varints unless said otherwise; nothing changed is no bytes at all.

	section  content
	globals  each: index times 2, then the value, 8 bytes; or, for a v128, index times 2 plus 1,
	         then the value, 16 bytes, the low half first
	dropped  each: index of a segment that has been dropped
	tables   index, then changes of its elements, 4 bytes each, signed; a section for each table
	         that has changed, in ascending order of the indices
	meta     changes of the user's bytes
	binding  number of the checkpoint that the state went on from, number of the stretch of the log
	         that begins here (8 bytes each); in the first delta after a checkpoint
	16 to 31 a byte string: how many of its first bytes stay, then what follows them

	changes
	length   of the table or of the bytes, as it is now
	runs     each: how many elements after the end of the run before (at first, after the begin)
	         it begins, how many it has, and these. Everything behind the old length is in a run

A run holds what is there now, never how much more that is than before, and a length is a length. So
applying a delta twice is the same as once: the second time the length is what it says already, and
each run writes what is there.

Deltas are applied to the state before them and in the order of their commits: the sequence number
of a slot tells which of the log's records come after it. One that begins a run behind the end of
what a state has is refused.
*/
const seed = 0

// Encoder collects the changes of one commit. To be called in the order of the methods, and in
// ascending order of indices. The zero value is ready; after Reset it is used again without
// allocating.
type Encoder struct {
	b       []byte
	start   int // of the section that is open
	open    bool
	sum     uint32
	resized bool
	// How much longer the tables and the metadata get, in elements and bytes.
	elements, meta int64

	kept    []Kept // in ascending order of their ids
	written bool   // kept is behind the rest, which ends at rest with the checksum restSum
	rest    int
	restSum uint32
}

// Kept is what has become of one of the byte strings from section.FirstKept on: its first Stay
// bytes stay, Bytes follow them. There is one for an id in a delta.
type Kept struct {
	ID    section.ID
	Stay  int
	Bytes []byte
}

// Reset begins the next commit. What Bytes has returned is no longer valid.
func (e *Encoder) Reset() {
	e.b, e.start, e.open, e.sum = e.b[:0], 0, false, seed
	e.resized, e.elements, e.meta = false, 0, 0
	e.kept, e.written = e.kept[:0], false
}

// Bytes is the delta, valid until Reset.
func (e *Encoder) Bytes() []byte {
	if e.open {
		e.end()
	}
	if len(e.kept) > 0 && !e.written {
		e.writeKept()
	}
	return e.b
}

func (e *Encoder) writeKept() {
	e.written, e.rest, e.restSum = true, len(e.b), e.sum
	for _, k := range e.kept {
		e.begin(k.ID)
		e.b = append(binary.AppendUvarint(e.b, uint64(k.Stay)), k.Bytes...)
		e.end()
	}
}

// Keep notes what has become of a byte string. The bytes must stay as they are until Reset. An id
// comes once, and they ascend; the other methods but Binding come before.
func (e *Encoder) Keep(k Kept) { e.kept = append(e.kept, k) }

func (e *Encoder) begin(id section.ID) {
	e.start, e.open = len(e.b), true
	e.b = section.Begin(e.b, id, true)
}

func (e *Encoder) end() {
	e.b, e.sum = section.End(e.b, e.start, e.sum)
	e.open = false
}

// globalsTag is the first byte of a section of globals. Those of the other sections of a delta are
// one byte as well, made in the same way.
const globalsTag = byte(section.Globals)<<1 | 1

// in makes id the section that is open.
func (e *Encoder) in(id section.ID) {
	if e.open {
		if e.b[e.start] == byte(id)<<1|1 {
			return
		}
		e.end()
	}
	e.begin(id)
}

// Global notes the value of a global of 64 bits or less.
func (e *Encoder) Global(index int, lo uint64) {
	e.in(section.Globals)
	e.b = binary.LittleEndian.AppendUint64(binary.AppendUvarint(e.b, uint64(index)<<1), lo)
}

// Wide notes the value of a global of 128 bits.
func (e *Encoder) Wide(index int, lo, hi uint64) {
	e.in(section.Globals)
	e.b = binary.LittleEndian.AppendUint64(binary.AppendUvarint(e.b, uint64(index)<<1|1), lo)
	e.b = binary.LittleEndian.AppendUint64(e.b, hi)
}

// Dropped notes that a segment has been dropped.
func (e *Encoder) Dropped(index int) {
	e.in(section.Dropped)
	e.b = binary.AppendUvarint(e.b, uint64(index))
}

// Table notes how a table differs from what it was, if it does.
func (e *Encoder) Table(index int, old, now []int32) {
	if slices.Equal(old, now) {
		return
	}
	e.Bytes() // each has its own section
	e.begin(section.Tables)
	e.b = binary.AppendUvarint(e.b, uint64(index))
	e.b = appendChanges(e.b, old, now, slices.Equal[[]int32], 1, appendElements)
	e.elements += int64(len(now) - len(old))
	e.resized = e.resized || len(now) != len(old)
}

// Meta notes how the user's bytes differ from what they were, if they do. It compares all of them,
// and what it appends goes with the difference (BenchmarkMeta).
func (e *Encoder) Meta(old, now []byte) {
	if bytes.Equal(old, now) {
		return
	}
	e.in(section.Meta)
	e.b = appendChanges(e.b, old, now, bytes.Equal, 8, appendBytes)
	e.meta += int64(len(now) - len(old))
	e.resized = e.resized || len(now) != len(old)
}

// BindingSize is how many bytes Binding adds to a delta and to what is aligned around it, at most.
const BindingSize = 32

// Binding notes, in the first commit after a checkpoint, the number of that checkpoint and the one
// of the stretch of the log that this commit begins (internal/binding).
func (e *Encoder) Binding(checkpoint, stretch uint64) {
	if e.written { // what is kept comes behind it
		e.b, e.sum, e.written = e.b[:e.rest], e.restSum, false
	}
	e.in(section.Binding)
	e.b = binary.LittleEndian.AppendUint64(e.b, checkpoint)
	e.b = binary.LittleEndian.AppendUint64(e.b, stretch)
}

// CheckFits tells, before the delta is applied to s, whether the state after it can be kept. It
// costs next to nothing unless a table or the metadata has another length. The error wraps
// globalsfile.ErrTooLarge.
func (e *Encoder) CheckFits(s *globalsfile.State) error {
	if s.Seq >= globalsfile.MaxSeq {
		return fmt.Errorf("%w: commit %d was the last one", globalsfile.ErrTooLarge, s.Seq)
	}
	if !e.resized && len(e.kept) == 0 {
		return nil
	}
	z := globalsfile.SizesOf(s)
	for _, k := range e.kept {
		z.Kept[k.ID-section.FirstKept] = int64(k.Stay + len(k.Bytes))
	}
	z.Elements += e.elements
	z.Meta += e.meta
	z.Bound = true // a checkpoint may bind it
	return z.Check()
}

func appendElements(b []byte, run []int32) []byte {
	for _, e := range run {
		b = binary.LittleEndian.AppendUint32(b, uint32(e))
	}
	return b
}

func appendBytes(b, run []byte) []byte { return append(b, run...) }

// block is how many elements are compared at once, where old and new are the same.
const block = 512

// appendChanges appends how now differs from old. Runs with no more than join equal elements
// between them become one: that is about what the header of a run takes.
func appendChanges[T comparable](b []byte, old, now []T, equal func(a, b []T) bool, join int,
	appendRun func(b []byte, run []T) []byte,
) []byte {
	b = binary.AppendUvarint(b, uint64(len(now)))
	common := min(len(old), len(now))
	end := 0 // of the last run
	for at := 0; ; {
		for at+block <= common && equal(old[at:at+block], now[at:at+block]) {
			at += block
		}
		for at < common && old[at] == now[at] {
			at++
		}
		if at == len(now) {
			return b
		}
		start := at
		for same := 0; at < common && same <= join; at++ {
			if same++; old[at] != now[at] {
				same = 0
			}
		}
		stop := at
		if at == common {
			stop, at = len(now), len(now) // what is new behind the old end is a part of the run
		}
		for stop > start && stop <= common && old[stop-1] == now[stop-1] {
			stop--
		}
		b = binary.AppendUvarint(b, uint64(start-end))
		b = binary.AppendUvarint(b, uint64(stop-start))
		b = appendRun(b, now[start:stop])
		end = stop
	}
}

// Package section encodes and decodes lists of sections. The small state and its changes are such
// lists, so that a later version of the program can add to them without a new format version.
//
// A section that a program does not know is skipped, unless whoever wrote it has said that it must
// be understood: then nothing that the list belongs to may be used.
package section

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/bits"
)

/*
A list is sections one after the other, in ascending order of their ids; sections with the same id
may follow each other. Where it ends is known from outside.

	bytes
	  1-3  tag, an unsigned varint: the id times 2, plus 1 if the section must be understood
	  1-5  number of bytes in the content L, an unsigned varint
	    L  content
	    4  CRC-32C, little endian, of all bytes of the section before this word, seeded with that of
	       the section before (the first one with a number that what holds the list gives)

A CRC maps different seeds to different checksums over the same bytes. So a section that is left
over from an earlier list at the same place is not valid behind a newer one, and the last checksum
covers all sections.
*/
const (
	checksumLength = 4
	maxTag         = 1<<17 - 1 // of an ID and the bit

	// MaxLength is the most bytes that a section's content may have. Lengths are kept in 32 bits.
	MaxLength = 1<<32 - 1
)

// ID says what a section holds. Not every list has every section.
type ID uint16

// An id stands for one thing for ever. Those from FirstKept on hold byte strings that belong to the
// host's side of a state; the engine keeps them without looking into them.
const (
	Globals    ID = 1 // values of the mutable globals
	Dropped    ID = 2 // which segments the code has dropped
	Tables     ID = 3 // function indices in the tables
	Meta       ID = 4 // the user's bytes
	MemorySize ID = 5 // of the linear memory
	Binding    ID = 6 // which checkpoint the list goes with

	TrackerCosts    ID = 16 // what finding changed pages has cost
	StreamPosition  ID = 17 // how far an input has been read
	Receipts        ID = 18 // numbers of messages that have been taken
	TimeAndFunction ID = 19 // when an event began, and what it called
	Clock           ID = 20 // what the guest has been told of the time
	Descriptors     ID = 21 // the guest's open files
	Frames          ID = 22 // a saved stack
	PendingOutput   ID = 23 // what is to be let out
	Chain           ID = 24 // digest of the commits so far, epoch of their owner
	Fork            ID = 25 // how often the state has been forked or restored
	Upgrade         ID = 26 // which module the state came from
	ProgramInput    ID = 27 // what a program has been given to read and has not read yet

	FirstKept, LastKept ID = 16, 31
	// NumKept is how many ids of byte strings there are.
	NumKept = int(LastKept-FirstKept) + 1
)

var names = map[ID]string{Globals: "globals", Dropped: "dropped flags", Tables: "tables",
	Meta: "meta", MemorySize: "memory size", Binding: "binding", TrackerCosts: "tracker costs",
	StreamPosition: "stream position", Receipts: "receipts", TimeAndFunction: "time and function",
	Clock: "clock", Descriptors: "descriptors", Frames: "frames", PendingOutput: "pending output",
	Chain: "chain value and epoch", Fork: "fork generation", Upgrade: "upgrade",
	ProgramInput: "program input"}

// Kept is the number of the byte string that the section holds, from 0. ok is false for others, and
// for those that this program does not understand: a state that has them is a newer one's.
func (id ID) Kept() (i int, ok bool) {
	i = int(id) - int(FirstKept)
	return i, FirstKept <= id && id <= LastKept && understood>>i&1 == 1
}

// understood has a bit for each byte string that this program knows what to do with.
const understood = 1<<(TrackerCosts-FirstKept) | 1<<(StreamPosition-FirstKept) |
	1<<(Receipts-FirstKept) | 1<<(PendingOutput-FirstKept) |
	1<<(TimeAndFunction-FirstKept) | 1<<(Clock-FirstKept) | 1<<(Fork-FirstKept) |
	1<<(Upgrade-FirstKept) |
	1<<(Frames-FirstKept) | 1<<(ProgramInput-FirstKept)

func (id ID) String() string {
	if name, ok := names[id]; ok {
		return fmt.Sprintf("section %d (%s)", uint16(id), name)
	}
	return fmt.Sprintf("section %d", uint16(id))
}

var (
	// ErrMalformed: the bytes are no list of sections, or one with a wrong checksum.
	ErrMalformed = errors.New("malformed list of sections")
	// ErrUnknown: a section that must be understood is not.
	ErrUnknown = errors.New("written by a newer version of this program")
)

// Section is one decoded section.
type Section struct {
	ID      ID
	Must    bool   // be understood
	Content []byte // a part of the list that was read
}

// Unknown is for a reader that does not know the section: nil if it can be skipped.
func (s Section) Unknown() error {
	if !s.Must {
		return nil
	}
	return fmt.Errorf("%w: %v must be understood, and this one does not know it", ErrUnknown, s.ID)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Size is how many bytes a section with so many bytes of content takes.
func Size(id ID, length int64) int64 {
	header := varintLength(uint64(id)<<1|1) + varintLength(uint64(length))
	return int64(header) + length + checksumLength
}

func varintLength(v uint64) int { return (bits.Len64(v|1) + 6) / 7 }

// AppendHeader begins a section of which the length is known. The content is to be appended next,
// then [AppendChecksum] ends it.
func AppendHeader(b []byte, id ID, must bool, length int) []byte {
	return binary.AppendUvarint(appendTag(b, id, must), uint64(length))
}

// AppendChecksum ends the section that begins at b[start]. seed is the checksum of the section
// before; the new one is returned as well.
func AppendChecksum(b []byte, start int, seed uint32) ([]byte, uint32) {
	sum := crc32.Update(seed, castagnoli, b[start:])
	return binary.LittleEndian.AppendUint32(b, sum), sum
}

// Begin begins a section of which the length is not known, and is small as a rule. The content is
// to be appended next, then [End] ends it.
func Begin(b []byte, id ID, must bool) []byte { return append(appendTag(b, id, must), 0) }

// End ends the section that [Begin] has begun at b[start], as [AppendChecksum] does.
func End(b []byte, start int, seed uint32) ([]byte, uint32) {
	content := start + 2
	if b[start] >= 0x80 { // an id of 64 or more
		_, n := binary.Uvarint(b[start:])
		content = start + n + 1
	}
	length := len(b) - content
	if length < 0x80 {
		b[content-1] = byte(length)
		return AppendChecksum(b, start, seed)
	}
	return endLong(b, start, content, seed)
}

// endLong makes room for a length that takes more than the byte that Begin has left for it.
func endLong(b []byte, start, content int, seed uint32) ([]byte, uint32) {
	var varint [binary.MaxVarintLen64]byte
	n := binary.PutUvarint(varint[:], uint64(len(b)-content))
	b = append(b, varint[:n-1]...) // as much longer as it gets
	copy(b[content+n-1:], b[content:])
	copy(b[content-1:], varint[:n])
	return AppendChecksum(b, start, seed)
}

func appendTag(b []byte, id ID, must bool) []byte {
	tag := uint64(id) << 1
	if must {
		tag |= 1
	}
	if tag < 0x80 {
		return append(b, byte(tag))
	}
	return binary.AppendUvarint(b, tag)
}

// Reader splits a list into its sections. It reads any bytes and allocates nothing.
type Reader struct {
	rest []byte
	sum  uint32
	last ID
	err  error
	// known: the checksums are those of a list that has been read before, or written by the reader.
	known bool
}

// Read reads the list, all of it, with the seed of its first section.
func Read(list []byte, seed uint32) Reader { return Reader{rest: list, sum: seed} }

// ReadKnown reads a list that has been read to its end without an error, or that the caller has
// just written. It saves the checksums.
func ReadKnown(list []byte) Reader { return Reader{rest: list, known: true} }

// Next is the next section. ok is false at the end and after an error.
func (r *Reader) Next() (s Section, ok bool) {
	if len(r.rest) == 0 || r.err != nil {
		return s, false
	}
	b := r.rest
	tag, n := binary.Uvarint(b)
	if n <= 0 || tag > maxTag {
		return s, r.fail("no tag")
	}
	s.ID, s.Must = ID(tag>>1), tag&1 != 0
	length, m := binary.Uvarint(b[n:])
	if m <= 0 || length > MaxLength {
		return s, r.fail("%v: no length", s.ID)
	}
	// In this order: the sum of the lengths may be anything.
	content := n + m
	if room := len(b) - content - checksumLength; room < 0 || length > uint64(room) {
		return s, r.fail("%v: %d bytes, there are %d", s.ID, length, max(room, 0))
	}
	end := content + int(length)
	if !r.known {
		r.sum = crc32.Update(r.sum, castagnoli, b[:end])
		if binary.LittleEndian.Uint32(b[end:]) != r.sum {
			return s, r.fail("%v: checksum mismatch", s.ID)
		}
	}
	if s.ID < r.last {
		return s, r.fail("%v comes after %v", s.ID, r.last)
	}
	s.Content = b[content:end:end]
	r.rest, r.last = b[end+checksumLength:], s.ID
	return s, true
}

// Err is why Next has ended before the end of the list; nil if it has not. It wraps ErrMalformed.
func (r *Reader) Err() error { return r.err }

func (r *Reader) fail(format string, args ...any) bool {
	r.err = fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
	return false
}

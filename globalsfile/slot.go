package globalsfile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/mmrun/mmrun/internal/section"
)

// Value is one global. This package gives no meaning to Type; the bits of Lo and Hi come back as
// they were given.
type Value struct {
	Type   byte
	Lo, Hi uint64
}

// State is the content of one slot.
type State struct {
	Seq         uint64 // of the commit, at most MaxSeq
	MemoryPages uint32 // size of the linear memory, in wasm pages of 64 KiB
	Globals     []Value
	Tables      [][]int32 // function indices, -1 for null
	Dropped     []bool    // one for each segment, true when it has been dropped
	Meta        []byte    // the user's
	// Binding is the number of the checkpoint that wrote the slot. The file of page checksums
	// has it too, so that a mix of two backups is found. 0: none. This package only keeps it.
	Binding uint64
	// Kept are the byte strings of the sections from section.FirstKept on, nil where there is none.
	// This package only keeps them.
	Kept [section.NumKept][]byte
}

/*
A slot is a head and a list of sections (internal/section):

	offset   bytes
	     0       8  write number W: the slot is number W mod 2, the valid one with more counts
	     8       8  sequence number of the commit
	    16       4  length of the list in bytes L
	    20       4  CRC-32C of bytes 0 to 19; the seed of the list
	    24       L  list

All of its sections must be understood. One that would be empty is left out, the memory size is not:

	section      content
	globals      each: type (1 byte), low half (8 bytes), high half (8 bytes)
	dropped      number of flags D (4 bytes), (D+7)/8 bytes of flags, the first in the lowest bit;
	             spare bits are 0
	tables       each: number of elements (4 bytes), elements (4 bytes each, signed)
	meta         the user's bytes
	memory size  in wasm pages (4 bytes)
	binding      number of the checkpoint (8 bytes)
	16 to 31     a byte string

Bytes behind the list are left over from earlier writes and mean nothing. A slot of zeros is not
valid.

The checksums are a chain from the head to the last section, so a slot of which not all has been
stored, or which is part of one write and part of an earlier one, is not valid.

A section that need not be understood is skipped, and gone with the next write of the slot: it was
as of the commit that the slot held, and who does not know it cannot say whether it still is.
*/
const (
	headLength  = 24
	valueLength = 17
)

// Sizes are the lengths that decide how long a slot is.
type Sizes struct {
	Globals, Dropped, Tables int
	Elements                 int64 // of all tables together
	Meta                     int64 // bytes
	Bound                    bool  // Binding is not 0
	Kept                     [section.NumKept]int64
}

// SizesOf takes time for each table, not for its elements.
func SizesOf(s *State) Sizes {
	z := Sizes{Globals: len(s.Globals), Dropped: len(s.Dropped), Tables: len(s.Tables),
		Meta: int64(len(s.Meta)), Bound: s.Binding != 0}
	for _, t := range s.Tables {
		z.Elements += int64(len(t))
	}
	for i, b := range s.Kept {
		z.Kept[i] = int64(len(b))
	}
	return z
}

// Slot is how many bytes of a slot are in use.
func (z Sizes) Slot() int64 {
	n := int64(headLength)
	add := func(id section.ID, length int64) {
		if length > 0 {
			n += section.Size(id, length)
		}
	}
	add(section.Globals, z.globals())
	add(section.Dropped, z.dropped())
	add(section.Tables, z.tables())
	add(section.Meta, z.Meta)
	add(section.MemorySize, 4)
	if z.Bound {
		add(section.Binding, 8)
	}
	for i, length := range z.Kept {
		add(section.FirstKept+section.ID(i), length)
	}
	return n
}

func (z Sizes) kept() (n int64) {
	for _, length := range z.Kept {
		n += length
	}
	return n
}

func (z Sizes) globals() int64 { return valueLength * int64(z.Globals) }
func (z Sizes) tables() int64  { return 4*int64(z.Tables) + 4*z.Elements }
func (z Sizes) dropped() int64 {
	if z.Dropped == 0 {
		return 0
	}
	return 4 + (int64(z.Dropped)+7)/8
}

// Check tells whether a slot can hold a state of these sizes. The error wraps ErrTooLarge.
func (z Sizes) Check() error {
	if n := z.Slot(); n > MaxSlot {
		return fmt.Errorf("%w: a small state of %d bytes (%d elements in %d tables, %d bytes of "+
			"metadata, %d globals, %d bytes of the host's side), the most is %d", ErrTooLarge, n,
			z.Elements, z.Tables, z.Meta, z.Globals, z.kept(), MaxSlot)
	}
	return nil
}

// SlotSize is how many bytes of a slot s takes.
func SlotSize(s *State) int64 { return SizesOf(s).Slot() }

// CheckFits tells whether a slot can hold s. The error wraps ErrTooLarge. What it accepts, Create
// and WriteSlot accept, and Open reads.
func CheckFits(s *State) error {
	if s.Seq > MaxSeq {
		return fmt.Errorf("%w: sequence number %d, the last one is %d", ErrTooLarge, s.Seq,
			uint64(MaxSeq))
	}
	return SizesOf(s).Check()
}

// slotWriter appends sections to a slot. Its capacity holds them all.
type slotWriter struct {
	b     []byte
	start int // of the section
	sum   uint32
}

func (w *slotWriter) begin(id section.ID, length int64) {
	w.start = len(w.b)
	w.b = section.AppendHeader(w.b, id, true, int(length))
}

func (w *slotWriter) end() { w.b, w.sum = section.AppendChecksum(w.b, w.start, w.sum) }

// encodeSlot stores a slot at the begin of slot, which has room for it. It allocates nothing. The
// last checksum of the chain is the last store: until then the slot is what it was before or not
// valid.
func encodeSlot(slot []byte, write uint64, s *State) {
	le := binary.LittleEndian
	z := SizesOf(s)
	le.PutUint64(slot[0:], write)
	le.PutUint64(slot[8:], s.Seq)
	le.PutUint32(slot[16:], uint32(z.Slot()-headLength))
	w := slotWriter{sum: crc32.Checksum(slot[:headLength-4], castagnoli)}
	le.PutUint32(slot[headLength-4:], w.sum)
	w.b = slot[:headLength]
	if n := z.globals(); n > 0 {
		w.begin(section.Globals, n)
		for i := range s.Globals {
			w.b = append(w.b, s.Globals[i].Type)
			w.b = le.AppendUint64(le.AppendUint64(w.b, s.Globals[i].Lo), s.Globals[i].Hi)
		}
		w.end()
	}
	if n := z.dropped(); n > 0 {
		w.begin(section.Dropped, n)
		w.b = appendFlags(le.AppendUint32(w.b, uint32(len(s.Dropped))), s.Dropped)
		w.end()
	}
	if n := z.tables(); n > 0 {
		w.begin(section.Tables, n)
		for _, t := range s.Tables {
			w.b = le.AppendUint32(w.b, uint32(len(t)))
			for _, e := range t {
				w.b = le.AppendUint32(w.b, uint32(e))
			}
		}
		w.end()
	}
	if len(s.Meta) > 0 {
		w.begin(section.Meta, z.Meta)
		w.b = append(w.b, s.Meta...)
		w.end()
	}
	w.begin(section.MemorySize, 4)
	w.b = le.AppendUint32(w.b, s.MemoryPages)
	w.end()
	if s.Binding != 0 {
		w.begin(section.Binding, 8)
		w.b = le.AppendUint64(w.b, s.Binding)
		w.end()
	}
	for i, b := range s.Kept {
		if len(b) > 0 {
			w.begin(section.FirstKept+section.ID(i), int64(len(b)))
			w.b = append(w.b, b...)
			w.end()
		}
	}
}

func appendFlags(b []byte, flags []bool) []byte {
	for i := 0; i < len(flags); i += 8 {
		var bits byte
		for j, flag := range flags[i:min(i+8, len(flags))] {
			if flag {
				bits |= 1 << j
			}
		}
		b = append(b, bits)
	}
	return b
}

// Encode writes a state as a slot has it, outside of a file.
func Encode(s *State) ([]byte, error) {
	if err := CheckFits(s); err != nil {
		return nil, err
	}
	b := make([]byte, SlotSize(s))
	encodeSlot(b, 0, s)
	return b, nil
}

// Decode reads what Encode has written. The error wraps ErrCorrupt, or ErrVersion for what a newer
// program has written.
func Decode(b []byte) (*State, error) {
	if len(b) < headLength {
		return nil, fmt.Errorf("%w: a small state of %d bytes", ErrCorrupt, len(b))
	}
	c, err := decodeSlot(b, 0)
	switch {
	case errors.Is(err, section.ErrUnknown):
		return nil, fmt.Errorf("%w: %w", ErrVersion, err)
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return &c.state, nil
}

// slotContent is a decoded slot; it shares no memory with the bytes it came from.
type slotContent struct {
	state  State
	write  uint64
	length int // bytes in use
}

// decodeHead reads the head of slot number index, which has a capacity of so many bytes.
func decodeHead(head []byte, index int, capacity int64) (c *slotContent, seed uint32, err error) {
	le := binary.LittleEndian
	seed = le.Uint32(head[headLength-4:])
	if seed != crc32.Checksum(head[:headLength-4], castagnoli) {
		return nil, 0, errors.New("checksum mismatch in the head")
	}
	c = &slotContent{write: le.Uint64(head[0:])}
	c.state.Seq = le.Uint64(head[8:])
	length := headLength + int64(le.Uint32(head[16:]))
	c.length = int(length)
	switch {
	case length > capacity:
		return nil, 0, fmt.Errorf("a length of %d bytes is more than the slot's %d", length,
			capacity)
	case c.write&1 != uint64(index):
		return nil, 0, fmt.Errorf("write %d belongs to the other slot", c.write)
	case c.write > MaxSeq || c.state.Seq > MaxSeq:
		return nil, 0, fmt.Errorf("impossible numbers: write %d, commit %d, the last one is %d",
			c.write, c.state.Seq, uint64(MaxSeq))
	}
	return c, seed, nil
}

// decodeSlot reads slot number index. slot is the whole capacity. An error that wraps
// section.ErrUnknown is about a slot that is whole; its write number is given then.
func decodeSlot(slot []byte, index int) (*slotContent, error) {
	c, seed, err := decodeHead(slot, index, int64(len(slot)))
	if err != nil {
		return nil, err
	}
	if err := c.decodeList(slot[headLength:c.length], seed); err != nil {
		return c, err
	}
	return c, nil
}

// decodeList reads the sections. It distrusts what is in them although their checksums are right.
func (c *slotContent) decodeList(list []byte, seed uint32) error {
	var unknown error
	seen := map[section.ID]bool{}
	r := section.Read(list, seed)
	for s, ok := r.Next(); ok; s, ok = r.Next() {
		if i, ok := s.ID.Kept(); ok {
			if seen[s.ID] {
				return fmt.Errorf("%v: there are two", s.ID)
			}
			seen[s.ID] = true
			c.state.Kept[i] = append([]byte(nil), s.Content...)
			continue
		}
		decode := sectionDecoders[s.ID]
		if decode == nil {
			if unknown == nil {
				unknown = s.Unknown()
			}
			continue
		}
		if seen[s.ID] {
			return fmt.Errorf("%v: there are two", s.ID)
		}
		seen[s.ID] = true
		if err := decode(s.Content, &c.state); err != nil {
			return fmt.Errorf("%v: %w", s.ID, err)
		}
	}
	switch {
	case r.Err() != nil:
		return r.Err()
	case unknown != nil:
		return unknown
	case !seen[section.MemorySize]:
		return fmt.Errorf("%v is missing", section.MemorySize)
	}
	return nil
}

var sectionDecoders = map[section.ID]func(b []byte, s *State) error{
	section.Globals: decodeGlobals,
	section.Dropped: decodeDropped,
	section.Tables:  decodeTables,
	section.Meta: func(b []byte, s *State) error {
		s.Meta = append([]byte(nil), b...)
		return nil
	},
	section.MemorySize: func(b []byte, s *State) error {
		if len(b) != 4 {
			return errLength
		}
		s.MemoryPages = binary.LittleEndian.Uint32(b)
		return nil
	},
	section.Binding: func(b []byte, s *State) error {
		if len(b) != 8 {
			return errLength
		}
		s.Binding = binary.LittleEndian.Uint64(b)
		return nil
	},
}

var errLength = errors.New("its length and that of its content differ")

func decodeGlobals(b []byte, s *State) error {
	if len(b)%valueLength != 0 {
		return errLength
	}
	le := binary.LittleEndian
	s.Globals = make([]Value, len(b)/valueLength)
	for i := range s.Globals {
		v := b[valueLength*i:][:valueLength]
		s.Globals[i] = Value{Type: v[0], Lo: le.Uint64(v[1:]), Hi: le.Uint64(v[9:])}
	}
	return nil
}

func decodeDropped(b []byte, s *State) error {
	if len(b) < 4 {
		return errLength
	}
	flags := uint64(binary.LittleEndian.Uint32(b))
	if b = b[4:]; (flags+7)/8 != uint64(len(b)) {
		return errLength
	}
	s.Dropped = make([]bool, flags)
	for i := range s.Dropped {
		s.Dropped[i] = b[i/8]>>(i%8)&1 == 1
	}
	return nil
}

func decodeTables(b []byte, s *State) error {
	le := binary.LittleEndian
	for len(b) > 0 {
		if len(b) < 4 {
			return errLength
		}
		elements := uint64(le.Uint32(b))
		if b = b[4:]; elements*4 > uint64(len(b)) {
			return errLength
		}
		t := make([]int32, elements)
		for i := range t {
			t[i] = int32(le.Uint32(b[4*i:]))
		}
		s.Tables = append(s.Tables, t)
		b = b[4*elements:]
	}
	return nil
}

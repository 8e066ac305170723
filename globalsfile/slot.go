package globalsfile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// Value is one global. This package gives no meaning to Type; the bits of Lo and Hi come back as
// they were given.
type Value struct {
	Type   byte
	Lo, Hi uint64
}

// State is the content of one slot.
type State struct {
	Seq         uint64 // of the commit
	MemoryPages uint32 // size of the linear memory, in wasm pages of 64 KiB
	Globals     []Value
	Tables      [][]int32 // function indices, -1 for null
	Dropped     []bool    // one for each segment, true when it has been dropped
	Meta        []byte    // the user's
}

/*
A slot. It has a head with the globals and a tail with the rest, each with a checksum.

	offset   bytes
	     0       8  write number W: the slot is number W mod 2, the valid slot with the higher W counts
	     8       8  sequence number of the commit
	    16       4  size of the linear memory in wasm pages
	    20       4  number of globals G
	    24       4  length of the tail in bytes T
	    28       4  CRC-32C of the tail
	    32     17G  globals, each: type (1 byte), low half (8 bytes), high half (8 bytes)
	32+17G       4  CRC-32C of bytes 0 to 32+17G-1
	36+17G       T  tail

	tail
	offset   bytes
	     0       4  number of tables
	     4       4  number of dropped flags D
	     8       4  length of the user's metadata in bytes M
	    12          tables, each: number of elements (4 bytes), elements (4 bytes each, signed)
	         (D+7)/8  dropped flags, the first in the lowest bit; spare bits are 0
	             M  metadata

Bytes behind the tail are left over from earlier writes and mean nothing. A slot of zeros is not valid.
*/
const (
	slotFixed   = 32 // bytes of a head without globals and checksum
	valueLength = 17
	tailFixed   = 12
)

func headLength(globals int) int { return slotFixed + valueLength*globals + 4 }

func (s *State) tailLength() int {
	n := tailFixed + (len(s.Dropped)+7)/8 + len(s.Meta)
	for _, t := range s.Tables {
		n += 4 + 4*len(t)
	}
	return n
}

// tail is what a head says of its tail.
type tail struct {
	length int // bytes
	crc    uint32
}

// encodeTail stores a tail at the begin of b, which has room for it, and returns its length.
func encodeTail(b []byte, s *State) int {
	le := binary.LittleEndian
	le.PutUint32(b[0:], uint32(len(s.Tables)))
	le.PutUint32(b[4:], uint32(len(s.Dropped)))
	le.PutUint32(b[8:], uint32(len(s.Meta)))
	n := tailFixed
	for _, t := range s.Tables {
		le.PutUint32(b[n:], uint32(len(t)))
		n += 4
		for _, e := range t {
			le.PutUint32(b[n:], uint32(e))
			n += 4
		}
	}
	for i := 0; i < len(s.Dropped); i += 8 {
		var bits byte
		for j, d := range s.Dropped[i:min(i+8, len(s.Dropped))] {
			if d {
				bits |= 1 << j
			}
		}
		b[n] = bits
		n++
	}
	return n + copy(b[n:], s.Meta)
}

// encodeHead stores a head at the begin of slot, the checksum last: until that store the slot is
// what it was before or not valid.
func encodeHead(slot []byte, write uint64, s *State, t tail) {
	le := binary.LittleEndian
	globals := s.Globals
	n := slotFixed + valueLength*len(globals)
	b := slot[: n+4 : n+4]
	le.PutUint64(b[0:], write)
	le.PutUint64(b[8:], s.Seq)
	le.PutUint32(b[16:], s.MemoryPages)
	le.PutUint32(b[20:], uint32(len(globals)))
	le.PutUint32(b[24:], uint32(t.length))
	le.PutUint32(b[28:], t.crc)
	cells := b[slotFixed:]
	for i := range globals {
		c := cells[:valueLength]
		c[0] = globals[i].Type
		le.PutUint64(c[1:], globals[i].Lo)
		le.PutUint64(c[9:], globals[i].Hi)
		cells = cells[valueLength:]
	}
	le.PutUint32(b[n:], crc32.Checksum(b[:n], castagnoli))
}

// slotContent is a decoded slot; it shares no memory with the bytes it came from.
type slotContent struct {
	state  State
	write  uint64
	length int // bytes in use
}

// decodeSlot reads slot number index. slot is the whole capacity.
func decodeSlot(slot []byte, index int) (*slotContent, error) {
	le := binary.LittleEndian
	c := &slotContent{write: le.Uint64(slot[0:])}
	globals, tailLength := uint64(le.Uint32(slot[20:])), uint64(le.Uint32(slot[24:]))
	n := slotFixed + valueLength*globals
	if n+4+tailLength > uint64(len(slot)) {
		return nil, fmt.Errorf("a length of %d bytes is more than the slot's %d", n+4+tailLength, len(slot))
	}
	if le.Uint32(slot[n:]) != crc32.Checksum(slot[:n], castagnoli) {
		return nil, errors.New("checksum mismatch")
	}
	if c.write&1 != uint64(index) {
		return nil, fmt.Errorf("write %d belongs to the other slot", c.write)
	}
	c.state.Seq = le.Uint64(slot[8:])
	c.state.MemoryPages = le.Uint32(slot[16:])
	if globals > 0 {
		c.state.Globals = make([]Value, globals)
	}
	for i := range c.state.Globals {
		cell := slot[slotFixed+valueLength*i:][:valueLength]
		c.state.Globals[i] = Value{Type: cell[0], Lo: le.Uint64(cell[1:]), Hi: le.Uint64(cell[9:])}
	}
	c.length = int(n + 4 + tailLength)
	b := slot[n+4 : c.length]
	if le.Uint32(slot[28:]) != crc32.Checksum(b, castagnoli) {
		return nil, errors.New("checksum mismatch in the tail")
	}
	if err := decodeTail(b, &c.state); err != nil {
		return nil, err
	}
	return c, nil
}

// decodeTail reads a tail whose checksum is right. It distrusts the lengths all the same.
func decodeTail(b []byte, s *State) error {
	errShort := errors.New("the tail is shorter than its content")
	le := binary.LittleEndian
	if len(b) < tailFixed {
		return errShort
	}
	tables, dropped, meta := le.Uint32(b[0:]), uint64(le.Uint32(b[4:])), uint64(le.Uint32(b[8:]))
	b = b[tailFixed:]
	// A table takes 4 bytes at least: checked before memory is allocated for that many.
	if uint64(tables)*4 > uint64(len(b)) {
		return errShort
	}
	if tables > 0 {
		s.Tables = make([][]int32, tables)
	}
	for i := range s.Tables {
		if len(b) < 4 {
			return errShort
		}
		elements := uint64(le.Uint32(b))
		b = b[4:]
		if elements*4 > uint64(len(b)) {
			return errShort
		}
		t := make([]int32, elements)
		for j := range t {
			t[j] = int32(le.Uint32(b[4*j:]))
		}
		s.Tables[i] = t
		b = b[4*elements:]
	}
	if (dropped+7)/8+meta != uint64(len(b)) {
		return errors.New("the length of the tail and that of its content differ")
	}
	if dropped > 0 {
		s.Dropped = make([]bool, dropped)
	}
	for i := range s.Dropped {
		s.Dropped[i] = b[i/8]>>(i%8)&1 == 1
	}
	if meta > 0 {
		s.Meta = append([]byte(nil), b[(dropped+7)/8:]...)
	}
	return nil
}

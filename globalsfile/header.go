package globalsfile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// Mode says how the instance commits.
type Mode uint32

const (
	Atomic     Mode = 1
	Continuous Mode = 2
)

func (m Mode) String() string {
	switch m {
	case Atomic:
		return "atomic"
	case Continuous:
		return "continuous"
	}
	return fmt.Sprintf("mode(%d)", uint32(m))
}

// Header is what stays the same from event to event.
type Header struct {
	Module [32]byte // SHA-256 of the module as the user gave it
	Mode   Mode
	BootID [16]byte // boot of the machine on which the file was last made clean or unclean
	Clean  bool     // continuous mode: all is on the disk, and nothing has been written since
}

/*
A header copy:

	offset  bytes
	     0      8  magic "mmrunGLB"
	     8      4  format version, 2
	    12      4  page size, 4096 bytes
	    16      8  generation: number of the header update that wrote this copy
	    24      8  slot capacity in bytes
	    32      8  feature flags; none is defined yet, must be 0
	    40      4  mode: 1 atomic, 2 continuous
	    44      4  clean: 0 or 1
	    48     16  boot id
	    64     32  SHA-256 of the module
	    96     28  reserved, 0
	   124      4  CRC-32C of bytes 0 to 123

The valid copy with the higher generation counts. At rest both copies are equal, so that damage to
either one loses nothing.
*/
const (
	headerMagic   = "mmrunGLB"
	formatVersion = 2
	pageSize      = 4096
	headerLength  = 128 // bytes, the checksum included
	headerCRC     = headerLength - 4

	headersOffset = 0              // copy i is at i*pageSize
	eventOffset   = pageSize + 512 // a disk writes 512 bytes whole or not at all
	slotsOffset   = 2 * pageSize   // slot i is at slotsOffset + i*capacity

	minCapacity = pageSize

	// MaxSlot is how many bytes of a slot may be in use, and the largest capacity of one: 64 MiB.
	// It is for 10 million table elements, which is what other embedders allow, and 24 MiB more.
	// Each checkpoint writes a slot, and each opening reads two: larger ones would make both slow.
	// It also bounds what a damaged or hostile file makes a reader allocate.
	MaxSlot = 64 << 20

	// MaxSeq is the highest sequence number of a state, and of a write to the file. The event word
	// has room for twice that. A million commits a second lead to it in 146,000 years.
	MaxSeq = 1 << 62
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// headerCopy is a decoded header page.
type headerCopy struct {
	Header
	generation uint64
	capacity   int64 // bytes
}

// fileSize is the only length that a file with slots of this capacity may have.
func fileSize(capacity int64) int64 { return slotsOffset + 2*capacity }

// capacityFor is the smallest capacity that holds a slot of the given length.
func capacityFor(slotLength int64) int64 {
	c := int64(minCapacity)
	for c < slotLength {
		c *= 2
	}
	return c
}

// cellsCount tells whether the event area's cells are part of the state. A file that says clean is
// all in its slots, and so is a file of atomic mode.
func (h Header) cellsCount() bool { return h.Mode == Continuous && !h.Clean }

func (h Header) check() error {
	if h.Mode != Atomic && h.Mode != Continuous {
		return fmt.Errorf("unknown mode %d", uint32(h.Mode))
	}
	return nil
}

// encode fills the first headerLength bytes of a header page, the checksum last.
func (h headerCopy) encode(page []byte) {
	le := binary.LittleEndian
	b := page[:headerLength]
	copy(b, headerMagic)
	le.PutUint32(b[8:], formatVersion)
	le.PutUint32(b[12:], pageSize)
	le.PutUint64(b[16:], h.generation)
	le.PutUint64(b[24:], uint64(h.capacity))
	le.PutUint64(b[32:], 0)
	le.PutUint32(b[40:], uint32(h.Mode))
	clean := uint32(0)
	if h.Clean {
		clean = 1
	}
	le.PutUint32(b[44:], clean)
	copy(b[48:64], h.BootID[:])
	copy(b[64:96], h.Module[:])
	clear(b[96:headerCRC])
	le.PutUint32(b[headerCRC:], crc32.Checksum(b[:headerCRC], castagnoli))
}

// decodeHeader reads one copy. An error wraps ErrVersion when the copy is whole but of another
// format, and nothing otherwise.
func decodeHeader(page []byte) (headerCopy, error) {
	var h headerCopy
	le := binary.LittleEndian
	b := page[:headerLength]
	if string(b[:8]) != headerMagic {
		return h, errors.New("the magic number is missing")
	}
	if le.Uint32(b[headerCRC:]) != crc32.Checksum(b[:headerCRC], castagnoli) {
		return h, errors.New("checksum mismatch")
	}
	if v := le.Uint32(b[8:]); v != formatVersion {
		return h, fmt.Errorf("format version %d, this program reads version %d: %w", v,
			formatVersion, ErrVersion)
	}
	if flags := le.Uint64(b[32:]); flags != 0 {
		return h, fmt.Errorf("feature flags %#x, this program knows none: %w", flags, ErrVersion)
	}
	if n := le.Uint32(b[12:]); n != pageSize {
		return h, fmt.Errorf("page size %d, this program reads %d: %w", n, pageSize, ErrVersion)
	}
	if h.generation = le.Uint64(b[16:]); h.generation > MaxSeq {
		return h, fmt.Errorf("impossible generation %d", h.generation)
	}
	capacity := le.Uint64(b[24:])
	if capacity < minCapacity || capacity > MaxSlot || capacity&(capacity-1) != 0 {
		return h, fmt.Errorf("impossible slot capacity %d", capacity)
	}
	h.capacity = int64(capacity)
	h.Mode = Mode(le.Uint32(b[40:]))
	if err := h.check(); err != nil {
		return h, err
	}
	clean := le.Uint32(b[44:])
	if clean > 1 {
		return h, fmt.Errorf("impossible clean flag %d", clean)
	}
	h.Clean = clean == 1
	copy(h.BootID[:], b[48:64])
	copy(h.Module[:], b[64:96])
	return h, nil
}

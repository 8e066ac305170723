package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
)

// A segment file:
//
//	0      512            4096                                             size
//	+------+--------------+--------+--------+-----+--------+----------+----+
//	|header| unused       | record | record | ... | record | end mark | .. |
//	+------+--------------+--------+--------+-----+--------+----------+----+
//
// The header is one sector, so that a power cut leaves the old or the new one. All integers
// are little endian; offsets and lengths are in bytes.
//
//	offset size
//	     0    8  magic "mmrunWAL"; "mmrun..." while the rest is being written
//	     8    4  format version, 2
//	    12    4  state: 0 idle (no record in this generation), 1 open
//	    16    8  salt: random, new in each generation of the segment; 0 when idle
//	    24    8  base: sequence number of the last commit before this segment
//	    32    8  size of the segment in this generation; a file shorter than that has been cut.
//	             0 when idle
//	    40    8  the segment before: its salt; 0 when there is none (after a reset)
//	    48    8  the segment before: the offset of its end
//	    56    8  the last commit that was known to be durable when the header was written
//	    64    4  the segment before: checksum of its last record
//	    68    4  zero
//	    72    8  full size: up to which the segments of this wal grow by themselves
//	    80  428  zero
//	   508    4  CRC-32C of the 508 bytes before
//
// Magic, version and checksum stay where they are in every version.
//
// A *generation* of a segment goes from the first append after a Switch or Reset to the next one
// of the same file. Salt, end and checksum of the segment before tie a generation to exactly one
// end of exactly one generation of the other segment. The size of a segment does not change within
// a generation.

const (
	headerSize  = 4096 // the records begin here
	headerBytes = 512  // encoded part
	version     = 2

	// MinSize is the smallest size of a segment file, in bytes.
	MinSize = 2 * headerSize
	// maxSize is the largest: record lengths count units of 8 bytes in 32 bits.
	maxSize = 8 * (1<<32 - 1)

	// MaxRecord is the largest size of a record, in bytes: about 32 GiB.
	MaxRecord = maxSize - headerSize
	// MaxSeq is the largest sequence number. None is used twice, so a wal that has come so far
	// takes no more commits.
	MaxSeq = math.MaxUint64 - 1
)

// ErrVersion: a file of another version of the format. Nothing in it has been looked at.
var ErrVersion = errors.New("wal: unknown format version")

var (
	magic     = [8]byte([]byte("mmrunWAL"))
	magicBusy = [8]byte([]byte("mmrun..."))

	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	le         = binary.LittleEndian
)

const (
	stateIdle uint32 = iota
	stateOpen
)

// link names an end of a generation of the other segment.
type link struct {
	salt  uint64
	end   int64
	chain uint32
}

type header struct {
	state   uint32
	salt    uint64
	base    uint64
	size    int64
	prev    link
	durable uint64
	full    int64
}

// encode fills the sector b and returns the header's checksum, which the first record's
// checksum is seeded with.
func (h *header) encode(b *[headerBytes]byte) (crc uint32) {
	clear(b[:])
	copy(b[0:], magic[:])
	le.PutUint32(b[8:], version)
	le.PutUint32(b[12:], h.state)
	le.PutUint64(b[16:], h.salt)
	le.PutUint64(b[24:], h.base)
	le.PutUint64(b[32:], uint64(h.size))
	le.PutUint64(b[40:], h.prev.salt)
	le.PutUint64(b[48:], uint64(h.prev.end))
	le.PutUint64(b[56:], h.durable)
	le.PutUint32(b[64:], h.prev.chain)
	le.PutUint64(b[72:], uint64(h.full))
	crc = crc32.Checksum(b[:508], castagnoli)
	le.PutUint32(b[508:], crc)
	return crc
}

// putHeader stores an encoded header into a mapping. The magic goes first as "being written"
// and last as itself, so that a kill between two stores leaves a header that is known to be
// unfinished, and a header that is neither finished nor unfinished is known to be damaged. No
// test can stop between the stores; TestKillWhileAHeaderIsWritten checks what would be found.
func putHeader(mapping []byte, b *[headerBytes]byte) {
	copy(mapping[0:8], magicBusy[:])
	copy(mapping[8:headerBytes], b[8:])
	copy(mapping[0:8], b[0:8])
}

// HeaderState is what the header of a segment says.
type HeaderState int

const (
	// HeaderIdle: no record in this generation, or the header was being written when the process
	// died.
	HeaderIdle HeaderState = iota
	// HeaderOpen: records may follow.
	HeaderOpen
	// HeaderDamaged: not a header.
	HeaderDamaged
)

func (s HeaderState) String() string {
	switch s {
	case HeaderIdle:
		return "idle"
	case HeaderOpen:
		return "open"
	default:
		return "damaged"
	}
}

// decodeHeader reads the header of a file of which b are the first bytes, all of them if the
// file is shorter than a header. problem tells what is wrong with a damaged one; err is not nil
// only for a header of another version.
func decodeHeader(b []byte) (h header, crc uint32, state HeaderState, problem string, err error) {
	damaged := func(format string, args ...any) (header, uint32, HeaderState, string, error) {
		return header{}, 0, HeaderDamaged, fmt.Sprintf(format, args...), nil
	}
	if len(b) < headerSize {
		return damaged("the file has %d bytes, the header alone takes %d", len(b), headerSize)
	}
	switch [8]byte(b[:8]) {
	case magic:
	case magicBusy:
		return h, 0, HeaderIdle, "", nil
	default:
		return damaged("no magic at offset 0: %q", b[:8])
	}
	crc = crc32.Checksum(b[:508], castagnoli)
	if stored := le.Uint32(b[508:]); stored != crc {
		return damaged("checksum mismatch in the header: stored %08x, computed %08x", stored, crc)
	}
	if v := le.Uint32(b[8:]); v != version {
		return h, 0, HeaderDamaged, "", fmt.Errorf("%w: the file has version %d, "+
			"this program knows version %d", ErrVersion, v, version)
	}
	h = header{
		state: le.Uint32(b[12:]),
		salt:  le.Uint64(b[16:]),
		base:  le.Uint64(b[24:]),
		size:  int64(le.Uint64(b[32:])),
		prev: link{
			salt:  le.Uint64(b[40:]),
			end:   int64(le.Uint64(b[48:])),
			chain: le.Uint32(b[64:]),
		},
		durable: le.Uint64(b[56:]),
		full:    int64(le.Uint64(b[72:])),
	}
	// A checksum says that the header is as it was written, not by whom.
	switch {
	case h.base > MaxSeq:
		return damaged("sequence number %d in the header, the largest is %d",
			h.base, uint64(MaxSeq))
	case h.full < MinSize || h.full > maxSize:
		return damaged("full size %d in the header, it is in [%d, %d]",
			h.full, int64(MinSize), int64(maxSize))
	}
	switch h.state {
	case stateIdle:
		return h, crc, HeaderIdle, "", nil
	case stateOpen:
		if h.size < headerSize || h.size > maxSize {
			return damaged("segment size %d in the header, it is in [%d, %d]",
				h.size, headerSize, int64(maxSize))
		}
		return h, crc, HeaderOpen, "", nil
	default:
		return damaged("unknown state %d in the header", h.state)
	}
}

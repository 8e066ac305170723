package wal

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
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
//	     8    4  format version, 1
//	    12    4  state: 0 idle (no record in this life), 1 open
//	    16    8  salt: random, new in each life of the segment; 0 when idle
//	    24    8  base: sequence number of the last commit before this segment
//	    32    8  size of the segment in this life; a file shorter than that has been cut
//	    40    8  the segment before: its salt; 0 when there is none (after a reset)
//	    48    8  the segment before: the offset of its end
//	    56    8  the last commit that was known to be durable when the header was written
//	    64    4  the segment before: checksum of its last record
//	    68  440  zero
//	   508    4  CRC-32C of the 508 bytes before
//
// A *life* of a segment goes from the first append after a Switch or Reset to the next one
// of the same file. Salt, end and checksum of the segment before tie a life to exactly one end
// of exactly one life of the other segment.

const (
	headerSize  = 4096 // the records begin here
	headerBytes = 512  // encoded part
	version     = 1

	// MinSize is the smallest size of a segment file, in bytes.
	MinSize = 2 * headerSize
	// maxSize is the largest: record lengths count units of 8 bytes in 32 bits.
	maxSize = 8 * (1<<32 - 1)
)

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

// link names an end of a life of the other segment.
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
	HeaderIdle    HeaderState = iota // no record in this life, or the header was being written when the process died
	HeaderOpen                       // records may follow
	HeaderDamaged                    // not a header
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
// only for a header of a newer format.
func decodeHeader(b []byte) (h header, crc uint32, state HeaderState, problem string, err error) {
	if len(b) < headerSize {
		return h, 0, HeaderDamaged, fmt.Sprintf("the file has %d bytes, the header alone takes %d", len(b), headerSize), nil
	}
	switch [8]byte(b[:8]) {
	case magic:
	case magicBusy:
		return h, 0, HeaderIdle, "", nil
	default:
		return h, 0, HeaderDamaged, fmt.Sprintf("no magic at offset 0: %q", b[:8]), nil
	}
	crc = crc32.Checksum(b[:508], castagnoli)
	if stored := le.Uint32(b[508:]); stored != crc {
		return h, 0, HeaderDamaged, fmt.Sprintf("checksum mismatch in the header: stored %08x, computed %08x", stored, crc), nil
	}
	if v := le.Uint32(b[8:]); v != version {
		return h, 0, HeaderDamaged, "", fmt.Errorf("format version %d, this program knows %d", v, version)
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
	}
	switch h.state {
	case stateIdle:
		return h, crc, HeaderIdle, "", nil
	case stateOpen:
		return h, crc, HeaderOpen, "", nil
	default:
		return h, 0, HeaderDamaged, fmt.Sprintf("unknown state %d in the header", h.state), nil
	}
}

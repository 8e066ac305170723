// Package snapshot writes a state as of one commit into one portable file, and reads it.
package snapshot

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
)

/*
A snapshot is a head, frames, a manifest and a foot. Numbers are little endian.

	head
	     0      8  magic "mmrunSNP"
	     8      4  format version, 1
	    12      4  mode of the state: 1 atomic, 2 continuous
	    16      4  CRC-32C of bytes 0 to 15

	frame
	     0      4  kind: 1 module, 2 small state, 3 memory, 4 manifest
	     4      4  length of the content L
	     8      4  length as it is here C: the content is one frame of Zstandard
	    12      4  CRC-32C of the content
	    16      8  offset of the content, in the memory or in the module
	    24      4  CRC-32C of bytes 0 to 23
	    28      4  CRC-32C of what is here
	    32      C  the content, compressed

	foot
	     0      8  offset of the manifest's frame
	     8      4  CRC-32C of bytes 0 to 7
	    12      8  magic "mmrunEND"

The frames come in this order: module, small state, memory by ascending offsets, manifest. A frame
has up to 1 MiB of content (the small state all of it), and does not depend on others: they can be
read at once, and from the middle. Memory that is in no frame is zeros. The small state is a slot of
the file globals without its file. The manifest is JSON; it says what the snapshot is of, and where
each frame is.
*/
const (
	headMagic = "mmrunSNP"
	footMagic = "mmrunEND"
	version   = 1

	headLength      = 20
	frameHeadLength = 32
	footLength      = 20

	// maxContent is the length of the longest content: that of a small state.
	maxContent = 64 << 20
	// maxManifest is that of a manifest: a line of about 60 bytes for each MiB of memory.
	maxManifest = 16 << 20
)

type kind uint32

const (
	kindModule kind = 1 + iota
	kindSmall
	kindMemory
	kindManifest
)

var (
	// ErrMalformed: the bytes are no snapshot, or a damaged one.
	ErrMalformed = errors.New("damaged snapshot")
	// ErrVersion: the snapshot is of a format that this program does not know.
	ErrVersion = errors.New("unknown format of a snapshot")
)

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrMalformed, fmt.Errorf(format, args...))
}

// Manifest says what a snapshot is of.
type Manifest struct {
	Format      int    `json:"format"`
	Seq         uint64 `json:"seq"`
	Time        string `json:"time"`   // when it was made, RFC 3339
	Mode        string `json:"mode"`   // of the state
	Module      Hash   `json:"module"` // SHA-256
	ModuleBytes uint64 `json:"moduleBytes"`
	MemoryBytes uint64 `json:"memoryBytes"`
	DataBytes   uint64 `json:"dataBytes"` // of the memory, that are not left out as zeros
	// Frames are [kind, offset of the content, length of it, offset in the file] each.
	Frames [][4]uint64 `json:"frames"`
}

// Hash is a SHA-256, in JSON as hexadecimal.
type Hash [32]byte

// MarshalText writes hexadecimal.
func (h Hash) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(h[:])), nil }

// UnmarshalText reads it.
func (h *Hash) UnmarshalText(b []byte) error {
	if hex.DecodedLen(len(b)) != len(h) {
		return errors.New("not a SHA-256")
	}
	_, err := hex.Decode(h[:], b)
	return err
}

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	le         = binary.LittleEndian
)

func checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// frameHead is the head of a frame, decoded.
type frameHead struct {
	kind               kind
	length, compressed uint32
	contentSum, sum    uint32
	offset             uint64
}

func (h frameHead) append(b []byte) []byte {
	start := len(b)
	b = le.AppendUint32(b, uint32(h.kind))
	b = le.AppendUint32(b, h.length)
	b = le.AppendUint32(b, h.compressed)
	b = le.AppendUint32(b, h.contentSum)
	b = le.AppendUint64(b, h.offset)
	b = le.AppendUint32(b, checksum(b[start:]))
	return le.AppendUint32(b, h.sum)
}

func decodeFrameHead(b []byte) (h frameHead, err error) {
	if checksum(b[:24]) != le.Uint32(b[24:]) {
		return h, malformed("checksum mismatch in the head of a frame")
	}
	h = frameHead{kind: kind(le.Uint32(b)), length: le.Uint32(b[4:]), compressed: le.Uint32(b[8:]),
		contentSum: le.Uint32(b[12:]), offset: le.Uint64(b[16:]), sum: le.Uint32(b[28:])}
	if h.kind < kindModule || h.kind > kindManifest {
		return h, malformed("a frame of kind %d", h.kind)
	}
	if h.length > maxContent || uint64(h.compressed) > uint64(h.length)+uint64(h.length)/8+1024 {
		return h, malformed("a frame of %d bytes, compressed %d", h.length, h.compressed)
	}
	return h, nil
}

func (m *Manifest) encode() ([]byte, error) { return json.Marshal(m) }

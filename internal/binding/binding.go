// Package binding ties the files of an atomic state to each other, so that a directory that has
// been put together from two copies of a state is found to be that.
package binding

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

/*
Each checkpoint has a number, and so has each stretch of the log from one checkpoint to the next.
They are random, and are left in all that is written:

	globals       the slot has the number of its checkpoint (State.Binding)
	the log       the first commit after a checkpoint has the number of the checkpoint and that of
	              the stretch that it begins (delta.Encoder.Binding)
	memory.sums   the stamp in the header has the number of the checkpoint, that of the one before,
	              and that of the stretch of the log that leads from there

The pages in the memory file are bound to memory.sums by their checksums, the segments of the log to
each other by the log itself, and the module by its hash in the globals file.

A checkpoint of the commits up to L, with number n, on top of a slot with number m, of stretch s:

	1  the log up to L is synced; a new segment begins, its first commit says n and a new stretch
	2  memory.sums gets the new checksums, and is synced
	3  memory.sums gets the stamp (L, n, m, s), and is synced
	4  the memory file gets the new pages, and is synced
	5  the slot gets (L, n), and is synced
	6  the log up to L is given up

If not all pages are held in memory at once, 2 to 4 are repeated, and the stamps but for the last
have random numbers in the place of n and the last commit so far in the place of L.

So a stamp with n says that all checksums are as of n, or newer: those of the next checkpoint are
written before its stamp. And no page is newer than the stamp. A crash before 5 leaves a slot with
m; the stamp is the one of m, or says m as the number before, and a stretch and an L that the log
has. Recovery is a checkpoint of all that the log has, with a number of its own, on top of the
slot with m again. It does not matter how much of the pages and checksums has been written before.
A crash after 5 leaves n in both. A checkpoint that has failed is tried again with the same
number.

Without the stretch, two states that went on from one backup could lend each other memory and log.
Without the sync between 2 and 3, a power cut could leave the stamp and old checksums, which fit
old pages. A digest of all checksums in the slot would not do: after a crash in 2 the old
checksums of some pages are gone, and with them the way from the slot's digest to the next one,
unless all were read.
*/

// New is a new number of a checkpoint or a stretch of the log: random, never 0.
func New() uint64 {
	var b [8]byte
	for {
		_, _ = rand.Read(b[:]) // never fails
		if n := binary.LittleEndian.Uint64(b[:]); n != 0 {
			return n
		}
	}
}

// Stamp is what memory.sums says of itself.
type Stamp struct {
	Seq        uint64 // the commit that the checksums lead to
	Checkpoint uint64 // number of the checkpoint that wrote them
	Before     uint64 // number of the one that it went on from
	Stretch    uint64 // number of the stretch of the log that leads from there
}

/*
The header of memory.sums; the checksums follow:

	offset  bytes
	     0     64  stamp, copy 0
	   512     64  stamp, copy 1
	  1024     64  stamp, copy 2

	a copy
	     0      8  magic "mmrunSUM"
	     8      4  format version, 2
	    12      4  page size, 4096 bytes
	    16      8  sequence number of the commit
	    24      8  number of the checkpoint
	    32      8  number of the checkpoint before
	    40      8  number of the stretch of the log
	    48      8  generation: number of the stamp among those of the file
	    56      4  reserved, 0
	    60      4  CRC-32C of bytes 0 to 59

The rest is zero. The valid copy with the highest generation counts. What is written is neither that
copy nor the one that goes with the slot: a stamp that is cut off leaves the one before it, which no
page in the memory file is newer than, and a checkpoint that is cut off leaves that of the slot. A
disk writes 512 bytes whole or not at all.
*/
const (
	magic         = "mmrunSUM"
	formatVersion = 2
	pageSize      = 4096

	copies     = 3
	copyLength = 64
	copyStep   = 512
	crcAt      = copyLength - 4

	// HeaderLength is how many bytes of memory.sums come before the first checksum.
	HeaderLength = copies * copyStep
)

var (
	// ErrMix: the files are not from one state at one time, or one of them is damaged.
	ErrMix = errors.New("the files of the state do not belong together")
	// ErrVersion: the file is of a format that this program does not know.
	ErrVersion = errors.New("unknown format")

	errDamaged = errors.New("damaged")
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Header is the header of memory.sums, decoded.
type Header struct {
	copies [copies]stampCopy
}

type stampCopy struct {
	Stamp
	generation uint64
	err        error
}

// NewHeader is that of a file that has been made anew: all copies are the same.
func NewHeader(s Stamp) *Header {
	h := &Header{}
	for i := range h.copies {
		h.copies[i] = stampCopy{Stamp: s, generation: 1}
	}
	return h
}

// Decode reads a header, which may be cut short. The error wraps ErrVersion; damage is for Stamp to
// judge.
func Decode(b []byte) (*Header, error) {
	h := &Header{}
	for i := range h.copies {
		h.copies[i] = decodeCopy(b[min(i*copyStep, len(b)):])
		if err := h.copies[i].err; errors.Is(err, ErrVersion) {
			return nil, err
		}
	}
	return h, nil
}

// Encode stores the header at the begin of b, all of it.
func (h *Header) Encode(b []byte) {
	clear(b[:HeaderLength])
	for i := range h.copies {
		h.copies[i].encode(b[i*copyStep:])
	}
}

// newest is the index of the copy that counts, -1 if none is valid.
func (h *Header) newest() int {
	newest := -1
	for i, c := range h.copies {
		if c.err == nil && (newest < 0 || c.generation > h.copies[newest].generation) {
			newest = i
		}
	}
	return newest
}

// Stamp is the one that counts. The error, when there is none, wraps ErrMix.
func (h *Header) Stamp() (Stamp, error) {
	if i := h.newest(); i >= 0 {
		return h.copies[i].Stamp, nil
	}
	return Stamp{}, fmt.Errorf("%w: page checksums: no copy of the stamp is left: %w", ErrMix,
		h.copies[0].err)
}

// Set makes s the stamp that counts, in b, which begins with the header. s.Before is the number in
// the slot.
func (h *Header) Set(b []byte, s Stamp) {
	newest, generation := h.newest(), uint64(0)
	if newest >= 0 {
		generation = h.copies[newest].generation
	}
	victim := -1
	for i, c := range h.copies {
		switch {
		case i == newest, c.err == nil && c.Checkpoint == s.Before && victim >= 0:
		case victim < 0, c.err != nil, h.copies[victim].Checkpoint == s.Before:
			victim = i
		}
	}
	h.copies[victim] = stampCopy{Stamp: s, generation: generation + 1}
	h.copies[victim].encode(b[victim*copyStep:])
}

func (s *stampCopy) encode(b []byte) {
	le := binary.LittleEndian
	b = b[:copyLength]
	copy(b, magic)
	le.PutUint32(b[8:], formatVersion)
	le.PutUint32(b[12:], pageSize)
	le.PutUint64(b[16:], s.Seq)
	le.PutUint64(b[24:], s.Checkpoint)
	le.PutUint64(b[32:], s.Before)
	le.PutUint64(b[40:], s.Stretch)
	le.PutUint64(b[48:], s.generation)
	clear(b[56:crcAt])
	le.PutUint32(b[crcAt:], crc32.Checksum(b[:crcAt], castagnoli))
}

func decodeCopy(b []byte) (c stampCopy) {
	le := binary.LittleEndian
	if len(b) < copyLength {
		c.err = fmt.Errorf("%w: %d bytes of %d", errDamaged, len(b), copyLength)
		return c
	}
	b = b[:copyLength]
	switch version, size := le.Uint32(b[8:]), le.Uint32(b[12:]); {
	case string(b[:8]) != magic:
		c.err = fmt.Errorf("%w: the magic number is missing", errDamaged)
	case le.Uint32(b[crcAt:]) != crc32.Checksum(b[:crcAt], castagnoli):
		c.err = fmt.Errorf("%w: checksum mismatch", errDamaged)
	case version != formatVersion:
		c.err = fmt.Errorf("page checksums: format version %d, this program reads version %d: %w",
			version, formatVersion, ErrVersion)
	case size != pageSize:
		c.err = fmt.Errorf("page checksums: page size %d, this program reads %d: %w", size,
			pageSize, ErrVersion)
	default:
		c.Stamp = Stamp{Seq: le.Uint64(b[16:]), Checkpoint: le.Uint64(b[24:]),
			Before: le.Uint64(b[32:]), Stretch: le.Uint64(b[40:])}
		c.generation = le.Uint64(b[48:])
	}
	return c
}

// Files is what the files of an atomic state say.
type Files struct {
	// SlotSeq and Slot are the commit and the number in the newest slot.
	SlotSeq, Slot uint64

	// Last is the last commit that the log leads to from the slot, SlotSeq if it does not lead on:
	// a power cut may leave of a log less than the slot covers, and what the slot is of has been
	// committed.
	Last uint64
	// First and Stretch are the numbers in commit SlotSeq+1, of the checkpoint and of the
	// stretch. 0 if there is no such commit, or it has none.
	First, Stretch uint64

	// Stamp is that of memory.sums. Memory is false for a module without a memory, which has no
	// such file.
	Memory bool
	Stamp  Stamp
}

// Check tells whether the files belong together, whatever crash came before. It takes no time that
// grows with the memory. The error wraps ErrMix.
func (f *Files) Check() error {
	if f.Last > f.SlotSeq && f.First != f.Slot {
		return fmt.Errorf("%w: commit %d of the log follows checkpoint %016x, the globals file "+
			"is of checkpoint %016x", ErrMix, f.SlotSeq+1, f.First, f.Slot)
	}
	s := f.Stamp
	if !f.Memory || s.Checkpoint == f.Slot && s.Seq == f.SlotSeq {
		return nil
	}
	if s.Before == f.Slot && s.Stretch == f.Stretch && f.SlotSeq < s.Seq && s.Seq <= f.Last {
		return nil // a checkpoint was cut off, and the log has it
	}
	return fmt.Errorf("%w: the page checksums are of commit %d, checkpoint %016x after %016x by "+
		"way of %016x; the globals file is of commit %d, checkpoint %016x; the log has commits up "+
		"to %d, by way of %016x",
		ErrMix, s.Seq, s.Checkpoint, s.Before, s.Stretch, f.SlotSeq, f.Slot, f.Last,
		f.Stretch)
}

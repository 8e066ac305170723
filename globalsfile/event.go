package globalsfile

import (
	"encoding/binary"
	"sync/atomic"
	"unsafe"
)

/*
The event word, 8 bytes at offset 8192; the rest of its page is zero:

	bit 0      1 while an event runs
	bits 1-63  sequence number: of the event that runs, or of the last one that ended

It has no checksum: 8 aligned bytes are stored by one instruction, and every value says something
that can be checked against the slots.
*/

// eventWord is the word inside a mapping. Sound because the mapping begins on a page, eventOffset is
// a multiple of 8, and File drops the pointer when it unmaps.
func eventWord(mapping []byte) *uint64 {
	return (*uint64)(unsafe.Pointer(&mapping[eventOffset : eventOffset+8][0]))
}

// bigEndian is constant on a given machine, the branches on it are predicted.
var bigEndian = binary.NativeEndian.Uint16([]byte{0, 1}) == 1

// littleEndian turns a word of the file into one of this machine and back.
func littleEndian(v uint64) uint64 {
	if !bigEndian {
		return v
	}
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], v)
	return binary.NativeEndian.Uint64(b[:])
}

// BeginEvent notes that event seq runs. A process killed from here on until [File.EndEvent] leaves
// memory and globals that do not belong together. One store, no system call; it may be called after
// Close and does nothing then.
func (f *File) BeginEvent(seq uint64) { atomic.StoreUint64(f.word, littleEndian(seq<<1|1)) }

// EndEvent notes that event seq is over and that the slot with its state has been written. It is
// also right after a WriteSlot that no event preceded, once that slot is synced: [Report.Check] then
// finds out when the slot gets lost later.
func (f *File) EndEvent(seq uint64) { atomic.StoreUint64(f.word, littleEndian(seq<<1)) }

// Event is what the last BeginEvent or EndEvent noted, in this process or an earlier one.
func (f *File) Event() (seq uint64, inEvent bool) {
	return splitEvent(f.loadEvent())
}

func (f *File) loadEvent() uint64 { return littleEndian(atomic.LoadUint64(f.word)) }

func splitEvent(word uint64) (seq uint64, inEvent bool) { return word >> 1, word&1 == 1 }

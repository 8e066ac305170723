package globalsfile

import (
	"encoding/binary"
	"errors"
	"fmt"
)

/*
The event area, at offset 4608:

	offset  bytes
	     0      8  event word. Bit 0: 1 while an event runs. Bits 1-63: sequence number of the event
	               that runs, or of the last one that ended
	     8      8  the event word again, all bits inverted. If both do not agree, the process died
	               between the two stores, which is inside an event, or the area is damaged
	    16      8  mark: number of the last slot write that is known to be complete. A damaged one
	               is ahead of the slots and found so, or behind them and harmless
	    24      8  1: a sync of the state failed, and none has succeeded since; see SetSyncFailed
	    32     16  cell: number W of the slot write that the following cells go with
	    48     16  cell: size of the linear memory in wasm pages
	    64    16G  cells: the low halves of the globals, in their order
	               the rest is zero, or left over from earlier

A cell is 8 bytes and the same 8 bytes inverted. The cells count in continuous mode while the header
says unclean and W is the number of the newest slot: that slot then holds what the cells do not, the
event word the sequence number. They are written inside events only, so that a kill between two
stores is a kill inside an event, and need neither a second copy nor a checksum that covers all of
them.
*/
const (
	eventLength = slotsOffset - eventOffset
	cellsOffset = 32
	cellLength  = 16
	cellsFixed  = 2 // before those of the globals

	// MaxCells is the number of globals that StoreGlobals has room for, all in one page. A state
	// with more of them takes a WriteSlot for each event that changes one.
	MaxCells = (eventLength-cellsOffset)/cellLength - cellsFixed
)

// eventArea is the part of the mapping that is stored to for each event.
type eventArea = [eventLength]byte

// BeginEvent notes that event seq runs. A process killed from here on until [File.EndEvent]
// leaves memory and globals that do not belong together. Two plain stores (BenchmarkEventWord),
// no system call: what a kill leaves is what the thread has stored, in its order. After Close it
// does nothing.
func (f *File) BeginEvent(seq uint64) { f.storeEvent(seq<<1 | 1) }

// EndEvent notes that event seq is over and that its state, if the event changed anything that
// this file holds, has been written, by StoreGlobals or WriteSlot.
func (f *File) EndEvent(seq uint64) {
	f.markWrite()
	f.storeEvent(seq << 1)
}

// Event is what the last BeginEvent or EndEvent noted, in this process or an earlier one. A new
// file says that the event of its first state is over.
func (f *File) Event() (seq uint64, inEvent bool) {
	seq, inEvent, _ = decodeEvent(f.event[:])
	return seq, inEvent
}

func (f *File) storeEvent(word uint64) { putEvent(f.event[:], word) }

func putEvent(area []byte, word uint64) {
	putCell(area, word)
}

// markWrite notes that the last slot write is complete: it can only get lost by damage from now on.
// In atomic mode that is so after a sync, in continuous mode, where nothing but a clean file is
// trusted after a power cut, at the end of an event.
func (f *File) markWrite() { binary.LittleEndian.PutUint64(f.event[16:], f.write) }

// StoreGlobals makes the state one with the globals and the memory size given, in place: plain
// stores, no checksum, no second copy. For continuous mode and for globals of 64 bits or less (Hi
// is not kept), between BeginEvent and EndEvent; the sequence number is that of EndEvent. It
// tells whether there is room; if not, nothing was stored, and it takes a [File.WriteSlot].
func (f *File) StoreGlobals(memoryPages uint32, globals []Value) bool {
	if len(globals) > MaxCells {
		return false
	}
	cells := f.event[cellsOffset:]
	putCell(cells[0:], f.write)
	putCell(cells[cellLength:], uint64(memoryPages))
	for i := range globals {
		cells = cells[cellLength:]
		putCell(cells[cellLength:], globals[i].Lo)
	}
	return true
}

// dropCells is called before slot write number write. Cells that go with that number or a later one
// are from a time of the file whose slots were lost; they must not go with the slots of this one.
func (f *File) dropCells(write uint64) {
	if cells := f.event[cellsOffset:]; binary.LittleEndian.Uint64(cells) >= write {
		putCell(cells, ^uint64(0))
	}
}

func putCell(b []byte, v uint64) {
	b = b[:cellLength]
	binary.LittleEndian.PutUint64(b[0:], v)
	binary.LittleEndian.PutUint64(b[8:], ^v)
}

// applyCells lays the cells over s, the content of the slot that write number write has filled, if
// they go with it. Where a cell is damaged s stays as it is, and the error says so.
func applyCells(area []byte, write uint64, s *State) error {
	le := binary.LittleEndian
	cell := func(i int) (v uint64, whole bool) {
		b := area[cellsOffset+i*cellLength:][:cellLength]
		v = le.Uint64(b[0:])
		return v, le.Uint64(b[8:]) == ^v
	}
	with, whole := cell(0)
	switch {
	case !whole && with == 0 && le.Uint64(area[cellsOffset+8:]) == 0:
		return nil // never written
	case !whole:
		return errors.New("the number that the cells begin with is damaged")
	case with != write || len(s.Globals) > MaxCells:
		return nil
	}
	var err error
	if pages, whole := cell(1); whole && pages <= 1<<32-1 {
		s.MemoryPages = uint32(pages)
	} else {
		err = errors.New("the cell of the memory's size is damaged")
	}
	for i := range s.Globals {
		if v, whole := cell(cellsFixed + i); whole {
			s.Globals[i].Lo = v
		} else {
			err = fmt.Errorf("the cell of global %d of %d is damaged", i, len(s.Globals))
		}
	}
	s.Seq, _, _ = decodeEvent(area)
	return err
}

func decodeEvent(area []byte) (seq uint64, inEvent bool, mark uint64) {
	le := binary.LittleEndian
	word := le.Uint64(area[0:])
	seq = word >> 1
	// A number that no event can have is damage, and treated like a word that does not agree.
	inEvent = word&1 == 1 || le.Uint64(area[8:]) != ^word || seq > MaxSeq
	return min(seq, MaxSeq), inEvent, le.Uint64(area[16:])
}

// SetSyncFailed notes that a sync failed, or that one has succeeded again, for whoever opens the
// state next while the machine runs on. After a failed sync the kernel takes pages for clean that
// are not on the disk: they must be written again, or a later sync would vouch for them without
// writing them.
func (f *File) SetSyncFailed(failed bool) {
	n := uint64(0)
	if failed {
		n = 1
	}
	binary.LittleEndian.PutUint64(f.event[24:], n)
}

// SyncFailed is what SetSyncFailed noted, in this process or an earlier one.
func (f *File) SyncFailed() bool { return binary.LittleEndian.Uint64(f.event[24:]) == 1 }

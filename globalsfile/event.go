package globalsfile

import "encoding/binary"

/*
The event page, at offset 8192:

	offset  bytes
	     0      8  event word. Bit 0: 1 while an event runs. Bits 1-63: sequence number of the event
	               that runs, or of the last one that ended
	     8      8  the event word again, all bits inverted. If both do not agree, the process died
	               between the two stores, which is inside an event, or the page is damaged
	    16      8  mark: number of the last slot write that is known to be complete. A damaged mark is
	               ahead of the slots and found so, or behind them and harmless
	    24      8  1: a sync of the state failed, and none has succeeded since; see SetSyncFailed
	    32         zero
*/
const eventLength = 32

// eventPage is the part of the mapping that is stored to for each event.
type eventPage = [eventLength]byte

// BeginEvent notes that event seq runs. A process killed from here on until [File.EndEvent] leaves
// memory and globals that do not belong together. Two plain stores (BenchmarkEventWord), no system
// call: what a kill leaves is what the thread has stored, in its order. After Close it does nothing.
func (f *File) BeginEvent(seq uint64) { f.storeEvent(seq<<1 | 1) }

// EndEvent notes that event seq is over and that the slot with its state, if the event changed
// anything that a slot holds, has been written.
func (f *File) EndEvent(seq uint64) {
	f.markWrite()
	f.storeEvent(seq << 1)
}

// Event is what the last BeginEvent or EndEvent noted, in this process or an earlier one. A new file
// says that the event of its first state is over.
func (f *File) Event() (seq uint64, inEvent bool) {
	seq, inEvent, _ = decodeEvent(f.event[:])
	return seq, inEvent
}

func (f *File) storeEvent(word uint64) { putEvent(f.event[:], word) }

func putEvent(page []byte, word uint64) {
	binary.LittleEndian.PutUint64(page[0:], word)
	binary.LittleEndian.PutUint64(page[8:], ^word)
}

// markWrite notes that the last slot write is complete: it can only get lost by damage from now on.
// In atomic mode that is so after a sync, in continuous mode, where nothing but a clean file is
// trusted after a power cut, at the end of an event.
func (f *File) markWrite() { binary.LittleEndian.PutUint64(f.event[16:], f.write) }

func decodeEvent(page []byte) (seq uint64, inEvent bool, mark uint64) {
	le := binary.LittleEndian
	word := le.Uint64(page[0:])
	inEvent = word&1 == 1 || le.Uint64(page[8:]) != ^word
	return word >> 1, inEvent, le.Uint64(page[16:])
}

// SetSyncFailed notes that a sync failed, or that one has succeeded again, for whoever opens the state next while the
// machine runs on. After a failed sync the kernel takes pages for clean that are not on the disk: they must
// be written again, or a later sync would vouch for them without writing them.
func (f *File) SetSyncFailed(failed bool) {
	n := uint64(0)
	if failed {
		n = 1
	}
	binary.LittleEndian.PutUint64(f.event[24:], n)
}

// SyncFailed is what SetSyncFailed noted, in this process or an earlier one.
func (f *File) SyncFailed() bool { return binary.LittleEndian.Uint64(f.event[24:]) == 1 }

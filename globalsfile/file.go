package globalsfile

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/mmrun/mmrun/vfs"
)

// File is an open and mapped globals file. Where the system allows it, which Linux does, it holds a
// mapping and no descriptor. Its methods are not safe for concurrent use: the caller lets one
// goroutine in at a time. Two processes must not have a file open at once; the caller holds a lock.
//
// An error of a sync, or of a growth that got stuck half way, wraps ErrFailed and stays: whatever
// is tried afterwards returns the same error, because nothing is known about what the disk holds.
// Close the file and open it anew.
type File struct {
	fs      vfs.FS
	path    string
	mapped  vfs.Mapping // nil after Close
	mapping []byte      // of mapped
	event   *eventArea  // in mapping, or a dummy after Close

	header     headerCopy
	headerCopy int // the copy that counts, the other one is written first

	write uint64 // number of the last slot write; its slot is write&1
	skip  uint64 // even: how many numbers the next write leaves out

	err error // sticky, see above
}

// Create makes the file at path, whole or not at all, durably, and opens it. Both slots get s, so
// that damage to either one loses nothing. A path that exists is an error that wraps fs.ErrExist.
func Create(fsys vfs.FS, path string, h Header, s *State) (*File, error) {
	if err := h.check(); err != nil {
		return nil, fmt.Errorf("globals file %s: %w", path, err)
	}
	switch f, err := fsys.OpenFile(path, os.O_RDONLY, 0); {
	case err == nil:
		f.Close()
		return nil, fmt.Errorf("globals file %s: %w", path, fs.ErrExist)
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	if err := CheckFits(s); err != nil {
		return nil, fmt.Errorf("globals file %s: %w", path, err)
	}
	length := SlotSize(s)
	slots := [2][]byte{make([]byte, length), make([]byte, length)}
	for i, slot := range slots {
		encodeSlot(slot, uint64(i), s)
	}
	header := headerCopy{Header: h, generation: 1, capacity: capacityFor(length)}
	var event eventArea
	putEvent(event[:], s.Seq<<1)
	if err := writeBeside(fsys, path, header, event[:], slots); err != nil {
		return nil, err
	}
	if err := replace(fsys, path); err != nil {
		return nil, err
	}
	return OpenSynced(fsys, path)
}

// Open maps the file at path. It fails with an error that wraps ErrCorrupt when no state is left
// (ErrTorn when a power cut may have done that), ErrVersion when the file is of another format or
// holds what must be understood and is not, or that of the file system. One damaged header copy or
// slot is no error; [File.Report] tells. What was found is durable when Open returns.
func Open(fsys vfs.FS, path string) (*File, error) { return open(fsys, path, false) }

// OpenSynced is Open for a file that is known to be on the disk as it is, because whoever wrote it
// has synced it and closed it: it saves the sync.
func OpenSynced(fsys vfs.FS, path string) (*File, error) { return open(fsys, path, true) }

func open(fsys vfs.FS, path string, synced bool) (*File, error) {
	file, err := fsys.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	f := &File{fs: fsys, path: path}
	if err := errors.Join(f.open(file, synced), file.Close()); err != nil {
		return nil, errors.Join(err, f.release())
	}
	// A growth that was cut off may have left its file. It would be overwritten by the next one,
	// so a failure to remove it is of no consequence.
	_ = fsys.Remove(besidePath(path))
	return f, nil
}

func (f *File) open(file vfs.File, synced bool) error {
	size, err := file.Size()
	if err != nil {
		return err
	}
	in, err := inspect(file, size)
	if err != nil {
		return fmt.Errorf("globals file %s: %w", f.path, err)
	}
	// The blocks exist unless the file was copied by a program that makes holes. A store to a hole
	// on a full disk would kill the process.
	if err := file.Allocate(0, size); err != nil {
		return err
	}
	// What a killed process left valid may be in the page cache only. The first write overwrites
	// the other copy: without this sync, a power cut could then take both. It is written again
	// before, because after a sync that failed the kernel takes pages for clean that are not on
	// the disk, and would sync nothing.
	if !synced {
		if err := rewrite(file, in); err != nil {
			return err
		}
		if err := file.Sync(); err != nil {
			return err
		}
	}
	if err := f.mapAll(file, size); err != nil {
		return err
	}
	f.header, f.headerCopy = in.header, in.headerCopy
	f.write = in.slots[in.Newest].write
	f.skip = randomSkip()
	if in.copiesDiffer {
		// Left by a process killed in SetHeader, or by damage. The one that counts is on the disk.
		f.header.encode(f.mapping[headersOffset+(1-f.headerCopy)*pageSize:])
	}
	return nil
}

func (f *File) mapAll(file vfs.File, size int64) error {
	mapped, err := file.MapShared(size)
	if err != nil {
		return err
	}
	f.mapped, f.mapping = mapped, mapped.Bytes()
	f.event = (*eventArea)(f.mapping[eventOffset:])
	return nil
}

// rewrite writes what is valid over itself.
func rewrite(file vfs.File, in inspection) error {
	again := func(offset int64, length int) error {
		b := make([]byte, length)
		if err := readFull(file, b, offset); err != nil {
			return err
		}
		_, err := file.WriteAt(b, offset)
		return err
	}
	if err := again(0, slotsOffset); err != nil {
		return err
	}
	for i, slot := range in.Slots {
		if slot.Err == nil {
			if err := again(slotsOffset+int64(i)*in.header.capacity, slot.Length); err != nil {
				return err
			}
		}
	}
	return nil
}

// Close unmaps without a sync. Later calls return an error that wraps os.ErrClosed.
func (f *File) Close() error {
	if errors.Is(f.err, os.ErrClosed) {
		return f.err
	}
	f.err = fmt.Errorf("globals file %s: %w", f.path, os.ErrClosed)
	return f.release()
}

// release gives up the mapping. The event area becomes a dummy, so that a BeginEvent which comes
// too late stores to no unmapped address.
func (f *File) release() error {
	f.event = new(eventArea)
	f.mapping = nil
	if f.mapped == nil {
		return nil
	}
	err := f.mapped.Unmap()
	f.mapped = nil
	return err
}

// Header is the header as of Open or the last SetHeader that succeeded.
func (f *File) Header() Header { return f.header.Header }

// SetHeader replaces the header. It is durable on return; when power fails before, the old or the
// new one is found. It costs two syncs of this file, which take the slots and the event area along.
func (f *File) SetHeader(h Header) error {
	if f.err != nil {
		return f.err
	}
	if err := h.check(); err != nil {
		return fmt.Errorf("globals file %s: %w", f.path, err)
	}
	next := f.header
	next.Header = h
	next.generation++
	first := 1 - f.headerCopy
	next.encode(f.mapping[headersOffset+first*pageSize:])
	// The copy that counts is overwritten only when the new one is on the disk: a power cut could
	// tear both otherwise. No mark is stored in between, for the same reason: it would be in the
	// page of copy 1.
	if err := f.syncMapping(); err != nil {
		return err
	}
	next.encode(f.mapping[headersOffset+f.headerCopy*pageSize:])
	// Without this sync the copies on the disk would differ, and damage to the new one would
	// bring back an old Clean flag.
	if err := f.Sync(); err != nil {
		return err
	}
	// Both are the same now. Copy 0 is said to count, so that copy 1 is the first one to be
	// written the next time: what the page of copy 1 has seen of events is then on the disk, and
	// the page at rest, when copy 0 is written.
	f.header, f.headerCopy = next, 0
	return nil
}

// SetClean is SetHeader with another Clean flag and the id of the present boot.
func (f *File) SetClean(clean bool, boot [16]byte) error {
	h := f.header.Header
	h.Clean, h.BootID = clean, boot
	return f.SetHeader(h)
}

// Read returns a copy of the newest state. If the process before died inside an event of continuous
// mode, it is what that event left.
func (f *File) Read() (*State, error) {
	if f.err != nil {
		return nil, f.err
	}
	i := int(f.write & 1)
	c, err := decodeSlot(f.slot(i), i)
	if err != nil {
		return nil, fmt.Errorf("globals file %s: slot %d: %w: %w", f.path, i, ErrCorrupt, err)
	}
	if f.header.cellsCount() {
		_ = applyCells(f.event[:], f.write, &c.state) // Report.Check tells
	}
	return &c.state, nil
}

// Report validates the file as it is now.
func (f *File) Report() (Report, error) {
	if f.err != nil {
		return Report{Newest: -1}, f.err
	}
	in, err := inspect(bytes.NewReader(f.mapping), int64(len(f.mapping)))
	if err != nil {
		return in.Report, fmt.Errorf("globals file %s: %w", f.path, err)
	}
	return in.Report, nil
}

// slot is the whole capacity of slot i.
func (f *File) slot(i int) []byte {
	from := slotsOffset + i*int(f.header.capacity)
	to := from + int(f.header.capacity)
	return f.mapping[from:to:to]
}

// WriteSlot makes s the newest state, without a sync: it survives the process from here on. It
// does not allocate unless the state has outgrown the slot: then the file is made larger, with
// syncs, and an error (a full disk) leaves it as it was. It refuses what [CheckFits] refuses.
func (f *File) WriteSlot(s *State) error {
	if f.err != nil {
		return f.err
	}
	if err := CheckFits(s); err != nil {
		return fmt.Errorf("globals file %s: %w", f.path, err)
	}
	if need := SlotSize(s); need > f.header.capacity {
		if err := f.grow(need); err != nil {
			return err
		}
	}
	write := f.write + 1 + f.skip
	f.skip = 0
	f.dropCells(write)
	encodeSlot(f.slot(int(write&1)), write, s)
	f.write = write
	return nil
}

// Sync makes everything written so far durable. After an error the file is of no more use, see
// [File].
func (f *File) Sync() error {
	if err := f.syncMapping(); err != nil {
		return err
	}
	// After the sync, not before: on the disk the mark must never be ahead of the slot.
	f.markWrite()
	return nil
}

func (f *File) syncMapping() error {
	if f.err != nil {
		return f.err
	}
	if err := f.mapped.Sync(); err != nil {
		f.err = fmt.Errorf("globals file %s: a sync failed, what the disk holds is unknown: %w: %w",
			f.path, ErrFailed, err)
		return f.err
	}
	return nil
}

// randomSkip is how many numbers the first write after an opening leaves out. A power cut may have
// left a part of a write in the slot that this one goes to. Under the same number, with the same
// content but for a little, a second cut could leave parts of both that fit together to the first
// one, which nobody has ever seen whole.
func randomSkip() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return uint64(binary.LittleEndian.Uint32(b[:]) &^ 1)
}

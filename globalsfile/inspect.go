package globalsfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/mmrun/mmrun/internal/section"
	"github.com/mmrun/mmrun/vfs"
)

var (
	// ErrCorrupt: the file is not one of this package, or so damaged that no state is left.
	ErrCorrupt = errors.New("damaged")
	// ErrVersion: the file is whole but was written in a format that this program does not know, or
	// holds something that must be understood and that this program does not know.
	ErrVersion = errors.New("unknown format")
	// ErrTooLarge: a state is more than the file can hold, see MaxSlot and MaxSeq.
	ErrTooLarge = errors.New("too large to be kept")
	// ErrTorn: continuous mode; the linear memory and the globals may belong to different instants,
	// or a power cut has left no globals at all.
	ErrTorn = errors.New("torn")
	// ErrFailed: a sync or a growth of the open file failed, and it is of no more use, see [File].
	ErrFailed = errors.New("failed by an earlier error")
)

// Report is what there is to say about a file besides its state. As long as the header can be
// read it is filled as far as possible, also when there is an error.
type Report struct {
	Header       Header
	Size         int64    // of the file, in bytes
	SlotCapacity int64    // bytes
	HeaderErrs   [2]error // what is wrong with each copy of the header, nil if nothing
	Slots        [2]SlotReport
	Newest       int    // index in Slots of the one that counts, -1 if neither is valid
	EventSeq     uint64 // see [File.Event]
	InEvent      bool
	Mark         uint64 // number of the last slot write that is known to have been complete
	CellsErr     error  // what is wrong with the cells of continuous mode, nil if nothing
}

// SlotReport is about one slot. Err says what is wrong with it, the other fields are 0 then. The
// slot that does not count is damaged when its write was cut off, and that loses nothing.
type SlotReport struct {
	Write  uint64 // number of the write that filled it; the higher one counts
	Seq    uint64
	Length int // bytes in use
	Err    error
}

func (s SlotReport) String() string {
	if s.Err != nil {
		return s.Err.Error()
	}
	return fmt.Sprintf("write %d, seq %d", s.Write, s.Seq)
}

// Check says whether the state goes with the linear memory beside it, given the id of the present
// boot of the machine. The error wraps ErrTorn, or ErrCorrupt when a state that had been written is
// not there any more.
//
// It relies on the protocol in the package's documentation: in continuous mode, memory is written
// only between BeginEvent and EndEvent, and never while the header on the disk says clean. A boot
// id of zeros is that of an unknown boot, which is never the present one.
func (r Report) Check(boot [16]byte) error {
	if r.Newest < 0 {
		return fmt.Errorf("no slot is valid: %w", ErrCorrupt)
	}
	if r.Header.Mode == Continuous {
		sameBoot := r.Header.BootID == boot && boot != [16]byte{}
		switch {
		case r.InEvent:
			return fmt.Errorf("the process died inside event %d, or the event area is damaged: %w",
				r.EventSeq, ErrTorn)
		case !sameBoot && !r.Header.Clean:
			return fmt.Errorf("the machine went down after stores that had not been flushed: %w",
				ErrTorn)
		case r.CellsErr != nil:
			return fmt.Errorf("event area: %w: %w", r.CellsErr, ErrCorrupt)
		}
	}
	// The mark is stored after the slot, so it is never ahead unless a slot that was once
	// complete has been damaged and the older one stands in for it.
	if found := r.Slots[r.Newest]; found.Write < r.Mark {
		return fmt.Errorf("write %d had been completed, the newest to be found is write %d "+
			"(slot 0: %s; slot 1: %s): %w", r.Mark, found.Write, r.Slots[0], r.Slots[1], ErrCorrupt)
	}
	return nil
}

// Inspect reads the file at path without mapping, locking or changing it; permission to read is
// enough. If another process is writing the file, a slot may be seen half written; the report then
// calls it damaged and the other one counts. Errors are those of [Open].
func Inspect(fsys vfs.FS, path string) (*State, Report, error) {
	f, err := fsys.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		return nil, Report{Newest: -1}, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, Report{Newest: -1}, err
	}
	in, err := inspect(f, size)
	if err != nil {
		return nil, in.Report, fmt.Errorf("globals file %s: %w", path, err)
	}
	return &in.slots[in.Newest].state, in.Report, nil
}

// inspection is what Open needs to go on from.
type inspection struct {
	Report
	header       headerCopy
	headerCopy   int // the copy that counts
	copiesDiffer bool
	slots        [2]*slotContent
}

// inspect reads and validates everything. It is the only reader of a file that is not yet trusted.
func inspect(r io.ReaderAt, size int64) (inspection, error) {
	in := inspection{Report: Report{Size: size, Newest: -1}}
	switch {
	case size < fileSize(minCapacity):
		return in, fmt.Errorf("%w: %d bytes long, the shortest has %d", ErrCorrupt, size,
			fileSize(minCapacity))
	case size > fileSize(MaxSlot):
		return in, fmt.Errorf("%w: %d bytes long, the longest has %d", ErrCorrupt, size,
			fileSize(MaxSlot))
	}
	front := make([]byte, slotsOffset)
	if err := readFull(r, front, 0); err != nil {
		return in, err
	}
	if err := in.readHeader(front); err != nil {
		return in, err
	}
	event := front[eventOffset:]
	in.EventSeq, in.InEvent, in.Mark = decodeEvent(event)
	if want := fileSize(in.header.capacity); size != want {
		return in, fmt.Errorf("%w: %d bytes long, the header says %d", ErrCorrupt, size, want)
	}
	if err := in.readSlots(r); err != nil {
		return in, err
	}
	if in.Newest < 0 {
		kind := ErrCorrupt
		if in.Header.Mode == Continuous && !in.Header.Clean {
			// No sync has come between the last writes of the two: a power cut leaves that.
			kind = ErrTorn
		}
		return in, fmt.Errorf("%w: both slots are damaged: slot 0: %w; slot 1: %w", kind,
			in.Slots[0].Err, in.Slots[1].Err)
	}
	if in.header.cellsCount() {
		newest := in.slots[in.Newest]
		in.CellsErr = applyCells(event, newest.write, &newest.state)
	}
	return in, nil
}

// readSlots fails if a slot cannot be read, or if the newest one is of a newer program: the older
// one must not count in its place.
func (in *inspection) readSlots(r io.ReaderAt) error {
	var newer error
	var newerWrite, newestWrite uint64
	for i := range in.slots {
		c, err := readSlot(r, in.header.capacity, i)
		switch {
		case errors.Is(err, errRead):
			return err
		case errors.Is(err, section.ErrUnknown) && (newer == nil || c.write > newerWrite):
			newer, newerWrite = fmt.Errorf("%w: slot %d: %w", ErrVersion, i, err), c.write
		}
		if err != nil {
			in.Slots[i].Err = err
			continue
		}
		in.slots[i] = c
		in.Slots[i] = SlotReport{Write: c.write, Seq: c.state.Seq, Length: c.length}
		if in.Newest < 0 || c.write > newestWrite {
			in.Newest, newestWrite = i, c.write
		}
	}
	if newer != nil && (in.Newest < 0 || newerWrite > newestWrite) {
		return newer
	}
	return nil
}

// errRead: the file system could not read, which says nothing about what is there.
var errRead = errors.New("read")

// readSlot reads slot i: what is in use of it, and no more of it into memory than the file has.
func readSlot(r io.ReaderAt, capacity int64, i int) (*slotContent, error) {
	offset := slotsOffset + int64(i)*capacity
	slot := make([]byte, headLength)
	if err := readFull(r, slot, offset); err != nil {
		return nil, fmt.Errorf("%w: %w", errRead, err)
	}
	c, seed, err := decodeHead(slot, i, capacity)
	if err != nil {
		return nil, err
	}
	list := make([]byte, c.length-headLength)
	if err := readFull(r, list, offset+headLength); err != nil {
		return nil, fmt.Errorf("%w: %w", errRead, err)
	}
	if err := c.decodeList(list, seed); err != nil {
		return c, err
	}
	return c, nil
}

func (in *inspection) readHeader(front []byte) error {
	found := false
	for i := range in.HeaderErrs {
		h, err := decodeHeader(front[headersOffset+i*pageSize:])
		in.HeaderErrs[i] = err
		if err == nil && (!found || h.generation > in.header.generation) {
			in.header, in.headerCopy, found = h, i, true
		}
	}
	for _, err := range in.HeaderErrs {
		// A whole copy of another format beside a copy of this one: a program of that format
		// was about to convert the file. Its slots are not ours to read.
		if errors.Is(err, ErrVersion) {
			return err
		}
	}
	if !found {
		return fmt.Errorf("%w: both copies of the header are damaged: copy 0: %w; copy 1: %w",
			ErrCorrupt, in.HeaderErrs[0], in.HeaderErrs[1])
	}
	in.copiesDiffer = !bytes.Equal(front[headersOffset:][:headerLength],
		front[headersOffset+pageSize:][:headerLength])
	in.Header = in.header.Header
	in.SlotCapacity = in.header.capacity
	return nil
}

// readFull reads len(p) bytes. A file that ends before, though its size said otherwise, is damaged.
func readFull(r io.ReaderAt, p []byte, offset int64) error {
	n, err := r.ReadAt(p, offset)
	switch {
	case n == len(p):
		return nil
	case err == nil || errors.Is(err, io.EOF):
		return fmt.Errorf("%w: ends at offset %d", ErrCorrupt, offset+int64(n))
	}
	return err
}

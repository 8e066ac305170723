package globalsfile

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/mmrun/mmrun/internal/section"
	"github.com/mmrun/mmrun/vfs"
)

// SlotSize is what a slot takes, not an estimate: the limit is checked against it.
func TestSlotSizeIsWhatASlotTakes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := genState.Draw(t, "state")
		slot := make([]byte, SlotSize(&s))
		encodeSlot(slot, 2, &s) // panics if it is longer
		c, err := decodeSlot(slot, 0)
		if err != nil || c.length != len(slot) || !equal(c.state, s) {
			t.Fatal(c, err)
		}
	})
}

// largest is a state that a slot just holds.
func largest() *State {
	s := &State{Seq: 1, Tables: [][]int32{make([]int32, 3<<20), {}}, Globals: make([]Value, 3),
		Meta: make([]byte, 1<<20)}
	s.Meta = make([]byte, int64(len(s.Meta))+MaxSlot-SlotSize(s)-8)
	for SlotSize(s) < MaxSlot {
		s.Meta = append(s.Meta, 1)
	}
	return s
}

func TestLargestStateIsWrittenAndReadAndOneMoreIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "globals")
	f := must[*File](t)(Create(vfs.OS, path, Header{Mode: Atomic}, &State{Seq: 1}))
	s := largest()
	if SlotSize(s) != MaxSlot {
		t.Fatal(SlotSize(s))
	}
	if err := errors.Join(f.WriteSlot(s), f.Close()); err != nil {
		t.Fatal(err)
	}
	f = must[*File](t)(Open(vfs.OS, path))
	defer f.Close()
	if got := must[*State](t)(f.Read()); !equal(*got, *s) {
		t.Fatal("another state")
	}
	s.Meta = append(s.Meta, 1)
	for what, err := range map[string]error{"CheckFits": CheckFits(s),
		"WriteSlot": f.WriteSlot(s)} {
		if !errors.Is(err, ErrTooLarge) || !strings.Contains(err.Error(), "67108864") {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err := Create(vfs.OS, path+"2", Header{Mode: Atomic}, s)
	if _, statErr := os.Stat(path + "2"); !errors.Is(err, ErrTooLarge) || statErr == nil {
		t.Errorf("Create: %v", err)
	}
}

func TestHighestSequenceNumber(t *testing.T) {
	m := newMemFS()
	f := must[*File](t)(Create(m, "globals", Header{Mode: Atomic}, &State{Seq: MaxSeq}))
	if err := f.WriteSlot(&State{Seq: MaxSeq + 1}); !errors.Is(err, ErrTooLarge) {
		t.Error(err)
	}
	if s := must[*State](t)(f.Read()); s.Seq != MaxSeq {
		t.Error(s.Seq)
	}
	if _, err := Create(m, "other", Header{Mode: Atomic}, &State{Seq: 1<<64 - 1}); err == nil {
		t.Error("created")
	}
	f.Close()
	// Numbers that no program writes, in slots with checksums that fit.
	size := sectionOf(section.MemorySize, "\x01\x00\x00\x00")
	data := m.names["globals"].data
	for _, numbers := range [][2]uint64{{2, 1<<64 - 1}, {1<<64 - 2, 1}} {
		copy(data[slotsOffset:], forgedSlot(numbers[0], numbers[1], size))
		copy(data[slotsOffset+pageSize:], forgedSlot(numbers[0]+1, numbers[1], size))
		_, _, err := Inspect(m, "globals")
		if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "4611686018427387904") {
			t.Errorf("%d: %v", numbers, err)
		}
	}
}

// A sequence number that no event can have is damage, which a continuous state is torn by.
func TestImpossibleEventIsInsideAnEvent(t *testing.T) {
	_, f := twoStates(t, Continuous)
	f.storeEvent((MaxSeq + 1) << 1)
	if seq, in := f.Event(); !in || seq != MaxSeq {
		t.Error(seq, in)
	}
	if err := must[Report](t)(f.Report()).Check(boot1); !errors.Is(err, ErrTorn) {
		t.Error(err)
	}
}

// What a file claims to be costs neither memory nor time.
func TestSparseFilesAreRefusedByTheirLength(t *testing.T) {
	path := filepath.Join(t.TempDir(), "globals")
	f := must[*File](t)(Create(vfs.OS, path, Header{Mode: Atomic}, &State{Seq: 1}))
	f.Close()
	for _, size := range []int64{1 << 40, fileSize(MaxSlot), fileSize(MaxSlot) + 1, 16385} {
		if err := os.Truncate(path, size); err != nil {
			t.Fatal(err)
		}
		if allocs := testing.AllocsPerRun(1, func() {
			_, _, err := Inspect(vfs.OS, path)
			_, openErr := Open(vfs.OS, path)
			for _, err := range []error{err, openErr} {
				if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "bytes long") {
					t.Errorf("%d bytes: %v", size, err)
				}
			}
		}); allocs > 100 {
			t.Errorf("%d bytes: %v allocations", size, allocs)
		}
	}
}

// A file that is as long as its header says, with nothing in it: what is read is the heads of
// slots.
func TestEmptySlotsOfALargeFileAreNotReadWhole(t *testing.T) {
	m, f := twoStates(t, Atomic)
	header := f.header
	header.capacity = MaxSlot
	front := m.names["globals"].data[:slotsOffset]
	for i := range 2 {
		header.encode(front[headersOffset+i*pageSize:])
	}
	path := filepath.Join(t.TempDir(), "globals")
	err := errors.Join(os.WriteFile(path, front, 0o600), os.Truncate(path, fileSize(MaxSlot)))
	if err != nil {
		t.Fatal(err)
	}
	result := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, _, err := Inspect(vfs.OS, path); !errors.Is(err, ErrCorrupt) {
				b.Fatal(err)
			}
		}
	})
	if n := result.AllocedBytesPerOp(); n > 64<<10 {
		t.Errorf("%d bytes allocated", n)
	}
}

func TestNewFileIsFourPagesAndPrivate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "globals")
	s := &State{Seq: 1, MemoryPages: 17, Globals: make([]Value, 200), Dropped: make([]bool, 50)}
	f := must[*File](t)(Create(vfs.OS, path, Header{Mode: Atomic}, s))
	defer f.Close()
	fi := must[os.FileInfo](t)(os.Stat(path))
	if fi.Size() != 4*4096 {
		t.Errorf("%d bytes", fi.Size())
	}
	if got := fi.Mode().Perm(); got&0o077 != 0 && os.PathSeparator == '/' {
		t.Errorf("mode %v", got)
	}
}

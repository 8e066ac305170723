package globalsfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/mmrun/mmrun/internal/section"
	"github.com/mmrun/mmrun/vfs"
)

var boot1, boot2 = [16]byte{1}, [16]byte{2}

func stateA() *State {
	return &State{Seq: 10, MemoryPages: 1,
		Globals: []Value{{Type: 0x7f, Lo: 1}, {Type: 0x7e, Lo: 2}, {Type: 0x7b, Lo: 3, Hi: 4}},
		Tables:  [][]int32{{1, -1, 2}}, Dropped: []bool{true, false}, Meta: []byte("a")}
}

func stateB() *State {
	return &State{Seq: 11, MemoryPages: 2,
		Globals: []Value{{Type: 0x7f, Lo: 10}, {Type: 0x7e, Lo: 20}, {Type: 0x7b, Lo: 30, Hi: 40}},
		Tables:  [][]int32{{3, -1, 2}}, Dropped: []bool{true, true}, Meta: []byte("b")}
}

// twoStates is a file at rest: A in one slot, the newer B in the other.
func twoStates(t testing.TB, mode Mode) (*memFS, *File) {
	m := newMemFS()
	f := must[*File](t)(Create(m, "globals", Header{Mode: mode, BootID: boot1}, stateA()))
	f.BeginEvent(11)
	if err := f.WriteSlot(stateB()); err != nil {
		t.Fatal(err)
	}
	f.EndEvent(11)
	if err := errors.Join(f.Sync(), f.SetClean(true, boot1)); err != nil {
		t.Fatal(err)
	}
	return m, f
}

// Any one bit: the file is refused, or it gives one of the two states that were written. And if
// Check has nothing against it, that is the newest one, with the right header and event.
func TestEveryBitFlipIsFoundOrHarmless(t *testing.T) {
	for _, mode := range []Mode{Atomic, Continuous} {
		t.Run(mode.String(), func(t *testing.T) {
			t.Parallel()
			m, f := twoStates(t, mode)
			data := slices.Clone(m.names["globals"].data)
			header := f.Header()
			flipped, found, older := 0, 0, 0
			for bit := range 8 * len(data) {
				// The modes differ in what Check asks of the same bytes: one of them is
				// enough for the unused rest of each page.
				if mode == Atomic && bit/8%pageSize >= 256 {
					continue
				}
				flipped++
				data[bit/8] ^= 1 << (bit % 8)
				in, err := inspect(bytes.NewReader(data), int64(len(data)))
				switch {
				case errors.Is(err, ErrCorrupt):
					found++
				case err != nil:
					t.Fatalf("bit %d: %v", bit, err)
				default:
					got := in.slots[in.Newest].state
					isB := equal(got, *stateB())
					if !isB && !equal(got, *stateA()) {
						t.Fatalf("bit %d: a state that nobody wrote: %+v", bit, got)
					}
					if in.Check(boot1) == nil || in.Check(boot2) == nil {
						if !isB || in.Header != header || mode == Continuous &&
							(in.EventSeq != 11 || in.InEvent) {
							t.Fatalf("bit %d: Check passes an old state or a wrong header", bit)
						}
					} else {
						older++
					}
				}
				data[bit/8] ^= 1 << (bit % 8)
			}
			t.Logf("%s: %d bits flipped, %d refused, %d found by Check, the others harmless", mode,
				flipped, found, older)
		})
	}
}

func TestEveryTruncationIsRefused(t *testing.T) {
	m, _ := twoStates(t, Atomic)
	data := m.names["globals"].data
	path := filepath.Join(t.TempDir(), "globals")
	if err := os.WriteFile(path, append(slices.Clone(data), 0), 0o600); err != nil {
		t.Fatal(err)
	}
	for length := len(data) + 1; length >= 0; length-- {
		if length == len(data) {
			continue
		}
		if err := os.Truncate(path, int64(length)); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(vfs.OS, path); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("length %d: %v", length, err)
		}
		if fi := must[os.FileInfo](t)(os.Stat(path)); fi.Size() != int64(length) {
			t.Fatalf("length %d: the file was changed", length)
		}
	}
}

// A file that no program here wrote, with checksums that fit.
func TestOtherFormatsAreRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		offset int
		want   error
	}{
		"version": {8, ErrVersion}, "page size": {12, ErrVersion}, "feature flag": {32, ErrVersion},
		"capacity": {24, ErrCorrupt}, "mode": {40, ErrCorrupt}, "clean": {44, ErrCorrupt},
	} {
		m, _ := twoStates(t, Atomic)
		data := m.names["globals"].data
		for i := range 2 {
			data[i*pageSize+tc.offset] += 4
			fixChecksum(data[i*pageSize:], headerCRC)
		}
		if _, err := Open(m, "globals"); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Contents are distrusted even behind checksums that fit: no panic, and no memory for what is not
// there.
func TestContentsOfSectionsAreDistrusted(t *testing.T) {
	le := binary.LittleEndian
	size := sectionOf(section.MemorySize, "\x01\x00\x00\x00")
	for name, list := range map[string][]section.Section{
		"no memory size":          {sectionOf(section.Meta, "m")},
		"short memory size":       {sectionOf(section.MemorySize, "\x01\x00\x00")},
		"two memory sizes":        {size, size},
		"part of a global":        {sectionOf(section.Globals, strings.Repeat("g", 18)), size},
		"no number of flags":      {sectionOf(section.Dropped, "abc"), size},
		"more flags than bytes":   {sectionOf(section.Dropped, "\xff\xff\xff\xff\x01"), size},
		"more bytes than flags":   {sectionOf(section.Dropped, "\x01\x00\x00\x00\x01\x00"), size},
		"no number of elements":   {sectionOf(section.Tables, "abc"), size},
		"more elements than room": {sectionOf(section.Tables, "\xff\xff\xff\xff1234"), size},
		"elements, then too many": {sectionOf(section.Tables,
			"\x01\x00\x00\x001234\x01\x00\x00\x00"), size},
		"long binding": {size, sectionOf(section.Binding, "123456789")},
		"two tables":   {sectionOf(section.Tables, ""), sectionOf(section.Tables, ""), size},
	} {
		slot := forgedSlot(0, 1, list...)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := decodeSlot(slot, 0)
		runtime.ReadMemStats(&after)
		if err == nil || errors.Is(err, section.ErrUnknown) {
			t.Errorf("%s: %v", name, err)
		}
		if n := after.TotalAlloc - before.TotalAlloc; n > 1<<16 {
			t.Errorf("%s: %d bytes allocated", name, n)
		}
	}
	whole := forgedSlot(0, 1, sectionOf(section.Meta, "m"), size)
	if _, err := decodeSlot(whole, 0); err != nil {
		t.Error("what is well formed:", err)
	}
	le.PutUint32(whole[16:], 1<<32-1)
	fixChecksum(whole, headLength-4)
	if _, err := decodeSlot(whole, 0); err == nil {
		t.Error("a list longer than the slot: accepted")
	}
}

func sectionOf(id section.ID, content string) section.Section {
	return section.Section{ID: id, Must: true, Content: []byte(content)}
}

// forgedSlot is a slot with checksums that fit, whatever the sections are.
func forgedSlot(write, seq uint64, sections ...section.Section) []byte {
	le := binary.LittleEndian
	slot := le.AppendUint64(le.AppendUint64(nil, write), seq)
	slot = append(slot, make([]byte, 8)...)
	length := 0
	for _, s := range sections {
		length += int(section.Size(s.ID, int64(len(s.Content))))
	}
	le.PutUint32(slot[16:], uint32(length))
	fixChecksum(slot, headLength-4)
	sum := le.Uint32(slot[headLength-4:])
	for _, s := range sections {
		start := len(slot)
		slot = append(section.AppendHeader(slot, s.ID, s.Must, len(s.Content)), s.Content...)
		slot, sum = section.AppendChecksum(slot, start, sum)
	}
	return slot
}

// A disk that writes to the wrong place.
func TestSlotInTheOtherPlaceIsRefused(t *testing.T) {
	m, _ := twoStates(t, Atomic)
	data := m.names["globals"].data
	copy(data[slotsOffset:slotsOffset+pageSize], data[slotsOffset+pageSize:])
	in, err := inspect(bytes.NewReader(data), int64(len(data)))
	if err != nil || in.Slots[0].Err == nil || in.Newest != 1 {
		t.Fatalf("%+v %v", in.Report, err)
	}
}

func fixChecksum(b []byte, at int) {
	c := crc32.Checksum(b[:at], castagnoli)
	b[at], b[at+1], b[at+2], b[at+3] = byte(c), byte(c>>8), byte(c>>16), byte(c>>24)
}

// A process killed within WriteSlot leaves a prefix of its stores. Random subsets of them are
// what a power cut could leave; they are held to the same.
func TestTornSlotGivesTheOlderState(t *testing.T) {
	other := stateB()
	other.Globals = make([]Value, 30)
	for name, next := range map[string]*State{"another state": stateB(), "more globals": other} {
		m := newMemFS()
		f := must[*File](t)(Create(m, "globals", Header{Mode: Atomic}, stateB()))
		if err := f.WriteSlot(stateA()); err != nil {
			t.Fatal(err)
		}
		live := m.names["globals"].data
		before := slices.Clone(live)
		if err := f.WriteSlot(next); err != nil {
			t.Fatal(err)
		}
		after := slices.Clone(live)
		base := slotsOffset + int(f.write&1)*pageSize
		var order []int // of the stores
		for at := base; at < base+pageSize; at++ {
			if before[at] != after[at] {
				order = append(order, at)
			}
		}
		check := func(image []byte, what string, args ...any) {
			t.Helper()
			in, err := inspect(bytes.NewReader(image), int64(len(image)))
			if err != nil {
				t.Fatalf("%s: "+what+": %v", append([]any{name}, append(args, err)...)...)
			}
			if got := in.slots[in.Newest].state; !equal(got, *stateA()) || in.Check(boot1) != nil {
				t.Fatalf("%s: "+what+": %+v", append([]any{name}, append(args, got)...)...)
			}
		}
		image := slices.Clone(before)
		for k, at := range order {
			check(image, "after %d of %d stores", k, len(order))
			image[at] = after[at]
		}
		if in, err := inspect(bytes.NewReader(image), int64(len(image))); err != nil ||
			in.slots[in.Newest].state.Seq != 11 {
			t.Fatal("the whole write does not count", err)
		}
		rnd := rand.New(rand.NewPCG(1, 2))
		for range 2000 {
			image := slices.Clone(after)
			missing := 1 + rnd.IntN(len(order))
			for _, i := range rnd.Perm(len(order))[:missing] {
				image[order[i]] = before[order[i]]
			}
			check(image, "without %d of the stores", missing)
		}
	}
}

// Any bytes at all: an error, or a file that works.
func FuzzOpen(f *testing.F) {
	m, _ := twoStates(f, Continuous)
	f.Add(m.names["globals"].data, false)
	f.Add(m.names["globals"].data, true)
	big := newMemFS()
	g := must[*File](f)(Create(big, "globals", Header{Mode: Atomic},
		&State{Meta: make([]byte, 5000), Tables: [][]int32{{1}, {}}}))
	g.BeginEvent(1)
	f.Add(big.names["globals"].data, true)
	f.Add([]byte{}, false)
	f.Fuzz(func(t *testing.T, data []byte, fix bool) {
		data = slices.Clone(data)
		if fix {
			fixAllChecksums(data)
		}
		m := memFSWith("globals", data)
		f, err := Open(m, "globals")
		if err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrVersion) {
				t.Fatal(err)
			}
			if !bytes.Equal(m.names["globals"].data, data) {
				t.Fatal("a refused file was changed")
			}
			return
		}
		if f.write >= MaxSeq-1 {
			return // so many writes cannot happen
		}
		s := must[*State](t)(f.Read())
		if s.Seq++; s.Seq > MaxSeq {
			if err := f.WriteSlot(s); !errors.Is(err, ErrTooLarge) {
				t.Fatal(err)
			}
			return
		}
		f.BeginEvent(s.Seq)
		f.StoreGlobals(s.MemoryPages, s.Globals)
		f.EndEvent(s.Seq)
		s.Meta = append(s.Meta, 1)
		r := must[Report](t)(f.Report())
		_ = r.Check(boot1)
		if err := errors.Join(f.WriteSlot(s), f.Sync(), f.SetClean(true, boot1)); err != nil {
			t.Fatal(err)
		}
		g := must[*File](t)(Open(m.kill(), "globals"))
		if got := must[*State](t)(g.Read()); !equal(*got, *s) {
			t.Fatalf("wrote %+v, read %+v", s, got)
		}
	})
}

// fixAllChecksums lets the fuzzer through to the code behind the checksums.
func fixAllChecksums(data []byte) {
	if len(data) < slotsOffset {
		return
	}
	for i := range 2 {
		fixChecksum(data[i*pageSize:], headerCRC)
	}
	capacity := (len(data) - slotsOffset) / 2
	le := binary.LittleEndian
	for i := range 2 {
		slot := data[slotsOffset+i*capacity:][:capacity]
		if len(slot) < headLength {
			return
		}
		fixChecksum(slot, headLength-4)
		sum := le.Uint32(slot[headLength-4:])
		list := slot[headLength:]
		list = list[:min(uint64(le.Uint32(slot[16:])), uint64(len(list)))]
		for {
			_, n := binary.Uvarint(list)
			length, m := binary.Uvarint(list[max(n, 0):])
			if n <= 0 || m <= 0 || length+uint64(n+m)+4 > uint64(len(list)) {
				break
			}
			end := n + m + int(length)
			sum = crc32.Update(sum, castagnoli, list[:end])
			le.PutUint32(list[end:], sum)
			list = list[end+4:]
		}
	}
}

package section

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// The bytes are part of the promise: a list outlives the program that wrote it.
func TestGoldenBytes(t *testing.T) {
	var list []byte
	sum := uint32(0x12345678)
	list = AppendHeader(list, Globals, true, 3)
	list, sum = AppendChecksum(append(list, "abc"...), 0, sum)
	start := len(list)
	list, sum = End(append(Begin(list, TrackerCosts, false), "de"...), start, sum)
	start = len(list)
	list, _ = End(append(Begin(list, 300, true), bytes.Repeat([]byte{7}, 130)...), start, sum)

	want := "03 03 616263 cd79cfce" + // globals, must be understood
		"20 02 6465 8fa5e2a4" + // tracker costs, need not
		"d904 8201" + strings.Repeat("07", 130) + "643eaa1a" // id 300, 130 bytes
	want = strings.ReplaceAll(want, " ", "") // the checksums are from another implementation
	if got := hex.EncodeToString(list); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
}

// Ids are written to disk: none of them may come to mean something else.
func TestIDsStayWhatTheyAre(t *testing.T) {
	for id, want := range map[ID]string{1: "globals", 2: "dropped flags", 3: "tables", 4: "meta",
		5: "memory size", 6: "binding", 16: "tracker costs", 17: "stream position", 18: "receipts",
		19: "time and function", 20: "clock", 21: "descriptors", 22: "frames",
		23: "pending output", 24: "chain value and epoch", 25: "fork generation",
		26: "upgrade", 27: "program input"} {
		if names[id] != want {
			t.Errorf("%d: %q, want %q", id, names[id], want)
		}
	}
	if len(names) != 18 {
		t.Error("an id is missing here")
	}
}

func read(list []byte, seed uint32) (all []Section, err error) {
	r := Read(list, seed)
	for {
		s, ok := r.Next()
		if !ok {
			return all, r.Err()
		}
		all = append(all, s)
	}
}

var genLength = rapid.SampledFrom([]int{0, 1, 127, 128, 20_000})

func TestWhatIsWrittenIsRead(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ids := rapid.SliceOfN(rapid.Uint16(), 0, 5).Draw(t, "ids")
		slices.Sort(ids)
		seed := rapid.Uint32().Draw(t, "seed")
		var want []Section
		var list []byte
		sum := seed
		for _, id := range ids {
			s := Section{ID: ID(id), Must: rapid.Bool().Draw(t, "must"),
				Content: make([]byte, genLength.Draw(t, "length"))}
			start := len(list)
			if rapid.Bool().Draw(t, "length known") {
				list = AppendHeader(list, s.ID, s.Must, len(s.Content))
				list, sum = AppendChecksum(append(list, s.Content...), start, sum)
			} else {
				list, sum = End(append(Begin(list, s.ID, s.Must), s.Content...), start, sum)
			}
			if got, want := int64(len(list)-start), Size(s.ID, int64(len(s.Content))); got != want {
				t.Fatalf("%d bytes, Size says %d", got, want)
			}
			want = append(want, s)
		}
		got, err := read(list, seed)
		if err != nil || len(got) != len(want) {
			t.Fatal(len(got), err)
		}
		for i, s := range got {
			if s.ID != want[i].ID || s.Must != want[i].Must ||
				!bytes.Equal(s.Content, want[i].Content) {
				t.Fatalf("section %d: %v", i, s)
			}
		}
	})
}

func twoSections(seed uint32) []byte {
	list, sum := End(append(Begin(nil, Globals, true), "old"...), 0, seed)
	start := len(list)
	list, _ = End(append(Begin(list, Meta, false), "old"...), start, sum)
	return list
}

func TestEveryBitFlipAndTruncationIsMalformed(t *testing.T) {
	list := twoSections(5)
	for bit := range 8 * len(list) {
		list[bit/8] ^= 1 << (bit % 8)
		if _, err := read(list, 5); !errors.Is(err, ErrMalformed) {
			t.Errorf("bit %d: %v", bit, err)
		}
		list[bit/8] ^= 1 << (bit % 8)
	}
	whole := len(list) / 2 // a list that ends between sections is one
	for length := 1; length < len(list); length++ {
		if _, err := read(list[:length], 5); (err == nil) != (length == whole) {
			t.Errorf("%d bytes of %d: %v", length, len(list), err)
		}
	}
}

// A write that was cut off leaves the first sections of one list before the last of another.
func TestSectionsOfTwoListsAreNoList(t *testing.T) {
	a, b := twoSections(5), twoSections(6)
	mixed := append(slices.Clone(a[:len(a)/2]), b[len(b)/2:]...)
	if got, err := read(mixed, 5); !errors.Is(err, ErrMalformed) || len(got) != 1 {
		t.Fatal(len(got), err)
	}
	if _, err := read(a, 6); !errors.Is(err, ErrMalformed) {
		t.Fatal("read with the seed of another list")
	}
}

func TestOrderOfSections(t *testing.T) {
	list, sum := End(Begin(nil, Meta, true), 0, 0)
	start := len(list)
	same, _ := End(Begin(list, Meta, true), start, sum)
	if _, err := read(same, 0); err != nil {
		t.Error("two sections of one kind:", err)
	}
	back, _ := End(Begin(slices.Clone(list), Globals, true), start, sum)
	if _, err := read(back, 0); !errors.Is(err, ErrMalformed) {
		t.Error("a lower id after a higher one:", err)
	}
}

func TestUnknownSectionIsRefusedByNameOrSkipped(t *testing.T) {
	if err := (Section{ID: Clock}).Unknown(); err != nil {
		t.Error("need not be understood:", err)
	}
	err := Section{ID: Clock, Must: true}.Unknown()
	if !errors.Is(err, ErrUnknown) || !strings.Contains(err.Error(), "section 20 (clock)") {
		t.Error(err)
	}
	err = Section{ID: 999, Must: true}.Unknown()
	if !errors.Is(err, ErrUnknown) || !strings.Contains(err.Error(), "section 999") {
		t.Error(err)
	}
}

// Any bytes: sections that lie in the list, or an error; nothing is allocated for what a length
// says.
func FuzzRead(f *testing.F) {
	f.Add(twoSections(0), uint32(0), true)
	f.Add(binary.AppendUvarint([]byte{3}, 1<<32-1), uint32(1), false)
	f.Add(bytes.Repeat([]byte{0xff}, 12), uint32(1), false)
	f.Fuzz(func(t *testing.T, list []byte, seed uint32, fix bool) {
		if fix {
			list = fixChecksums(slices.Clone(list), seed)
		}
		all, err := read(list, seed)
		total := 0
		for _, s := range all {
			total += len(s.Content)
		}
		if total > len(list) || err != nil && !errors.Is(err, ErrMalformed) {
			t.Fatal(total, err)
		}
		if allocs := testing.AllocsPerRun(1, func() {
			for r := Read(list, seed); ; {
				if _, ok := r.Next(); !ok {
					break
				}
			}
		}); err == nil && allocs > 0 {
			t.Fatal(allocs, "allocations")
		}
	})
}

// fixChecksums lets the fuzzer through to the code behind the checksums.
func fixChecksums(list []byte, sum uint32) []byte {
	for rest := list; ; {
		_, n := binary.Uvarint(rest)
		length, m := binary.Uvarint(rest[max(n, 0):])
		if n <= 0 || m <= 0 || length > uint64(len(rest)) || n+m+int(length)+4 > len(rest) {
			return list
		}
		end := n + m + int(length)
		sum = crc32.Update(sum, castagnoli, rest[:end])
		binary.LittleEndian.PutUint32(rest[end:], sum)
		rest = rest[end+4:]
	}
}

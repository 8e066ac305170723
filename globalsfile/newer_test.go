package globalsfile

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/mmrun/mmrun/internal/section"
)

func optional(id section.ID, content string) section.Section {
	return section.Section{ID: id, Content: []byte(content)}
}

// withNewest is a file whose slots are a known older one and the newest one given.
func withNewest(t *testing.T, sections ...section.Section) *memFS {
	m, f := twoStates(t, Atomic) // write 1 is the older one, write 2 the newest
	f.Close()
	data := m.names["globals"].data
	clear(data[slotsOffset:][:pageSize])
	copy(data[slotsOffset:], forgedSlot(2, 11, sections...))
	return m
}

func TestSlotWithWhatMustBeUnderstoodIsRefusedByNameAndUntouched(t *testing.T) {
	m := withNewest(t, sectionOf(section.MemorySize, "\x01\x00\x00\x00"),
		sectionOf(section.ID(40), "tick"))
	before := slices.Clone(m.names["globals"].data)
	_, _, err := Inspect(m, "globals")
	_, openErr := Open(m, "globals")
	for _, err := range []error{err, openErr} {
		if !errors.Is(err, ErrVersion) || errors.Is(err, ErrCorrupt) ||
			!strings.Contains(err.Error(), "section 40") {
			t.Error(err)
		}
	}
	if !slices.Equal(m.names["globals"].data, before) {
		t.Error("the file was changed")
	}
}

// The older slot of a newer program is in nobody's way.
func TestOlderSlotOfANewerProgramIsOverwritten(t *testing.T) {
	m := withNewest(t, sectionOf(section.MemorySize, "\x01\x00\x00\x00"))
	data := m.names["globals"].data
	copy(data[slotsOffset+pageSize:], forgedSlot(1, 10, sectionOf(section.ID(40), "tick")))
	f := must[*File](t)(Open(m, "globals"))
	defer f.Close()
	if err := f.WriteSlot(stateB()); err != nil {
		t.Fatal(err)
	}
	if s := must[*State](t)(f.Read()); !equal(*s, *stateB()) {
		t.Error(s)
	}
}

func TestSectionThatNeedNotBeUnderstoodIsSkipped(t *testing.T) {
	m := withNewest(t, sectionOf(section.Meta, "m"),
		sectionOf(section.MemorySize, "\x02\x00\x00\x00"),
		optional(section.ID(41), "a lot"))
	s, r, err := Inspect(m, "globals")
	want := State{Seq: 11, MemoryPages: 2, Meta: []byte("m")}
	if err != nil || !equal(*s, want) || r.Slots[0].Err != nil {
		t.Fatal(s, r, err)
	}
}

// A damaged slot of a newer program is damage: the older one counts.
func TestDamageIsNotTakenForANewerProgram(t *testing.T) {
	m := withNewest(t, sectionOf(section.MemorySize, "\x01\x00\x00\x00"),
		sectionOf(section.ID(40), "tick"), optional(section.ID(41), "x"))
	m.names["globals"].data[slotsOffset+headLength+9+6+4+2]++ // the last section's content
	s, _, err := Inspect(m, "globals")
	if err != nil || !equal(*s, *stateA()) {
		t.Fatal(s, err)
	}
}

func TestOtherVersionIsRefusedWithBothNumbers(t *testing.T) {
	m, f := twoStates(t, Atomic)
	f.Close()
	data := m.names["globals"].data
	for i := range 2 {
		data[i*pageSize+8] = 3
		fixChecksum(data[i*pageSize:], headerCRC)
	}
	_, err := Open(m, "globals")
	if !errors.Is(err, ErrVersion) ||
		!strings.Contains(err.Error(), "format version 3, this program reads version 2") {
		t.Error(err)
	}
}

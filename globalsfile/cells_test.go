package globalsfile

import (
	"bytes"
	"errors"
	"slices"
	"testing"
)

// inCells is a file whose newest state is in the cells: A in the slots, B's numbers in the event
// page.
func inCells(t testing.TB) (*memFS, *File, State) {
	t.Helper()
	m := newMemFS()
	f := must[*File](t)(Create(m, "globals", Header{Mode: Continuous, BootID: boot1}, stateA()))
	want := *stateA()
	want.Seq, want.MemoryPages, want.Globals = 12, 2, stateB().Globals
	want.Globals[2].Hi = stateA().Globals[2].Hi // cells have no high half
	f.BeginEvent(12)
	if !f.StoreGlobals(want.MemoryPages, want.Globals) {
		t.Fatal("no room")
	}
	f.EndEvent(12)
	return m, f, want
}

// Any one bit of a file whose newest state is in the cells: what Check passes is that state.
func TestEveryBitFlipInCellsIsFoundOrHarmless(t *testing.T) {
	m, f, want := inCells(t)
	data := slices.Clone(m.names["globals"].data)
	header, found := f.Header(), 0
	for bit := range 8 * len(data) {
		data[bit/8] ^= 1 << (bit % 8)
		in, err := inspect(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			t.Fatalf("bit %d: %v", bit, err)
		}
		switch err := in.Check(boot1); {
		case err != nil:
			found++
		case in.Header != header || !equal(in.slots[in.Newest].state, want):
			t.Fatalf("bit %d: Check passes %+v", bit, in.slots[in.Newest].state)
		}
		data[bit/8] ^= 1 << (bit % 8)
	}
	if found < 5*cellLength*8 {
		t.Fatalf("only %d bits of five cells were found", found)
	}
	t.Logf("%d bits flipped, %d found, the others harmless", 8*len(data), found)
}

// A process killed at any store of an event that stores globals: torn, or the state before, or
// the one after.
func TestKillAtAnyStoreOfAnEvent(t *testing.T) {
	m, f, want := inCells(t)
	data := m.names["globals"].data
	look := func(where string, torn bool, want State) {
		t.Helper()
		g := must[*File](t)(Open(m.kill(), "globals"))
		err := must[Report](t)(g.Report()).Check(boot1)
		if errors.Is(err, ErrTorn) != torn || err != nil && !torn {
			t.Fatalf("%s: %v", where, err)
		}
		if got, err := g.Read(); err != nil || !torn && !equal(*got, want) {
			t.Fatalf("%s: %+v %v", where, got, err)
		}
	}
	look("before", false, want)
	before := slices.Clone(data)
	next := want
	next.Seq, next.MemoryPages, next.Globals = 13, 3, []Value{{Type: 0x7f, Lo: 7},
		{Type: 0x7e, Lo: 8}, {Type: 0x7b, Lo: 9, Hi: 4}}
	f.BeginEvent(13)
	look("begun", true, next)
	f.StoreGlobals(next.MemoryPages, next.Globals)
	after := slices.Clone(data)
	// The stores are of 8 bytes, in the order of their addresses.
	for at := eventOffset + cellsOffset; at < eventOffset+pageSize; at += 8 {
		copy(data[at:], before[at:eventOffset+pageSize])
		look("storing", true, next)
		copy(data[at:], after[at:eventOffset+pageSize])
	}
	f.EndEvent(13)
	look("ended", false, next)
	// A slot takes over from the cells, and cells from a slot.
	slot := *stateB()
	slot.Seq = 14
	f.BeginEvent(14)
	if err := f.WriteSlot(&slot); err != nil {
		t.Fatal(err)
	}
	look("slot written", true, slot)
	f.EndEvent(14)
	look("slot", false, slot)
	f.BeginEvent(15)
	f.EndEvent(15)
	look("nothing stored", false, slot)
	slot.Seq, slot.Globals[0].Lo = 16, 77
	f.BeginEvent(16)
	f.StoreGlobals(slot.MemoryPages, slot.Globals)
	f.EndEvent(16)
	look("cells", false, slot)
	// What gives a slot more room keeps them.
	if err := f.grow(3 * pageSize); err != nil {
		t.Fatal(err)
	}
	look("grown", false, slot)
	if f.StoreGlobals(1, make([]Value, MaxCells+1)) || !f.StoreGlobals(1, make([]Value, MaxCells)) {
		t.Fatal("MaxCells is not what there is room for")
	}
}

// A power cut has kept the cells of write 2 and lost slot 2. The write that takes the number
// again must not bring them back.
func TestCellsOfALostLifeStayLost(t *testing.T) {
	m := newMemFS()
	f := must[*File](t)(Create(m, "globals", Header{Mode: Continuous, BootID: boot1}, stateA()))
	f.BeginEvent(11)
	if err := f.WriteSlot(stateB()); err != nil { // write 2
		t.Fatal(err)
	}
	f.StoreGlobals(77, stateB().Globals)
	m.names["globals"].data[slotsOffset]++ // slot 2 mod 2
	f = must[*File](t)(Open(m.kill(), "globals"))
	s := must[*State](t)(f.Read())
	if !equal(*s, *stateA()) {
		t.Fatalf("without slot 2: %+v", s)
	}
	s.Seq = 12
	if err := errors.Join(f.WriteSlot(s), f.SetClean(false, boot1)); err != nil {
		t.Fatal(err)
	}
	if got := must[*State](t)(f.Read()); !equal(*got, *s) {
		t.Fatalf("wrote %+v, read %+v", s, got)
	}
}

// What a damaged cell says does not count, and the rest of the state does.
func TestDamagedCellsAreNotTaken(t *testing.T) {
	m, _, want := inCells(t)
	for _, at := range []int{cellsOffset + cellLength, cellsOffset + 2*cellLength} {
		data := slices.Clone(m.names["globals"].data)
		data[eventOffset+at+3] ^= 0x40
		in, err := inspect(bytes.NewReader(data), int64(len(data)))
		if err != nil || !errors.Is(in.Check(boot1), ErrCorrupt) {
			t.Fatal(err, in.Check(boot1))
		}
		s := in.slots[in.Newest].state
		if s.MemoryPages != want.MemoryPages && s.MemoryPages != stateA().MemoryPages ||
			s.Globals[0].Lo != want.Globals[0].Lo && s.Globals[0].Lo != stateA().Globals[0].Lo {
			t.Fatalf("%+v", s)
		}
	}
}

// Copies of the header that differ are made equal, or damage to the one that counts would bring
// the other back.
func TestDifferentHeaderCopiesAreMadeEqual(t *testing.T) {
	m := newMemFS()
	f := must[*File](t)(Create(m, "globals", Header{Mode: Continuous, BootID: boot1, Clean: true},
		stateA()))
	old := slices.Clone(m.names["globals"].data[:2*pageSize])
	if err := f.SetClean(false, boot1); err != nil {
		t.Fatal(err)
	}
	for loser := range 2 {
		data := slices.Clone(m.names["globals"].data)
		copy(data[loser*pageSize:(loser+1)*pageSize], old)
		disk := memFSWith("globals", data)
		if f := must[*File](t)(Open(disk, "globals")); f.Header().Clean {
			t.Fatal("the older copy counts")
		}
		disk.names["globals"].data[(1-loser)*pageSize+70]++
		if f := must[*File](t)(Open(disk, "globals")); f.Header().Clean {
			t.Fatal("the older copy has come back")
		}
	}
}

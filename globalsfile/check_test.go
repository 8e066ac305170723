package globalsfile

import (
	"bytes"
	"errors"
	"slices"
	"testing"
)

func TestCheckTellsWhetherTheStateCanBeTrusted(t *testing.T) {
	type file struct {
		mode    Mode
		clean   bool
		boot    [16]byte // that the header has; the present one is boot1
		inEvent bool
		damage  func(data []byte)
	}
	newestSlot := func(data []byte) { data[slotsOffset+2]++ } // write 2 went to slot 0
	olderSlot := func(data []byte) { data[slotsOffset+pageSize+2]++ }
	for name, tc := range map[string]struct {
		file
		want error
	}{
		"atomic, inside an event": {file{mode: Atomic, boot: boot1, inEvent: true},
			nil},
		"atomic, another boot": {file{mode: Atomic, boot: boot2}, nil},
		"atomic, newest slot damaged": {file{mode: Atomic, boot: boot1,
			damage: newestSlot}, ErrCorrupt},
		"atomic, older slot damaged": {file{mode: Atomic, boot: boot1,
			damage: olderSlot}, nil},
		"continuous, killed between events": {file{mode: Continuous, boot: boot1}, nil},
		"continuous, killed inside an event": {file{mode: Continuous, boot: boot1,
			inEvent: true}, ErrTorn},
		"continuous, power failed after a store": {file{mode: Continuous, boot: boot2}, ErrTorn},
		"continuous, power failed after a flush": {file{mode: Continuous, boot: boot2,
			clean: true}, nil},
		"continuous, clean and inside an event": {file{mode: Continuous, boot: boot2,
			clean: true, inEvent: true}, ErrTorn},
		"continuous, unknown boot, not clean": {file{mode: Continuous}, ErrTorn},
		"continuous, unknown boot, clean":     {file{mode: Continuous, clean: true}, nil},
		"continuous, newest slot damaged": {file{mode: Continuous, boot: boot1,
			damage: newestSlot}, ErrCorrupt},
		"continuous, older slot damaged": {file{mode: Continuous, boot: boot1,
			damage: olderSlot}, nil},
		"continuous, clean, newest slot damaged": {file{mode: Continuous, boot: boot2,
			clean: true, damage: newestSlot}, ErrCorrupt},
		"continuous, event word without its twin": {file{mode: Continuous, boot: boot1,
			damage: func(d []byte) { d[eventOffset] += 4 }}, ErrTorn},
		"continuous, one header copy damaged": {file{mode: Continuous, boot: boot2,
			clean: true, damage: func(d []byte) { d[44]++ }}, nil},
		"continuous, the other one damaged": {file{mode: Continuous, boot: boot2,
			clean: true, damage: func(d []byte) { d[pageSize+44]++ }}, nil},
		"continuous, not clean, copy damaged": {file{mode: Continuous, boot: boot2,
			damage: func(d []byte) { d[44]++ }}, ErrTorn},
		"continuous, not clean, the other damaged": {file{mode: Continuous, boot: boot2,
			damage: func(d []byte) { d[pageSize+44]++ }}, ErrTorn},
	} {
		m := newMemFS()
		f := must[*File](t)(Create(m, "globals", Header{Mode: tc.mode, BootID: tc.boot,
			Clean: !tc.clean}, stateA()))
		f.BeginEvent(11)
		err := f.WriteSlot(stateB())
		f.EndEvent(11)
		if err := errors.Join(err, f.Sync(), f.SetClean(tc.clean, tc.boot)); err != nil {
			t.Fatal(err)
		}
		if tc.inEvent {
			f.BeginEvent(12)
		}
		data := slices.Clone(m.names["globals"].data)
		if tc.damage != nil {
			tc.damage(data)
		}
		in, err := inspect(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			t.Fatal(name, err)
		}
		present := boot1
		if tc.boot == ([16]byte{}) {
			present = tc.boot
		}
		if err := in.Check(present); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
	}
}

// A slot that was complete and is damaged later: the older one must not stand in for it silently.
// Complete means synced, or followed by the end of an event.
func TestLostSlotIsFound(t *testing.T) {
	for name, complete := range map[string]func(f *File) error{
		"Sync":     (*File).Sync,
		"EndEvent": func(f *File) error { f.EndEvent(11); return nil },
	} {
		m := newMemFS()
		f := must[*File](t)(Create(m, "globals", Header{Mode: Continuous, BootID: boot1}, stateA()))
		if err := errors.Join(f.WriteSlot(stateB()), complete(f)); err != nil {
			t.Fatal(err)
		}
		if err := must[Report](t)(f.Report()).Check(boot1); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		m.names["globals"].data[slotsOffset+20]++
		if err := must[Report](t)(f.Report()).Check(boot1); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s, then damage: %v", name, err)
		}
	}
}

// mmrun verify shows the report; it has to name what is damaged.
func TestReportNamesWhatIsDamaged(t *testing.T) {
	m, f := twoStates(t, Continuous)
	r := must[Report](t)(f.Report())
	if r.HeaderErrs != [2]error{} || r.Slots[0].Err != nil || r.Slots[1].Err != nil {
		t.Fatalf("a whole file: %+v", r)
	}
	if r.Newest != 0 || r.Slots[0].Seq != 11 || r.Slots[1].Seq != 10 || r.EventSeq != 11 ||
		r.Mark != f.write || r.SlotCapacity != 4096 || r.Size != 16384 {
		t.Fatalf("%+v", r)
	}
	data := m.names["globals"].data
	data[slotsOffset]++
	data[pageSize]++
	r = must[Report](t)(f.Report())
	if r.HeaderErrs[0] != nil || r.HeaderErrs[1] == nil || r.Slots[0].Err == nil ||
		r.Slots[1].Err != nil || r.Newest != 1 {
		t.Fatalf("slot 0 and header copy 1 are damaged: %+v", r)
	}
	data[slotsOffset+pageSize]++
	if r, err := f.Report(); !errors.Is(err, ErrCorrupt) || r.Newest != -1 ||
		r.Header != f.Header() || !errors.Is(r.Check(boot1), ErrCorrupt) {
		t.Fatalf("both slots are damaged: %+v %v", r, err)
	}
	if _, err := f.Read(); !errors.Is(err, ErrCorrupt) {
		t.Fatal(err)
	}
	data[0]++
	if _, err := Open(m, "globals"); !errors.Is(err, ErrCorrupt) {
		t.Fatal(err)
	}
}

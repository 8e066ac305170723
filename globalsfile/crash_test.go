package globalsfile

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
)

// images is how many random power cuts each crash test tries at each point, besides the one that
// keeps all and the one that keeps nothing.
const images = 30

// numbered is a state that is told by its number. Some are larger than the slots of those before.
func numbered(seq uint64) *State {
	s := &State{Seq: seq, MemoryPages: uint32(seq), Globals: []Value{{Type: 0x7e, Lo: seq},
		{Type: 0x7b, Lo: seq, Hi: seq}}}
	if seq >= 4 {
		s.Meta = make([]byte, seq*1000)
	}
	return s
}

// world is a workload in progress: what has been promised to survive, and what may survive.
type world struct {
	t       *testing.T
	m       *memFS
	f       *File
	rnd     *rand.Rand
	cuts    int
	durable uint64 // number of the newest state that must survive, or a newer one
	newest  uint64 // number of the newest state that may survive
	header  Header // must survive
	next    Header // or this one
	check   func(r Report)
}

// cut lets the power fail now in many ways and looks at what each leaves.
func (w *world) cut(where string) {
	w.t.Helper()
	for _, disk := range w.m.crashes(images, w.rnd) {
		w.cuts++
		f, err := Open(disk, "globals")
		if err != nil {
			w.t.Fatalf("power cut at %s: %v", where, err)
		}
		s := must[*State](w.t)(f.Read())
		if s.Seq < w.durable || s.Seq > w.newest || !equal(*s, *numbered(s.Seq)) {
			w.t.Fatalf("power cut at %s: found state %d, want %d to %d", where, s.Seq, w.durable,
				w.newest)
		}
		if h := f.Header(); h != w.header && h != w.next {
			w.t.Fatalf("power cut at %s: found header %+v, want %+v or %+v", where, h, w.header,
				w.next)
		}
		if _, left := disk.names["globals.new"]; left {
			w.t.Fatalf("power cut at %s: Open left globals.new behind", where)
		}
		if w.check != nil {
			w.check(must[Report](w.t)(f.Report()))
		}
		// It must go on from there: the first write after a crash, and a power cut in it.
		if err := errors.Join(f.WriteSlot(numbered(s.Seq+1)), f.SetHeader(f.Header())); err != nil {
			w.t.Fatalf("after a power cut at %s: %v", where, err)
		}
	}
}

func newWorld(t *testing.T, mode Mode) *world {
	w := &world{t: t, m: newMemFS(), rnd: rand.New(rand.NewPCG(3, 4)), durable: 1, newest: 1}
	w.header = Header{Mode: mode, BootID: boot1}
	w.next = w.header
	w.f = must[*File](t)(Create(w.m, "globals", w.header, numbered(1)))
	w.m.before = func(op string) error { w.cut("before " + op); return nil }
	return w
}

func (w *world) do(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// With a sync between two slot writes, power may fail at any instant: slots, headers and the growth
// of the file included. What was synced is found, or what was written since, whole.
func TestPowerCutLosesNothingSynced(t *testing.T) {
	w := newWorld(t, Atomic)
	for seq := uint64(2); seq <= 10; seq++ {
		w.newest = seq
		w.do(w.f.WriteSlot(numbered(seq)))
		w.cut("slot written")
		w.do(w.f.Sync())
		w.durable = seq
		w.cut("slot synced")
		w.next.Clean = !w.next.Clean
		w.next.BootID[5]++
		w.do(w.f.SetHeader(w.next))
		w.header = w.next
		w.cut("header set")
	}
	if w.f.header.capacity <= 8192 {
		t.Fatal("the file has not grown twice")
	}
	t.Logf("%d power cuts", w.cuts)
}

// A killed process leaves stores that no sync has covered. The next one must not take the last
// durable copy away before they are on the disk.
func TestPowerCutAfterAKillLosesNothingSynced(t *testing.T) {
	w := newWorld(t, Atomic)
	errKilled := errors.New("killed")
	reopen := func() {
		hook := w.m.before
		w.m.before = nil
		w.f = must[*File](t)(Open(w.m, "globals"))
		w.m.before = hook
	}
	for seq := uint64(2); seq <= 3; seq++ {
		w.newest = seq
		w.do(w.f.WriteSlot(numbered(seq)))
		reopen()
		w.cut("opened after a kill")

		w.next.BootID[5]++
		hook := w.m.before
		w.m.before = func(string) error { return errKilled }
		if err := w.f.SetHeader(w.next); !errors.Is(err, errKilled) {
			t.Fatal(err)
		}
		w.m.before = hook
		w.cut("killed in SetHeader")
		reopen()
		w.header = w.f.Header()
		w.next.BootID[5]++
		w.do(w.f.SetHeader(w.next))
		w.header = w.next
	}
}

// SetHeader has returned, power fails, and then one of the copies is damaged: the other has the
// same header, not the one before.
func TestBothHeaderCopiesAreDurable(t *testing.T) {
	m := newMemFS()
	f := must[*File](t)(Create(m, "globals", Header{Mode: Continuous, BootID: boot1, Clean: true},
		numbered(1)))
	for i := range 4 {
		h := f.Header()
		h.Clean = !h.Clean
		if err := f.SetHeader(h); err != nil {
			t.Fatal(err)
		}
		for copyIndex := range 2 {
			disk := m.crash(func() bool { return false })
			disk.names["globals"].data[copyIndex*pageSize+70]++
			if g := must[*File](t)(Open(disk, "globals")); g.Header() != h {
				t.Fatalf("update %d, copy %d damaged: an old header", i, copyIndex)
			}
		}
	}
}

// In atomic mode Check must never blame a power cut on damage.
func TestCheckPassesEveryPowerCutInAtomicMode(t *testing.T) {
	w := newWorld(t, Atomic)
	w.check = func(r Report) {
		if err := r.Check(boot2); err != nil {
			t.Fatal(err)
		}
	}
	for seq := uint64(2); seq <= 6; seq++ {
		w.newest = seq
		w.do(w.f.WriteSlot(numbered(seq)))
		w.cut("slot written")
		w.do(w.f.Sync())
		w.durable = seq
		w.cut("slot synced")
	}
}

// Continuous mode does not sync between slot writes. After a power cut the file may be anything,
// but it is trusted only when nothing has been stored to the memory since the last flush; and in
// the same boot only between two events.
func TestContinuousModeIsTrustedOnlyWhenMemoryFits(t *testing.T) {
	m := newMemFS()
	rnd := rand.New(rand.NewPCG(5, 6))
	var memory, durableMemory uint64 // the number of the event that stored last
	inEvent := false
	trusted, refused := 0, 0
	see := func(where string) {
		t.Helper()
		for _, disk := range m.crashes(images, rnd) {
			f, err := Open(disk, "globals")
			if errors.Is(err, ErrTorn) {
				refused++
				continue
			}
			if err != nil {
				t.Fatal(where, err)
			}
			if must[Report](t)(f.Report()).Check(boot2) != nil {
				refused++
				continue
			}
			trusted++
			if s := must[*State](t)(f.Read()); s.Seq != durableMemory || memory != durableMemory {
				t.Fatalf("power cut, %s: state %d is trusted, memory is at %d, on the disk %d",
					where, s.Seq, memory, durableMemory)
			}
		}
		f := must[*File](t)(Open(m.kill(), "globals"))
		err := must[Report](t)(f.Report()).Check(boot1)
		if inEvent != errors.Is(err, ErrTorn) || !inEvent && err != nil {
			t.Fatalf("kill, %s: in event %t, Check says %v", where, inEvent, err)
		}
		if s := must[*State](t)(f.Read()); err == nil && s.Seq != memory {
			t.Fatalf("kill, %s: state %d, memory %d", where, s.Seq, memory)
		}
	}
	f := must[*File](t)(Create(m, "globals", Header{Mode: Continuous, BootID: boot1, Clean: true},
		numbered(1)))
	memory, durableMemory = 1, 1
	m.before = func(op string) error { see("before " + op); return nil }
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for seq := uint64(2); seq < 20; seq++ {
		if f.Header().Clean {
			do(f.SetClean(false, boot1))
		}
		see("unclean")
		f.BeginEvent(seq)
		inEvent = true
		see("event begun")
		memory = seq
		see("in event")
		if s := numbered(seq); seq%3 == 0 {
			do(f.WriteSlot(s))
			see("slot written")
		} else if !f.StoreGlobals(s.MemoryPages, s.Globals) {
			t.Fatal("no room")
		}
		see("globals stored")
		f.EndEvent(seq)
		inEvent = false
		see("event ended")
		if seq%4 == 0 {
			durableMemory = memory
			do(f.WriteSlot(numbered(seq)))
			do(f.Sync())
			see("synced")
			do(f.SetClean(true, boot1))
			see("clean")
		}
	}
	if trusted == 0 || refused == 0 {
		t.Fatal("nothing was tried", trusted, refused)
	}
	t.Logf("%d power cuts trusted, %d refused", trusted, refused)
}

// Each operation fails once, alone or with all that follow, which is how a full or a broken disk
// looks. The file then goes on, or says at every call that it cannot; what was acknowledged stays.
func TestEachOperationMayFail(t *testing.T) {
	errDisk := errors.New("input/output error")
	run := func(failFrom, failTo int) (ops []string) {
		m := newMemFS()
		f := must[*File](t)(Create(m, "globals", Header{Mode: Atomic}, numbered(1)))
		at := 0
		m.ops = nil
		m.before = func(op string) error {
			at++
			ops = append(ops, op)
			if at >= failFrom && at <= failTo {
				return errDisk
			}
			return nil
		}
		written, synced := uint64(1), uint64(1)
		broken := false
		for seq := uint64(2); seq <= 6; seq++ {
			for _, step := range []struct {
				name string
				do   func() error
				done func()
			}{
				{"write", func() error { return f.WriteSlot(numbered(seq)) },
					func() { written = seq }},
				{"sync", f.Sync, func() { synced = written }},
				{"header", func() error { return f.SetHeader(f.Header()) },
					func() { synced = written }},
			} {
				err := step.do()
				if err != nil && !errors.Is(err, errDisk) {
					t.Fatalf("operation %d: %s: %v", failFrom, step.name, err)
				}
				if err == nil {
					if broken {
						t.Fatalf("operation %d (%s): %s succeeded after a failed sync", failFrom,
							ops[failFrom-1], step.name)
					}
					step.done()
				} else if ops[len(ops)-1] == "sync globals" || step.name != "write" {
					broken = true
				}
			}
		}
		if !broken && failFrom == failTo {
			if s := must[*State](t)(f.Read()); s.Seq != 6 {
				t.Fatalf("operation %d: goes on, but with state %d", failFrom, s.Seq)
			}
		}
		f.Close()
		m.before = nil
		for _, disk := range append(m.crashes(10, rand.New(rand.NewPCG(7, 8))), m.kill()) {
			g, err := Open(disk, "globals")
			if err != nil {
				t.Fatalf("operation %d (%s): %v", failFrom, ops[failFrom-1], err)
			}
			if s := must[*State](t)(g.Read()); s.Seq < synced || s.Seq > written+1 ||
				!equal(*s, *numbered(s.Seq)) {
				t.Fatalf("operation %d: state %d, synced %d, written %d", failFrom, s.Seq, synced,
					written)
			}
		}
		return ops
	}
	all := run(1<<30, 0)
	for k := 1; k <= len(all); k++ {
		run(k, k)
		run(k, 1<<30)
	}
	t.Logf("%d operations failed one by one, and with all that follow: %q", len(all), all)
}

// Create leaves nothing or the whole file.
func TestCreateIsWholeOrNothing(t *testing.T) {
	errDisk := errors.New("no space left on device")
	for k := 1; ; k++ {
		m := newMemFS()
		at := 0
		rnd := rand.New(rand.NewPCG(9, 10))
		m.before = func(op string) error {
			if at++; at == k {
				for _, disk := range m.crashes(images, rnd) {
					if disk.names["globals"] == nil {
						continue
					}
					if f, err := Open(disk, "globals"); err != nil {
						t.Fatalf("power cut before %s: %v", op, err)
					} else if s := must[*State](t)(f.Read()); !equal(*s, *numbered(5)) {
						t.Fatalf("power cut before %s: %+v", op, s)
					}
				}
				return errDisk
			}
			return nil
		}
		_, err := Create(m, "globals", Header{Mode: Atomic}, numbered(5))
		if err == nil {
			if k < 8 {
				t.Fatal("too few operations:", m.ops)
			}
			return
		}
		if !errors.Is(err, errDisk) {
			t.Fatal(fmt.Sprint("operation ", k), err)
		}
	}
}

// A growth that fails for want of room changes nothing, and the file goes on.
func TestFullDiskAtGrowthLeavesTheFileInUse(t *testing.T) {
	m := newMemFS()
	f := must[*File](t)(Create(m, "globals", Header{Mode: Atomic}, numbered(1)))
	errFull := errors.New("no space left on device")
	m.before = func(op string) error {
		if op == "allocate globals.new" {
			return errFull
		}
		return nil
	}
	if err := f.WriteSlot(numbered(9)); !errors.Is(err, errFull) {
		t.Fatal(err)
	}
	if m.names["globals.new"] != nil {
		t.Fatal("left globals.new behind")
	}
	if s := must[*State](t)(f.Read()); s.Seq != 1 {
		t.Fatal("state", s.Seq)
	}
	if err := f.WriteSlot(numbered(2)); err != nil {
		t.Fatal(err)
	}
	m.before = nil
	if err := f.WriteSlot(numbered(9)); err != nil {
		t.Fatal(err)
	}
	if s := must[*State](t)(f.Read()); !equal(*s, *numbered(9)) {
		t.Fatal("state", s.Seq)
	}
}

package tests

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/internal/delta"
	"github.com/mmrun/mmrun/internal/testkit/guests"
	"github.com/mmrun/mmrun/vfs"
)

// The workloads of the fault tests: fixed lists of steps over the guest "stores", of which a twin
// on plain wazero, without any persistence, tells beforehand what each commit must look like.

// step is an event, or something done between two events.
type step struct {
	name  string
	calls []guestCall // of an event
	meta  []byte      // set in the event, if not nil
	traps bool        // the last call of the event does
	view  bool        // the event is a query
	do    action      // not an event
	mode  mmrun.Mode  // of a reopening; 0: as it is
}

type guestCall struct {
	name   string
	params []uint64
}

type action int

const (
	doEvent action = iota
	doSync
	doCheckpoint
	doReopen // close and open
	doKill   // die and open
)

func event(name string, calls ...guestCall) step { return step{name: name, calls: calls} }

func do(name string, params ...uint64) guestCall { return guestCall{name, params} }

func (s step) withMeta(b []byte) step { s.meta = b; return s }
func (s step) thatTraps() step        { s.traps = true; s.name += ", trap"; return s }
func (s step) asView() step           { s.view = true; s.name += ", view"; return s }

var (
	syncStep       = step{name: "sync", do: doSync}
	checkpointStep = step{name: "checkpoint", do: doCheckpoint}
	reopenStep     = step{name: "close and open", do: doReopen}
	killStep       = step{name: "kill and open", do: doKill}
	outside        = do("one", 1<<31, 1) // past the end of the memory: a trap
)

func convertStep(m mmrun.Mode) step {
	return step{name: "close and open as " + m.String(), do: doReopen, mode: m}
}

// atomicSteps meet everything that an atomic state does, with the smallest wal: two segments
// of 64 KiB. A memory of one wasm page grows to three.
func atomicSteps() []step {
	return []step{
		event("one store", do("one", 8, 1)),
		event("stores", do("random", 1, 8)).withMeta([]byte("cursor 1")),
		event("growth", do("grow", 1), do("one", 70000, 7)),
		syncStep,
		event("half an event", do("fill", 100, 3000, 0xaa), outside).thatTraps(),
		event("growth in a half event", do("grow", 2), do("one", 140000, 3), outside).thatTraps(),
		event("query", do("one", 8, 99), do("count")).asView(),
		event("30 KB", do("fill", 0, 30000, 0x11), do("one", 8, 2)),
		event("30 KB more: a wal switch", do("fill", 30000, 30000, 0x22)),
		event("one store during the fold", do("one", 16, 3)),
		checkpointStep,
		event("stores after a checkpoint", do("random", 2, 6)),
		syncStep,
		event("40 KB", do("fill", 60000, 40000, 0x33)),
		event("stores", do("random", 3, 3)),
		event("120 KB: larger than a segment", do("fill", 0, 120000, 0x44)),
		event("one store", do("one", 24, 4)),
		event("large metadata", do("one", 32, 5)).withMeta([]byte(strings.Repeat("metadata ",
			700))),
		checkpointStep,
		event("stores", do("random", 4, 4)).withMeta([]byte("cursor 2")),
		reopenStep,
		event("one store", do("one", 40, 6)),
		event("growth", do("grow", 1), do("one", 190000, 8)),
		killStep,
		event("50 KB", do("fill", 0, 50000, 0x55)),
		event("50 KB more", do("fill", 50000, 50000, 0x66)),
		event("one store", do("one", 48, 9)),
		killStep,
		event("stores", do("random", 5, 4)),
		syncStep,
		event("stores", do("random", 6, 4)),
	}
}

// smallSteps are events that start no checkpoint, so that each one's commit is synced by the sync
// policy and by nothing else.
func smallSteps() []step {
	return []step{
		event("one store", do("one", 8, 1)),
		event("stores", do("random", 1, 8)).withMeta([]byte("cursor 1")),
		event("growth", do("grow", 1), do("one", 70000, 7)),
		event("10 KB", do("fill", 0, 10000, 0x11), do("one", 8, 2)),
		event("stores", do("random", 2, 8)),
	}
}

// switchSteps call Sync right after a wal switch: on one processor before the fold, which runs in
// the background, has synced the sealed segment.
func switchSteps() []step {
	var steps []step
	for i := range uint64(3) {
		steps = append(steps,
			event("one store", do("one", 8*i, i)),
			event("45 KB", do("fill", 100, 45000, i+1)),
			event("45 KB more: a wal switch", do("fill", 10000, 45000, i+100)),
			syncStep,
			event("one store", do("one", 8*i, i+1000)),
			syncStep)
	}
	return steps
}

// continuousSteps are for a continuous state.
func continuousSteps() []step {
	return []step{
		event("one store", do("one", 8, 1)),
		event("stores", do("random", 1, 8)).withMeta([]byte("cursor 1")),
		syncStep,
		event("growth", do("grow", 1), do("one", 70000, 7)),
		event("30 KB", do("fill", 0, 30000, 0x11), do("one", 8, 2)),
		checkpointStep,
		event("query", do("count")),
		syncStep,
		event("half an event", do("fill", 100, 3000, 0xaa), outside).thatTraps(),
		event("stores", do("random", 2, 6)),
		event("large metadata", do("one", 32, 5)).withMeta([]byte(strings.Repeat("metadata ",
			700))),
		syncStep,
		event("one store", do("one", 40, 6)),
		reopenStep,
		event("one store", do("one", 48, 7)),
		killStep,
		event("stores", do("random", 3, 4)),
	}
}

// conversionSteps go from one mode to the other and back.
func conversionSteps() []step {
	return []step{
		event("stores", do("random", 1, 8)).withMeta([]byte("cursor 1")),
		event("growth", do("grow", 1), do("one", 70000, 7)),
		convertStep(mmrun.Continuous),
		event("stores", do("random", 2, 6)),
		event("growth", do("grow", 1), do("one", 140000, 7)),
		syncStep,
		event("one store", do("one", 8, 1)),
		convertStep(mmrun.Atomic),
		event("one store", do("one", 16, 1)),
		syncStep,
		event("30 KB", do("fill", 0, 30000, 0x11), do("one", 8, 2)),
		convertStep(mmrun.Continuous),
		convertStep(mmrun.Atomic),
		event("one store", do("one", 24, 1)),
	}
}

// digest stands for all that the guest "stores" has: memory, global, the user's bytes.
type digest [sha256.Size]byte

func digestState(memory []byte, mod api.Module, meta []byte) (digest, error) {
	count, err := mod.ExportedFunction("count").Call(bg)
	if err != nil {
		return digest{}, err
	}
	h := sha256.New()
	h.Write(memory)
	h.Write(binary.LittleEndian.AppendUint64(nil, count[0]))
	h.Write(meta)
	return digest(h.Sum(nil)), nil
}

// digestOf is the state that the guest of an open instance is in.
func digestOf(in *mmrun.Instance) (digest, error) {
	s := storeOf(in)
	if err := s.Enter(bg); err != nil {
		return digest{}, err
	}
	defer s.Leave()
	return digestState(s.Memory().Bytes(), s.Guest().Module(), s.State().Meta)
}

// predict runs steps on plain wazero and returns the digest of each commit, by sequence number.
func predict(t testing.TB, rt wazero.Runtime, wasm []byte, mode mmrun.Mode, steps []step) []digest {
	t.Helper()
	mod, err := rt.InstantiateWithConfig(bg, wasm, wazero.NewModuleConfig().WithName(""))
	if err != nil {
		t.Fatal(err)
	}
	defer mod.Close(bg)
	var meta []byte
	want := make([]digest, 1)
	commit := func() {
		memory, _ := mod.Memory().Read(0, mod.Memory().Size())
		d, err := digestState(memory, mod, meta)
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, d)
	}
	commit()
	for _, s := range steps {
		if s.do == doReopen && s.mode != 0 {
			mode = s.mode
		}
		// Atomic: what a trap leaves is rolled back. Continuous: it stays, and counts as a commit.
		if s.do != doEvent || s.view || s.traps && mode == mmrun.Atomic {
			continue
		}
		for i, c := range s.calls {
			_, err := mod.ExportedFunction(c.name).Call(bg, c.params...)
			if fails := s.traps && i == len(s.calls)-1; (err != nil) != fails {
				t.Fatalf("%s: %s%v: %v", s.name, c.name, c.params, err)
			}
		}
		if s.meta != nil {
			meta = s.meta
		}
		commit()
	}
	return want
}

var errTrapMissing = errors.New("the event should have trapped")

// runEvent runs one event step. between is called between two calls.
func runEvent(in *mmrun.Instance, s step, between func()) error {
	trapped := false
	fn := func(tx *mmrun.Tx) error {
		if s.meta != nil {
			tx.SetMeta(s.meta)
		}
		for i, c := range s.calls {
			if i > 0 && between != nil {
				between()
			}
			if _, err := tx.Call(bg, c.name, c.params...); err != nil {
				trapped = s.traps && i == len(s.calls)-1 &&
					strings.Contains(err.Error(), "out of bounds")
				return err
			}
		}
		return nil
	}
	run := in.Update
	if s.view {
		run = in.View
	}
	err := run(bg, fn)
	switch {
	case s.traps && err == nil:
		return errTrapMissing
	case trapped && !errors.Is(err, mmrun.ErrPoisoned):
		return nil
	}
	return err
}

// runStep does a step that needs no other instance.
func runStep(in *mmrun.Instance, s step) error {
	switch s.do {
	case doSync:
		return in.Sync(bg)
	case doCheckpoint:
		return in.Checkpoint(bg)
	default:
		return runEvent(in, s, nil)
	}
}

// abandon leaves an instance as the death of its process would: files closed, nothing written.
func abandon(in *mmrun.Instance) { storeOf(in).Abandon() }

// machine is a runtime and the module, for one goroutine.
type machine struct {
	rt   wazero.Runtime
	wasm []byte
}

var sharedCache = wazero.NewCompilationCache()

func newMachine(t testing.TB) *machine {
	t.Helper()
	rt := wazero.NewRuntimeWithConfig(bg,
		wazero.NewRuntimeConfig().WithCompilationCache(sharedCache))
	t.Cleanup(func() { _ = rt.Close(bg) })
	return &machine{rt, guests.Load(t, "stores")}
}

func (m *machine) open(dir string, fsys vfs.FS, create bool, opts ...mmrun.Option) (*mmrun.Instance,
	error) {
	wasm := m.wasm
	if !create {
		wasm = nil
	}
	opts = append([]mmrun.Option{mmrun.WithWALSize(mmrun.MinWALSize), withFS(fsys)}, opts...)
	return openSeen(m.rt, dir, wasm, opts...)
}

// checkState compares an open instance with what the commit of its number must look like.
func checkState(in *mmrun.Instance, want []digest) error {
	seq := in.Seq()
	if seq >= uint64(len(want)) {
		return fmt.Errorf("commit %d came back, the last one made is %d", seq, len(want)-1)
	}
	got, err := digestOf(in)
	if err != nil {
		return err
	}
	if got != want[seq] {
		for i, d := range want {
			if i > 0 && d == got {
				return fmt.Errorf("the state says that it is commit %d and has the content of "+
					"commit %d", seq, i)
			}
		}
		return fmt.Errorf("torn: the state says that it is commit %d and has the content of none",
			seq)
	}
	// What the guest has must be what the small state says, also where the digest does not look.
	var d delta.Encoder
	err = storeOf(in).Guest().Capture(storeOf(in).State(), &d)
	if err != nil {
		return err
	}
	if delta := d.Bytes(); len(delta) > 0 {
		return fmt.Errorf("commit %d: the guest's small state differs from the one read: % x", seq,
			delta)
	}
	return nil
}

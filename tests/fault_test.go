package tests

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/fsck"
	"github.com/mmrun/mmrun/internal/pagefile"
	"github.com/mmrun/mmrun/internal/statedir"
	"github.com/mmrun/mmrun/internal/testkit/scratch"
	"github.com/mmrun/mmrun/vfs"
	"github.com/mmrun/mmrun/vfs/faultfs"
)

// faultRun is one run of a workload on a file system that fails at one operation, or from one on.
// It goes on wherever the instance says that it can, opens the state again where it cannot, and at
// the end all events are there.
type faultRun struct {
	m      *machine
	dir    string
	fs     vfs.FS
	inj    *faultfs.Injector
	mode   mmrun.Mode
	policy mmrun.SyncPolicy
	steps  []step
	want   []digest
	// die makes the process die at the fault, instead of going on after it.
	die bool
	// durable, if set, is called when a commit has been acknowledged as durable.
	durable func(seq uint64)

	in       *mmrun.Instance
	acked    uint64 // last commit
	poisoned bool   // it was, at least once
	dead     bool   // it has died
	torn     bool   // the run ended with a continuous state that was rightly refused
	ended    bool   // the run is over
	synced   int    // wal syncs failed since the instance was opened
}

// run returns what went wrong.
func (r *faultRun) run() (err error) {
	at := "open"
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, stack())
		}
		if err != nil {
			err = fmt.Errorf("%s: %w", at, err)
		}
		if r.in != nil {
			abandon(r.in)
		}
	}()
	if err := r.open(r.mode); err != nil || r.ended {
		return err
	}
	for i, s := range r.steps {
		at = fmt.Sprintf("step %d (%s)", i, s.name)
		if err := r.step(s); err != nil || r.ended {
			return err
		}
	}
	at = "end"
	if err := r.in.Close(bg); err != nil && !r.faulty() {
		return err
	}
	r.inj.Heal()
	if err := r.open(0); err != nil || r.ended {
		return err
	}
	if got, want := r.acked, uint64(len(r.want)-1); got != want {
		return fmt.Errorf("commit %d is the last, want %d", got, want)
	}
	if err := checkSums(r.in); err != nil {
		return err
	}
	if err := r.in.Close(bg); err != nil {
		return err
	}
	report, err := fsck.Verify(r.dir)
	if err != nil || !report.Sound {
		return fmt.Errorf("verify: %+v %v", report, err)
	}
	return nil
}

func stack() string {
	buf := make([]byte, 1<<16)
	return string(buf[:runtime.Stack(buf, false)])
}

func (r *faultRun) faulty() bool { return len(r.inj.Failed()) > 0 }

// open opens the state. What fails once, or until the disk is sound again, must succeed in the end.
func (r *faultRun) open(mode mmrun.Mode) error {
	for try := 0; ; try++ {
		if try == 2 || r.dead {
			r.inj.Heal()
		}
		in, err := r.m.open(r.dir, r.fs, true, mmrun.WithMode(mode), mmrun.WithSync(r.policy),
			withBootID(bootOfWorkload))
		if r.die && r.faulty() {
			r.dead = true
		}
		if err != nil {
			if err := r.clear(err); err != nil {
				return err
			}
			if try == 2 {
				return fmt.Errorf("open on a sound disk: %w", err)
			}
			continue
		}
		r.in, r.synced = in, r.failedSyncs()
		if r.acked == 0 {
			r.acked = 1
		}
		if got := in.Seq(); got != r.acked {
			return fmt.Errorf("commit %d came back, commit %d was the last acknowledged", got,
				r.acked)
		}
		if err := checkState(in, r.want); err != nil {
			return err
		}
		if in.Mode() == mmrun.Atomic {
			r.isDurable()
		}
		return nil
	}
}

// reopen opens the state after an instance was given up. If an event was in flight, it may
// have been committed or not.
func (r *faultRun) reopen(inFlight bool) error {
	abandon(r.in)
	r.in = nil
	r.inj.Heal()
	in, err := r.m.open(r.dir, r.fs, true, mmrun.WithSync(r.policy), withBootID(bootOfWorkload))
	if errors.Is(err, mmrun.ErrTorn) && inFlight {
		r.torn, r.ended = true, true
		return nil
	}
	if err != nil {
		return fmt.Errorf("open again on a sound disk: %w", err)
	}
	if got := in.Seq(); got != r.acked && !(inFlight && got == r.acked+1) {
		abandon(in)
		return fmt.Errorf("commit %d came back, commit %d was the last acknowledged", got, r.acked)
	}
	r.in, r.acked, r.synced = in, in.Seq(), r.failedSyncs()
	if err := checkState(in, r.want); err != nil {
		return err
	}
	if in.Mode() == mmrun.Atomic {
		r.isDurable()
	}
	return nil
}

func (r *faultRun) isDurable() {
	if r.durable != nil && r.faulty() {
		r.durable(r.acked)
	}
}

// clear tells whether an error says what failed and where.
func (r *faultRun) clear(err error) error {
	if !errors.Is(err, syscall.EIO) && !errors.Is(err, syscall.ENOSPC) &&
		!errors.Is(err, mmrun.ErrPoisoned) {
		return fmt.Errorf("the error does not wrap its cause: %w", err)
	}
	if !strings.Contains(err.Error(), filepath.Base(r.dir)) {
		return fmt.Errorf("the error does not name the state: %w", err)
	}
	return nil
}

// failedSyncs counts failed syncs of what a later Sync vouches for.
func (r *faultRun) failedSyncs() int {
	n := 0
	for _, op := range r.inj.Failed() {
		if op.Kind == faultfs.Sync && strings.HasPrefix(filepath.Base(op.Path), "wal.") {
			n++
		}
	}
	return n
}

func (r *faultRun) step(s step) error {
	committing := s.do == doEvent && !s.view && (!s.traps || r.in.Mode() == mmrun.Continuous)
	if s.view && r.in.Mode() == mmrun.Continuous {
		return nil
	}
	for try := 0; ; try++ {
		if try == 2 {
			r.inj.Heal()
		}
		target := r.acked
		if committing {
			target++
		}
		err := r.attempt(s)
		if r.in == nil || r.ended {
			return err
		}
		// A growth that failed is -1 to the guest, and what it stores then is out of bounds.
		grown := slices.ContainsFunc(s.calls, func(c guestCall) bool { return c.name == "grow" })
		trap := err != nil && grown && r.faulty() && strings.Contains(err.Error(), "out of bounds")
		if trap && r.in.Mode() == mmrun.Continuous {
			return r.endWithTrap()
		}
		switch {
		case r.die && !r.dead && r.faulty():
			// The process dies now, at the latest: whatever it still did can have been lost on the
			// way.
			r.dead = true
			if err == nil {
				r.acked = target
			}
			if err := r.reopen(err != nil && committing); err != nil || r.ended ||
				r.acked == target {
				return err
			}
			continue
		case err == nil:
			if got := r.in.Seq(); got != target {
				return fmt.Errorf("commit %d, want %d", got, target)
			}
			r.acked = target
			if s.do == doSync || s.do == doCheckpoint || committing &&
				r.policy == mmrun.SyncAlways {
				if s.do == doSync && r.in.Mode() == mmrun.Atomic && r.failedSyncs() > r.synced {
					return errors.New("a sync was acknowledged after one had failed")
				}
				r.isDurable()
			}
			return nil
		}
		if !trap {
			if err := r.clear(err); err != nil {
				return err
			}
		}
		if errors.Is(storeOf(r.in).Usable(), mmrun.ErrPoisoned) {
			r.poisoned = true
			if err := r.checkPoisoned(); err != nil {
				return err
			}
			if err := r.reopen(committing); err != nil || r.ended {
				return err
			}
			if committing && r.acked == target {
				return nil
			}
			continue
		}
		if s.do == doSync {
			return fmt.Errorf("a failed sync has not poisoned the instance: %w", err)
		}
		if got := r.in.Seq(); got != r.acked {
			return fmt.Errorf("commit %d after a failed event, want %d", got, r.acked)
		}
		if err := checkState(r.in, r.want); err != nil {
			return fmt.Errorf("after a failed event: %w", err)
		}
		if try == 2 {
			return fmt.Errorf("on a sound disk: %w", err)
		}
	}
}

// endWithTrap ends a run in which a fault made a continuous event trap: what it did is the state
// now, and not that of the twin.
func (r *faultRun) endWithTrap() error {
	r.ended = true
	before, err := digestOf(r.in)
	if err != nil {
		return err
	}
	seq := r.in.Seq()
	if err := r.in.Close(bg); err != nil {
		if err := r.clear(err); err != nil {
			return err
		}
	}
	r.inj.Heal()
	if r.in, err = r.m.open(r.dir, r.fs, false, withBootID(bootOfWorkload)); err != nil {
		return err
	}
	if after, err := digestOf(r.in); err != nil || after != before || r.in.Seq() != seq {
		return fmt.Errorf("after a trap, commit %d came back for %d, with the same content: %t, %v",
			r.in.Seq(), seq, after == before, err)
	}
	return nil
}

// attempt does a step once. Reopenings try as often as they need.
func (r *faultRun) attempt(s step) error {
	switch s.do {
	case doEvent, doSync, doCheckpoint:
		return runStep(r.in, s)
	case doKill:
		abandon(r.in)
		return r.open(0)
	default:
		err := r.in.Close(bg)
		if err != nil {
			if err := r.clear(err); err != nil {
				return err
			}
		} else {
			r.isDurable()
		}
		mode := s.mode
		if err != nil && mode != 0 {
			// Only what was closed cleanly can be converted.
			r.inj.Heal()
			if err := r.open(0); err != nil {
				return err
			}
			if err := r.in.Close(bg); err != nil {
				return err
			}
		}
		return r.open(mode)
	}
}

// checkPoisoned holds that nothing is accepted any more.
func (r *faultRun) checkPoisoned() error {
	if err := r.in.Sync(bg); !errors.Is(err, mmrun.ErrPoisoned) {
		return fmt.Errorf("sync of a poisoned instance: %v", err)
	}
	if err := r.in.Checkpoint(bg); !errors.Is(err, mmrun.ErrPoisoned) {
		return fmt.Errorf("checkpoint of a poisoned instance: %v", err)
	}
	if _, err := r.in.Call(bg, "one", 0, 0); !errors.Is(err, mmrun.ErrPoisoned) {
		return fmt.Errorf("event on a poisoned instance: %v", err)
	}
	return nil
}

// parallel runs check for 1 to n on as many goroutines as there are processors, each with a machine
// and a directory of its own, and stops at the fifth error.
func parallel(t *testing.T, n int, check func(m *machine, dir string, k int) error) {
	t.Helper()
	for _, err := range parallelErrors(t, n, 5, check) {
		t.Error(err)
	}
}

func parallelErrors(t *testing.T, n, most int, check func(m *machine, dir string,
	k int) error) (errs []error) {
	t.Helper()
	scratch := scratch.Dir(t)
	var next atomic.Int64
	var mu sync.Mutex
	enough := func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(errs) >= most
	}
	var workers sync.WaitGroup
	for w := range runtime.GOMAXPROCS(0) {
		m := newMachine(t)
		workers.Go(func() {
			for !enough() {
				k := int(next.Add(1))
				if k > n {
					return
				}
				dir := filepath.Join(scratch, fmt.Sprintf("%d-%d", w, k))
				err := os.Mkdir(dir, 0o777)
				if err == nil {
					err = check(m, dir, k)
				}
				if err != nil {
					mu.Lock()
					errs = append(errs, err)
					mu.Unlock()
				}
				_ = os.RemoveAll(dir)
			}
		})
	}
	workers.Wait()
	return errs
}

type workload struct {
	name   string
	mode   mmrun.Mode
	policy mmrun.SyncPolicy
	steps  []step
}

func faultWorkloads() []workload {
	return []workload{
		{"atomic", mmrun.Atomic, mmrun.SyncNever, atomicSteps()},
		{"atomic, sync always", mmrun.Atomic, mmrun.SyncAlways, smallSteps()},
		{"continuous", mmrun.Continuous, mmrun.SyncNever, continuousSteps()},
		{"conversions", mmrun.Atomic, mmrun.SyncNever, conversionSteps()},
	}
}

// operations lists what a workload does when nothing fails.
func operations(t *testing.T, w workload, want []digest) []faultfs.Kind {
	t.Helper()
	var mu sync.Mutex
	var kinds []faultfs.Kind
	fsys := faultfs.Wrap(vfs.OS, func(op *faultfs.Op, do func() error) error {
		if op.Kind != faultfs.Unmap {
			mu.Lock()
			kinds = append(kinds, op.Kind)
			mu.Unlock()
		}
		return do()
	})
	r := &faultRun{m: newMachine(t), dir: filepath.Join(scratch.Dir(t), "s"), fs: fsys,
		inj:  faultfs.NewInjector(0, faultfs.EIO, false),
		mode: w.mode, policy: w.policy, steps: w.steps, want: want}
	if err := r.run(); err != nil {
		t.Fatalf("without a fault: %v", err)
	}
	return kinds
}

func TestEachOperationFails(t *testing.T) {
	faults := []struct {
		fault   faultfs.Fault
		forever bool
	}{
		{faultfs.EIO, false}, {faultfs.EIO, true}, {faultfs.ENOSPC, false}, {faultfs.Short,
			false}, {faultfs.After, false},
	}
	if testing.Short() {
		faults = faults[:2]
	}
	for _, w := range faultWorkloads() {
		t.Run(w.name, func(t *testing.T) {
			start := time.Now()
			m := newMachine(t)
			want := predict(t, m.rt, m.wasm, w.mode, w.steps)
			ops := operations(t, w, want)
			var runs, poisoned, torn atomic.Int64
			for _, f := range faults {
				parallel(t, len(ops), func(m *machine, dir string, k int) error {
					if f.fault == faultfs.Short && ops[k-1] != faultfs.WriteAt {
						return nil
					}
					inj := faultfs.NewInjector(k, f.fault, f.forever)
					r := &faultRun{m: m, dir: filepath.Join(dir, "s"),
						fs: faultfs.Wrap(vfs.OS, inj.Layer), inj: inj,
						mode: w.mode, policy: w.policy, steps: w.steps, want: want}
					err := r.run()
					if !r.faulty() { // the order of what runs side by side is not always the same
						return err
					}
					if err != nil {
						op := inj.Failed()[0]
						return fmt.Errorf("operation %d (%v): %v, forever %t: %w", k, &op, f.fault,
							f.forever, err)
					}
					runs.Add(1)
					if r.poisoned {
						poisoned.Add(1)
					}
					if r.torn {
						torn.Add(1)
					}
					return nil
				})
			}
			t.Logf("%d operations, failed one by one in %d runs: %d poisoned the instance, %d "+
				"left a torn state that was refused, %.1fs",
				len(ops), runs.Load(), poisoned.Load(), torn.Load(), time.Since(start).Seconds())
		})
	}
}

// ackCuts cuts the power whenever something is acknowledged as durable after a fault.
type ackCuts struct {
	rec  *faultfs.Recorder
	rnd  *rand.Rand
	jobs []cutJob
}

func newAckCuts(root string) (*ackCuts, error) {
	rec, err := faultfs.NewRecorder(root)
	if err != nil {
		return nil, err
	}
	rec.Coarse = true
	return &ackCuts{rec: rec, rnd: rand.New(rand.NewPCG(1, 2))}, nil
}

func (a *ackCuts) durable(seq uint64) {
	a.rec.Before = func(*faultfs.Op) {
		images := []*faultfs.Image{a.rec.CutNothing()}
		if a.rnd.IntN(4) == 0 {
			images = append(images, a.rec.CutRandom(a.rnd))
		}
		for _, im := range images {
			a.jobs = append(a.jobs, cutJob{image: im, bounds: bounds{floor: seq, started: seq},
				at: fmt.Sprintf("after commit %d", seq)})
		}
	}
	a.rec.Point()
	a.rec.Before = nil
}

// check opens the images.
func (a *ackCuts) check(m *machine, work string, want []digest) (int, error) {
	c := &checker{m: m, want: want, boot: bootAfterCut, work: work}
	seen := make(map[cutKey]bool)
	for _, j := range a.jobs {
		key := cutKey{hash: j.image.Hash(), floor: j.floor}
		if seen[key] {
			continue
		}
		seen[key] = true
		if _, err := c.check(j, want); err != nil {
			return c.n, fmt.Errorf("power cut %s (%s): %w", j.at, j.image.Plan, err)
		}
	}
	return c.n, nil
}

// eachOperation is 1 to ops, or with -short a tenth of that.
func eachOperation(ops int) []int {
	every := 1
	if testing.Short() {
		every = 10
	}
	var ks []int
	for k := 1; k <= ops; k += every {
		ks = append(ks, k)
	}
	return ks
}

// TestKillAtEachOperationThenPowerCut lets a process die at each operation and another one go on
// from the page cache. What that one acknowledges as durable must be so, also where it rests on
// what the first one has written and never synced.
func TestKillAtEachOperationThenPowerCut(t *testing.T) {
	testWithCuts(t, eachOperation, killAt)
}

// killAt makes the process die at the k-th operation.
func killAt(k int, r *faultRun, cuts *ackCuts) {
	r.inj = faultfs.NewInjector(k, faultfs.EIO, true)
	r.die = true
	r.fs = faultfs.Wrap(cuts.rec.FS(), r.inj.Layer)
}

// TestFailedSyncIsNeverTrusted fails each sync as Linux does: the pages are lost, and the kernel
// takes them for clean, so that a later sync succeeds without writing them.
func TestFailedSyncIsNeverTrusted(t *testing.T) {
	testWithCuts(t, eachOperation, func(k int, r *faultRun, cuts *ackCuts) {
		// The recorder fails the sync, and the injector, which is not armed, only counts.
		r.inj = faultfs.NewInjector(0, faultfs.EIO, false)
		r.fs = faultfs.Wrap(cuts.rec.FS(), r.inj.Layer)
		count := 0
		cuts.rec.FailSync = func(op *faultfs.Op) error {
			if count++; count == k {
				r.inj.Note(op)
				return syscall.EIO
			}
			return nil
		}
	})
}

func testWithCuts(t *testing.T, choose func(ops int) []int,
	prepare func(k int, r *faultRun, cuts *ackCuts)) {
	for _, w := range faultWorkloads() {
		t.Run(w.name, func(t *testing.T) {
			start := time.Now()
			m := newMachine(t)
			want := predict(t, m.rt, m.wasm, w.mode, w.steps)
			ks := choose(len(operations(t, w, want)))
			var runs, images atomic.Int64
			parallel(t, len(ks), func(m *machine, dir string, i int) error {
				n, err := runWithCuts(m, dir, w, want,
					func(r *faultRun, cuts *ackCuts) {
						prepare(ks[i-1], r, cuts)
					})
				if n > 0 {
					runs.Add(1)
					images.Add(int64(n))
				}
				return err
			})
			t.Logf("%d runs, %d images opened, %.1fs", runs.Load(), images.Load(),
				time.Since(start).Seconds())
		})
	}
}

// runWithCuts runs a workload with the fault that prepare arranges, and returns how many images
// were opened, 0 if the fault has not happened.
func runWithCuts(m *machine, dir string, w workload, want []digest,
	prepare func(r *faultRun, cuts *ackCuts)) (images int, err error) {
	root, work := filepath.Join(dir, "w"), filepath.Join(dir, "images")
	for _, d := range []string{root, work} {
		if err := os.Mkdir(d, 0o777); err != nil {
			return 0, err
		}
	}
	cuts, err := newAckCuts(root)
	if err != nil {
		return 0, err
	}
	defer cuts.rec.Close()
	r := &faultRun{m: m, dir: filepath.Join(root, "s"), mode: w.mode, policy: w.policy,
		steps: w.steps, want: want,
		durable: cuts.durable}
	prepare(r, cuts)
	err = r.run()
	if !r.faulty() {
		return 0, err
	}
	if err == nil {
		images, err = cuts.check(m, work, want)
	}
	if err != nil {
		op := r.inj.Failed()[0]
		return images, fmt.Errorf("%v: %w", &op, err)
	}
	return images, nil
}

// TestDamagedPageGetsNoNewSum flips a bit of a page in the file that a record changes in another
// place. Taken as it is, the page would get a checksum that fits the damage.
func TestDamagedPageGetsNoNewSum(t *testing.T) {
	const page = 3 * 4096
	for _, during := range []string{"recovery", "checkpoint"} {
		t.Run(during, func(t *testing.T) {
			m, dir := newMachine(t), filepath.Join(scratch.Dir(t), "s")
			in, err := m.open(dir, vfs.OS, true)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { abandon(in) }()
			err = runEvent(in, event("a store", do("one", page, 1)), nil)
			if err == nil {
				err = in.Checkpoint(bg)
			}
			if err == nil {
				err = runEvent(in, event("another one", do("one", page+8, 2)), nil)
			}
			if err != nil {
				t.Fatal(err)
			}
			memory, err := os.OpenFile(filepath.Join(dir, statedir.MemoryName), os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer memory.Close()
			if _, err := memory.WriteAt([]byte{4}, page+100); err != nil {
				t.Fatal(err)
			}
			if during == "checkpoint" {
				if err := in.Checkpoint(bg); !errors.Is(err, mmrun.ErrPoisoned) ||
					!errors.Is(err, pagefile.ErrChecksum) {
					t.Errorf("checkpoint over a damaged page: %v", err)
				}
			}
			abandon(in)
			if _, err := m.open(dir, vfs.OS, false); !errors.Is(err, mmrun.ErrCorrupt) {
				t.Errorf("recovery over a damaged page: %v", err)
			}
		})
	}
}

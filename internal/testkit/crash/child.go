package crash

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"os"
	"runtime/debug"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/mmrun/mmrun"
)

// childEnv holds the Child of a process that is one.
const childEnv = "MMRUN_CRASH_CHILD"

// Child is what the process that will be killed does: it opens a state and applies events to it,
// without end.
type Child struct {
	Guest       string
	WasmFile    string // the guest
	Dir         string // of the state
	CacheDir    string // of compiled code
	Seed        uint64 // of the stream of events
	OnlyCommits bool
	Next        uint64 // number of the first event

	Mode    mmrun.Mode
	Sync    string // as mmrun.ParseSync reads it
	WALSize int64
	Tracker mmrun.Tracker

	// How often, out of 1000 events, something else is done before one. ActSeed makes the choice.
	ActSeed                                   uint64
	Views, Checkpoints, Folds, Reopens, Syncs int
	// PauseAfter is the number of events after which the child waits to be killed; 0 for never.
	PauseAfter uint64
	// Long makes it go on, instead of waiting, with an event that does not end: "spin" is a guest's
	// loop of stores, "host" calls the guest again and again.
	Long string
}

// Phase is what a child is about to do. It says so before it does it.
type Phase byte

const (
	Opening    Phase = iota + 1 // a state, recovery included
	Opened                      // Seq tells where the state stands
	Acked                       // event N is over, and Seq is that of the last commit
	Checkpoint                  // nothing else runs meanwhile
	Folding                     // a checkpoint, and events go on meanwhile
	Folded                      // a checkpoint is over
	Closing
	Paused  // does nothing
	Inside  // in the middle of an event, after some stores
	Looping // about to begin an event that does not end
)

func (p Phase) String() string {
	names := [...]string{"starting", "opening", "opened", "acked", "checkpoint", "folding",
		"folded", "closing", "paused", "inside", "looping"}
	return names[p]
}

// Report is what a child says over its pipe.
type Report struct {
	Phase   Phase
	Failed  bool   // Acked: the event was rolled back
	N       uint64 // Acked, Inside: number of the event
	Seq     uint64 // Opened, Acked
	Answers uint64 // Acked: digest of what the guest answered
}

// reportSize is less than what a pipe takes whole (PIPE_BUF), so a kill cannot cut a report.
const reportSize = 32

func (r Report) encode() []byte {
	b := make([]byte, reportSize)
	b[0] = byte(r.Phase)
	if r.Failed {
		b[1] = 1
	}
	binary.LittleEndian.PutUint64(b[8:], r.N)
	binary.LittleEndian.PutUint64(b[16:], r.Seq)
	binary.LittleEndian.PutUint64(b[24:], r.Answers)
	return b
}

func decodeReport(b []byte) Report {
	return Report{Phase: Phase(b[0]), Failed: b[1] == 1, N: binary.LittleEndian.Uint64(b[8:]),
		Seq: binary.LittleEndian.Uint64(b[16:]), Answers: binary.LittleEndian.Uint64(b[24:])}
}

// RunChild does not return in a process that was started as a child. Call it first in TestMain.
func RunChild() {
	config, ok := os.LookupEnv(childEnv)
	if !ok {
		return
	}
	debug.SetTraceback("all")
	// The parent holds the other end of standard input: when it is gone, so is the child.
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	var c Child
	err := json.Unmarshal([]byte(config), &c)
	if err == nil {
		err = c.run()
	}
	fmt.Fprintln(os.Stderr, "child:", err)
	os.Exit(1)
}

// reportsFD is where a child finds its pipe.
const reportsFD = 3

// running is a child that runs.
type running struct {
	Child
	reports  *os.File
	cache    wazero.CompilationCache
	workload Workload
	options  []mmrun.Option
	rt       wazero.Runtime
	in       *mmrun.Instance
	folding  chan error // nil when there is no checkpoint in the background
}

// run ends with an error or not at all.
func (c Child) run() error {
	r := running{Child: c, reports: os.NewFile(reportsFD, "reports")}
	wasm, err := os.ReadFile(c.WasmFile)
	if err != nil {
		return err
	}
	if r.cache, err = wazero.NewCompilationCacheWithDir(c.CacheDir); err != nil {
		return err
	}
	r.workload = Workload{Guest: c.Guest, Wasm: wasm, Seed: c.Seed, OnlyCommits: c.OnlyCommits}
	if r.options, err = c.openOptions(); err != nil {
		return err
	}
	ctx := context.Background()
	if err := r.open(ctx); err != nil {
		return err
	}
	act := mathrand.New(mathrand.NewPCG(c.ActSeed, 0))
	for n := c.Next; c.PauseAfter == 0 || n < c.Next+c.PauseAfter; n++ {
		if err := r.act(ctx, act, n); err != nil {
			return fmt.Errorf("before event %d: %w", n, err)
		}
		if err := r.event(ctx, n); err != nil {
			return fmt.Errorf("event %d: %w", n, err)
		}
	}
	if c.Long != "" {
		return r.long(ctx, c.Next+c.PauseAfter)
	}
	r.report(Report{Phase: Paused})
	select {}
}

func (c Child) openOptions() ([]mmrun.Option, error) {
	sync, err := mmrun.ParseSync(c.Sync)
	return []mmrun.Option{mmrun.WithMode(c.Mode), mmrun.WithSync(sync),
		mmrun.WithWALSize(c.WALSize), mmrun.WithTracker(c.Tracker),
		mmrun.WithModuleConfig(ModuleConfig())}, err
}

// report returns when the kernel has the report: no kill can take it back.
func (r *running) report(rep Report) {
	if _, err := r.reports.Write(rep.encode()); err != nil {
		os.Exit(0) // the parent is gone
	}
}

func (r *running) open(ctx context.Context) error {
	r.report(Report{Phase: Opening})
	var err error
	if r.rt, err = NewRuntime(ctx, r.cache); err != nil {
		return err
	}
	if r.in, err = mmrun.Open(ctx, r.rt, r.Dir, r.workload.Wasm, r.options...); err != nil {
		return err
	}
	r.report(Report{Phase: Opened, Seq: r.in.Seq()})
	return nil
}

// act does something that is no event and leaves the state as it is.
func (r *running) act(ctx context.Context, rnd *mathrand.Rand, n uint64) error {
	chosen := func(per1000 int) bool { return rnd.IntN(1000) < per1000 }
	if r.folding != nil {
		select {
		case err := <-r.folding:
			r.folding = nil
			if err != nil {
				return err
			}
			r.report(Report{Phase: Folded})
		default:
		}
	}
	if chosen(r.Views) {
		// may trap, as any event
		_ = View(ctx, r.in, r.workload.Event(rnd.Uint64(), r.in.Stats().MemoryBytes))
	}
	if chosen(r.Syncs) {
		if err := r.in.Sync(context.Background()); err != nil {
			return err
		}
	}
	if r.folding == nil && chosen(r.Folds) {
		r.report(Report{Phase: Folding})
		r.folding = make(chan error, 1)
		go func(in *mmrun.Instance, done chan<- error) {
			done <- in.Checkpoint(context.Background())
		}(r.in, r.folding)
	}
	if chosen(r.Checkpoints) {
		r.report(Report{Phase: Checkpoint})
		if err := r.in.Checkpoint(context.Background()); err != nil {
			return err
		}
		r.report(Report{Phase: Folded})
	}
	if chosen(r.Reopens) {
		return r.reopen(ctx)
	}
	return nil
}

func (r *running) reopen(ctx context.Context) error {
	if r.folding != nil {
		err := <-r.folding
		r.folding = nil
		if err != nil {
			return err
		}
	}
	r.report(Report{Phase: Closing})
	if err := errors.Join(r.in.Close(ctx), r.rt.Close(ctx)); err != nil {
		return err
	}
	return r.open(ctx)
}

// event does event n and acknowledges it.
func (r *running) event(ctx context.Context, n uint64) error {
	e := r.workload.Event(n, r.in.Stats().MemoryBytes)
	answers, err := Do(ctx, r.in, e, n%2 == 0)
	failed := err != nil
	switch {
	case failed && e.End == Commits, !failed && e.End != Commits && e.End != MayTrap:
		return fmt.Errorf("%v: ended with %v", e, err)
	case errors.Is(err, mmrun.ErrPoisoned):
		return err
	}
	r.report(Report{Phase: Acked, N: n, Seq: r.in.Seq(), Failed: failed, Answers: answers})
	return nil
}

// long does an event that never ends.
func (r *running) long(ctx context.Context, n uint64) error {
	switch r.Long {
	case "spin":
		r.report(Report{Phase: Looping, N: n})
		_, err := r.in.Call(ctx, "spin_storing")
		return fmt.Errorf("spin_storing has returned: %w", err)
	case "host":
		return r.in.Update(ctx, func(tx *mmrun.Tx) error {
			for i := uint64(0); ; i++ {
				if _, err := tx.Call(ctx, "store", i*4096%(1<<20), i); err != nil {
					return err
				}
				if i == 20 {
					r.report(Report{Phase: Inside, N: n})
				}
			}
		})
	}
	return fmt.Errorf("no long event %q", r.Long)
}

// errRefused is what an event's function returns, or panics with, to undo what it did.
var errRefused = errors.New("undo this event")

// Do does one event on a state, by Instance.Call if that is possible and wanted.
func Do(ctx context.Context, in *mmrun.Instance, e Event, byCall bool) (answers uint64, err error) {
	if byCall && len(e.Steps) == 1 && e.Steps[0].Func != "" && e.Meta == nil && e.End != Refused &&
		e.End != Panics {
		return Run(caller{ctx, in}, e)
	}
	return group(ctx, in.Update, e)
}

// View does what an event would do in a query.
func View(ctx context.Context, in *mmrun.Instance, e Event) error {
	_, err := group(ctx, in.View, e)
	return err
}

// group does an event under Update or View.
func group(ctx context.Context, under func(context.Context, func(*mmrun.Tx) error) error,
	e Event) (answers uint64, err error) {
	defer func() {
		if e.End != Panics {
			return
		}
		if r := recover(); r != errRefused {
			panic(r)
		}
		err = errRefused
	}()
	err = under(ctx, func(tx *mmrun.Tx) error {
		if e.Meta != nil {
			tx.SetMeta(e.Meta)
		}
		var err error
		answers, err = Run(machine{ctx, tx}, e)
		switch e.End {
		case Refused:
			return errors.Join(err, errRefused)
		case Panics:
			panic(errRefused)
		}
		return err
	})
	return answers, err
}

// machine is an event in progress as a Machine.
type machine struct {
	ctx context.Context
	tx  *mmrun.Tx
}

func (m machine) Memory() api.Memory { return m.tx.Memory() }

func (m machine) Call(name string, params ...uint64) ([]uint64, error) {
	results, err := m.tx.Call(m.ctx, name, params...)
	if err != nil {
		return nil, err
	}
	return Mask(results, m.tx.Function(name).Definition().ResultTypes()), nil
}

// caller is an instance as a Machine for events of one call.
type caller struct {
	ctx context.Context
	in  *mmrun.Instance
}

func (c caller) Memory() api.Memory { return nil }

func (c caller) Call(name string, params ...uint64) ([]uint64, error) {
	results, err := c.in.Call(c.ctx, name, params...)
	if err != nil {
		return nil, err
	}
	return Mask(results, c.in.Functions()[name].ResultTypes()), nil
}

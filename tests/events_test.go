package tests

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/internal/testkit/guests"
	"github.com/mmrun/mmrun/vfs"
	"github.com/mmrun/mmrun/vfs/faultfs"
)

// How the guest "endings" ends a step by itself.
const (
	returns = iota
	traps
	exits0
	exits7
	growsAndTraps
	asTheHostSays // what the table gives
)

// endings is an instance of the guest of that name, and what its host function does.
type endings struct {
	t     *testing.T
	in    *mmrun.Instance
	typed mmrun.TypedFunc[int32, int32, mmrun.None, mmrun.None]
	host  func(ctx context.Context)
	dir   string
	seq   uint64
	count int32 // of steps that were committed
}

func newEndings(t *testing.T, config wazero.RuntimeConfig, opts ...mmrun.Option) *endings {
	e := &endings{t: t, dir: filepath.Join(t.TempDir(), "s")}
	rt := wazero.NewRuntimeWithConfig(ctx, config)
	t.Cleanup(func() { rt.Close(ctx) })
	wasi_snapshot_preview1.MustInstantiate(ctx, rt)
	_, err := rt.NewHostModuleBuilder("env").NewFunctionBuilder().
		WithFunc(func(ctx context.Context, how int32) {
			if how == asTheHostSays {
				e.host(ctx)
			}
		}).Export("end").Instantiate(ctx)
	if err != nil {
		t.Fatal(err)
	}
	m, err := mmrun.Compile(ctx, rt, guests.Load(t, "endings"))
	if err != nil {
		t.Fatal(err)
	}
	if e.in, err = m.Open(ctx, e.dir, opts...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.in.Close(ctx) })
	if e.typed, err = mmrun.Func1[int32, int32](m, "step"); err != nil {
		t.Fatal(err)
	}
	e.seq = e.in.Seq()
	return e
}

// want holds the instance against what was committed, and has it do one more step.
func (e *endings) want() {
	e.t.Helper()
	if got := e.in.Seq(); got != e.seq {
		e.t.Fatalf("commit %d, want %d", got, e.seq)
	}
	for range 2 {
		got, err := e.in.Call(ctx, "get")
		if err != nil || int32(got[0]) != e.count {
			e.t.Fatalf("get gives %v, %v after %d committed steps", got, err, e.count)
		}
		e.seq++
		e.mustStep()
	}
}

func (e *endings) mustStep() {
	e.t.Helper()
	if _, err := e.in.Call(ctx, "step", returns); err != nil {
		e.t.Fatal(err)
	}
	e.count++
	e.seq++
}

// entry is a way to make an event. how is the parameter of step; fn is what an Update or View does
// behind the call, nil for nothing.
type entry struct {
	name  string
	hasFn bool
	view  bool
	run   func(ctx context.Context, e *endings, how int, fn func(*mmrun.Tx) error) error
}

var entries = []entry{
	{"Call", false, false,
		func(ctx context.Context, e *endings, how int, _ func(*mmrun.Tx) error) error {
			_, err := e.in.Call(ctx, "step", uint64(how))
			return err
		}},
	{"typed call", false, false,
		func(ctx context.Context, e *endings, how int, _ func(*mmrun.Tx) error) error {
			_, err := e.typed.Call(ctx, e.in, int32(how), mmrun.None{}, mmrun.None{})
			return err
		}},
	{"Update", true, false,
		func(ctx context.Context, e *endings, how int, fn func(*mmrun.Tx) error) error {
			return e.in.Update(ctx, body(ctx, how, fn))
		}},
	{"View", true, true,
		func(ctx context.Context, e *endings, how int, fn func(*mmrun.Tx) error) error {
			return e.in.View(ctx, body(ctx, how, fn))
		}},
	{"typed in Update", true, false,
		func(ctx context.Context, e *endings, how int, fn func(*mmrun.Tx) error) error {
			return e.in.Update(ctx, func(tx *mmrun.Tx) error {
				if _, err := e.typed.In(ctx, tx, int32(how), mmrun.None{},
					mmrun.None{}); err != nil {
					return err
				}
				return fn(tx)
			})
		}},
}

func body(ctx context.Context, how int, fn func(*mmrun.Tx) error) func(*mmrun.Tx) error {
	return func(tx *mmrun.Tx) error {
		if _, err := tx.Call(ctx, "step", uint64(how)); err != nil {
			return err
		}
		return fn(tx)
	}
}

var errGivenUp = errors.New("given up")

// However an event ends, it is committed whole or not at all.
func TestEventIsCommittedWholeOrNotAtAll(t *testing.T) {
	nothing := func(*mmrun.Tx) error { return nil }
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	endingsOf := []struct {
		name    string
		needsFn bool
		how     int
		host    func(ctx context.Context, cancel func())
		fn      func(cancel func()) func(*mmrun.Tx) error
		ctx     context.Context // nil: one that cancel ends
		commits bool            // unless it is a view
		is      error           // what the error wraps, if it is known
	}{
		{name: "return", how: returns, commits: true},
		{name: "error", needsFn: true, how: returns, is: errGivenUp,
			fn: func(func()) func(*mmrun.Tx) error {
				return func(*mmrun.Tx) error { return errGivenUp }
			}},
		{name: "swallowed trap", needsFn: true, how: returns, is: mmrun.ErrTrap,
			fn: func(func()) func(*mmrun.Tx) error {
				return func(tx *mmrun.Tx) error {
					_, _ = tx.Call(ctx, "step", traps)
					return nil
				}
			}},
		{name: "trap", how: traps, is: mmrun.ErrTrap},
		{name: "growth and trap", how: growsAndTraps, is: mmrun.ErrTrap},
		{name: "proc_exit(0)", how: exits0},
		{name: "proc_exit(7)", how: exits7},
		{name: "panic in fn", needsFn: true, how: returns,
			fn: func(func()) func(*mmrun.Tx) error {
				return func(*mmrun.Tx) error { panic("in fn") }
			}},
		{name: "Goexit in fn", needsFn: true, how: returns,
			fn: func(func()) func(*mmrun.Tx) error {
				return func(*mmrun.Tx) error { runtime.Goexit(); return nil }
			}},
		{name: "panic in a host function", how: asTheHostSays,
			host: func(context.Context, func()) { panic("in a host function") }},
		{name: "Goexit in a host function", how: asTheHostSays,
			host: func(context.Context, func()) { runtime.Goexit() }},
		{name: "context ended before", how: returns, ctx: canceled, is: context.Canceled},
		{name: "context ended during", how: asTheHostSays, is: context.Canceled,
			host: func(_ context.Context, cancel func()) { cancel() }},
		{name: "context ended at the end", needsFn: true, how: returns, is: context.Canceled,
			fn: func(cancel func()) func(*mmrun.Tx) error {
				return func(*mmrun.Tx) error { cancel(); return nil }
			}},
		{name: "module closed by a host function", how: asTheHostSays,
			host: func(ctx context.Context, _ func()) {
				mmrun.TxFrom(ctx).Module().Close(ctx)
			}},
	}
	for _, engine := range []struct {
		name   string
		config wazero.RuntimeConfig
	}{
		{"compiler", wazero.NewRuntimeConfig()},
		{"compiler that watches contexts", wazero.NewRuntimeConfig().WithCloseOnContextDone(true)},
		{"interpreter", wazero.NewRuntimeConfigInterpreter()},
	} {
		for _, entry := range entries {
			t.Run(engine.name+"/"+entry.name, func(t *testing.T) {
				e := newEndings(t, engine.config)
				e.want()
				for _, x := range endingsOf {
					if x.needsFn && !entry.hasFn {
						continue
					}
					ended, cancel := context.WithCancel(ctx)
					if x.ctx != nil {
						ended = x.ctx
					}
					fn := nothing
					if x.fn != nil {
						fn = x.fn(cancel)
					}
					e.host = func(ctx context.Context) { x.host(ctx, cancel) }
					err, returned := onAnotherGoroutine(func() error {
						return entry.run(ended, e, x.how, fn)
					})
					cancel()
					switch {
					case x.commits && (err != nil || !returned):
						t.Errorf("%s: %v", x.name, err)
					case !x.commits && returned && err == nil &&
						x.name != "module closed by a host function":
						t.Errorf("%s: no error", x.name)
					case x.is != nil && !errors.Is(err, x.is):
						t.Errorf("%s: the error is %v, which does not wrap %v", x.name, err, x.is)
					}
					if x.commits && !entry.view {
						e.seq++
						e.count++
					} else if returned && err == nil && !entry.view {
						e.seq++ // the host has closed the module, and the step came to its end
						e.count++
					}
					t.Log(x.name)
					e.want()
				}
			})
		}
	}
}

// onAnotherGoroutine runs f where a panic and a Goexit can be told from a return.
func onAnotherGoroutine(f func() error) (err error, returned bool) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			if r := recover(); r != nil {
				err = fmt.Errorf("panic: %v", r)
			}
		}()
		err = f()
		returned = true
	}()
	<-done
	return err, returned
}

// A panic inside a commit, before the record is in the log, undoes the event.
func TestPanicInsideCommit(t *testing.T) {
	var armed atomic.Bool
	layer := faultfs.Wrap(vfs.OS, func(op *faultfs.Op, do func() error) error {
		// For the record alone: a segment that grows in the background does not get so large.
		grows := op.Kind == faultfs.Allocate && op.Length > 1<<19
		if grows && strings.Contains(op.Path, "wal.") && armed.Swap(false) {
			panic("inside a commit")
		}
		return do()
	})
	e := newEndings(t, wazero.NewRuntimeConfig(), withFS(layer),
		mmrun.WithWALSize(mmrun.MinWALSize))
	e.want()
	large := make([]byte, 1<<20)
	err, returned := onAnotherGoroutine(func() error {
		return e.in.Update(ctx, func(tx *mmrun.Tx) error {
			if _, err := tx.Call(ctx, "step", returns); err != nil {
				return err
			}
			for i := range large {
				large[i] = byte(i * i >> 3)
			}
			tx.SetMeta(large)
			armed.Store(true)
			return nil
		})
	})
	if returned || armed.Load() {
		t.Fatalf("the commit did not panic: %v", err)
	}
	if len(e.in.Meta()) != 0 {
		t.Error("the user's bytes of the event are there")
	}
	e.want()
}

// An event that waits for another gives up when its context ends, and so do Sync, Checkpoint and
// Close; Seq, Meta and Stats do not wait at all.
func TestWaitingEndsWithTheContext(t *testing.T) {
	for _, mode := range modes {
		t.Run(mode.String(), func(t *testing.T) {
			e := newEndings(t, wazero.NewRuntimeConfig(), mmrun.WithMode(mode))
			inside, goOn := make(chan struct{}), make(chan struct{})
			e.host = func(context.Context) { close(inside); <-goOn }
			var wg sync.WaitGroup
			wg.Go(func() {
				if _, err := e.in.Call(ctx, "step", asTheHostSays); err != nil {
					t.Error(err)
				}
			})
			<-inside
			nothing := func(*mmrun.Tx) error { return nil }
			waiters := map[string]func(ctx context.Context) error{
				"Call": func(ctx context.Context) error {
					_,
						err := e.in.Call(ctx, "get")
					return err
				},
				"Update":     func(ctx context.Context) error { return e.in.Update(ctx, nothing) },
				"View":       func(ctx context.Context) error { return e.in.View(ctx, nothing) },
				"Checkpoint": e.in.Checkpoint,
				"Close":      e.in.Close,
			}
			if mode == mmrun.Continuous {
				waiters["Sync"] = e.in.Sync
			}
			for name, wait := range waiters {
				// One for each: it has to end while the call waits, not before.
				short, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
				if err := wait(short); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("%s: %v", name, err)
				}
				cancel()
			}
			if got := e.in.Seq(); got != e.seq {
				t.Errorf("Seq is %d, want %d", got, e.seq)
			}
			_, _ = e.in.Meta(), e.in.Stats()
			close(goOn)
			wg.Wait()
			e.seq++
			e.count++
			e.want()
		})
	}
}

// A call from inside an event on the same instance is an error where its context tells, not a
// deadlock, and a Tx is of no use when its event is over.
func TestNestedEventsAreRefused(t *testing.T) {
	e := newEndings(t, wazero.NewRuntimeConfig())
	calls := map[string]func(ctx context.Context) error{
		"Call": func(ctx context.Context) error {
			_,
				err := e.in.Call(ctx, "get")
			return err
		},
		"Update": func(ctx context.Context) error {
			return e.in.Update(ctx,
				func(*mmrun.Tx) error { return nil })
		},
		"View": func(ctx context.Context) error {
			return e.in.View(ctx,
				func(*mmrun.Tx) error { return nil })
		},
		"Sync":       func(ctx context.Context) error { return e.in.Sync(ctx) },
		"Checkpoint": func(ctx context.Context) error { return e.in.Checkpoint(ctx) },
		"Close":      func(ctx context.Context) error { return e.in.Close(ctx) },
	}
	check := func(where string, ctx context.Context) {
		for name, call := range calls {
			if err := call(ctx); !errors.Is(err, mmrun.ErrNested) {
				t.Errorf("%s in %s: %v, want ErrNested", name, where, err)
			}
		}
		if mmrun.TxFrom(ctx) == nil {
			t.Errorf("%s: the context does not carry the event", where)
		}
	}
	var kept *mmrun.Tx
	var keptCtx context.Context
	e.host = func(ctx context.Context) {
		check("a host function", ctx)
		keptCtx = ctx
		if got := mmrun.TxFrom(ctx).Seq(); got != e.in.Seq()+1 {
			t.Errorf("the event would become commit %d after %d", got, e.in.Seq())
		}
	}
	if _, err := e.in.Call(ctx, "step", asTheHostSays); err != nil {
		t.Fatal(err)
	}
	err := e.in.Update(ctx, func(tx *mmrun.Tx) error {
		kept = tx
		check("fn", tx.Context(ctx))
		f := tx.Function("step")
		return f.CallWithStack(ctx, []uint64{asTheHostSays})
	})
	if err != nil {
		t.Fatal(err)
	}
	e.seq, e.count = e.seq+2, 2
	dead := func(tx *mmrun.Tx) {
		t.Helper()
		if _, err := tx.Call(ctx, "step", returns); !errors.Is(err, mmrun.ErrNotInEvent) {
			t.Errorf("a Tx of an event that is over: %v", err)
		}
		tx.SetMeta([]byte("from a dead event"))
		if tx.Memory() != nil || tx.Module() != nil || tx.Function("step") != nil {
			t.Error("a Tx of an event that is over gives memory, module or functions out")
		}
	}
	dead(kept)
	dead(mmrun.TxFrom(keptCtx))
	if err := e.in.Update(ctx, func(*mmrun.Tx) error { dead(kept); return nil }); err != nil {
		t.Fatal(err)
	}
	e.seq++
	if len(e.in.Meta()) != 0 {
		t.Error("a dead Tx has set the user's bytes")
	}
	e.want()
}

// OnCommit and OnRollback are called when the event is over and others may run.
func TestHooksOfAnEvent(t *testing.T) {
	e := newEndings(t, wazero.NewRuntimeConfig(), mmrun.WithSync(mmrun.SyncAlways))
	var said []string
	say := func(what string) func() {
		return func() {
			if _, err := e.in.Call(ctx, "get"); err != nil { // nobody is inside
				t.Error(err)
			}
			said = append(said, what)
		}
	}
	hooks := func(how int, err error) func(*mmrun.Tx) error {
		return func(tx *mmrun.Tx) error {
			tx.OnCommit(say("commit"))
			tx.OnRollback(say("rollback"))
			if _, err := tx.Call(ctx, "step", uint64(how)); err != nil {
				return err
			}
			return err
		}
	}
	_ = e.in.Update(ctx, hooks(returns, nil))
	_ = e.in.Update(ctx, hooks(traps, nil))
	_ = e.in.Update(ctx, hooks(returns, errGivenUp))
	_ = e.in.View(ctx, hooks(returns, nil))
	_, _ = onAnotherGoroutine(func() error {
		return e.in.Update(ctx, func(tx *mmrun.Tx) error {
			tx.OnRollback(say("unwound"))
			runtime.Goexit()
			return nil
		})
	})
	if got := fmt.Sprint(said); got != "[commit rollback rollback rollback unwound]" {
		t.Errorf("hooks: %s", got)
	}
}

// The error of an event says which function failed, where the state stands, and why.
func TestEventError(t *testing.T) {
	for _, mode := range modes {
		e := newEndings(t, wazero.NewRuntimeConfig(), mmrun.WithMode(mode))
		_, err := e.in.Call(ctx, "step", traps)
		var failed *mmrun.EventError
		if !errors.As(err, &failed) || !errors.Is(err, mmrun.ErrTrap) {
			t.Fatalf("%v is no EventError of a trap", err)
		}
		if failed.Function != "step" || failed.Seq != e.in.Seq() ||
			failed.RolledBack != (mode == mmrun.Atomic) {
			t.Errorf("%s: %+v at commit %d", mode, failed, e.in.Seq())
		}
		if _, err = e.in.Call(ctx, "step", exits7); errors.Is(err, mmrun.ErrTrap) {
			t.Errorf("an exit is called a trap: %v", err)
		}
	}
}

// What Open refuses it refuses before it touches anything.
func TestOptionsAreChecked(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "s")
	for name, opt := range map[string]mmrun.Option{
		"a nil option":      nil,
		"a nil logger":      mmrun.WithLogger(nil),
		"a nil config":      mmrun.WithModuleConfig(nil),
		"mode 99":           mmrun.WithMode(99),
		"a negative time":   mmrun.WithSync(mmrun.SyncEvery(-time.Second)),
		"no time":           mmrun.WithSync(mmrun.SyncEvery(0)),
		"a small wal":       mmrun.WithWALSize(mmrun.MinWALSize - 1),
		"a negative wal":    mmrun.WithWALSize(-1),
		"an impossible wal": mmrun.WithWALSize(1 << 62),
	} {
		if in, err := mmrun.Open(ctx, newRuntime(t), dir, guests.Load(t, "counter"),
			opt); err == nil {
			in.Close(ctx)
			t.Errorf("%s is accepted", name)
		}
		if _, err := os.Stat(dir); err == nil {
			t.Fatalf("%s: a state was created", name)
		}
	}
	if _, err := mmrun.Open(ctx, nil, dir, guests.Load(t, "counter")); err == nil {
		t.Error("a nil runtime is accepted")
	}
}

// A runtime that is closed before its instances, or a panic of the embedder's code, leaves no lock.
func TestOpenReleasesEverything(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "s")
	rt := newRuntime(t)
	wasm := guests.Load(t, "counter")
	closeInstance(t, open(t, rt, dir, wasm))
	armed := true
	layer := faultfs.Wrap(vfs.OS, func(op *faultfs.Op, do func() error) error {
		if armed && strings.Contains(op.Path, "globals") {
			armed = false
			panic("in the file layer")
		}
		return do()
	})
	err, returned := onAnotherGoroutine(func() error {
		_, err := mmrun.Open(ctx, rt, dir, wasm, withFS(layer))
		return err
	})
	if returned {
		t.Fatalf("no panic: %v", err)
	}
	in, err := mmrun.Open(ctx, rt, dir, wasm)
	if err != nil {
		t.Fatalf("after an Open that panicked: %v", err)
	}
	rt.Close(ctx)
	if _, err := in.Call(ctx, "inc"); err == nil {
		t.Error("an event on a runtime that is closed")
	} else {
		t.Log(err)
	}
	if err := in.Close(ctx); err != nil {
		t.Error(err)
	}
	in = open(t, newRuntime(t), dir, wasm)
	if got := call(t, in, "inc"); got != 1 {
		t.Errorf("inc gives %d", got)
	}
}

package registry_test

import (
	"context"
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
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/internal/testkit/guests"
	"github.com/mmrun/mmrun/registry"
)

var ctx = context.Background()

func runtimeOf(t testing.TB) wazero.Runtime {
	t.Helper()
	rt := wazero.NewRuntime(ctx)
	t.Cleanup(func() { rt.Close(ctx) })
	if _, err := wasi_snapshot_preview1.Instantiate(ctx, rt); err != nil {
		t.Fatal(err)
	}
	return rt
}

func compile(t testing.TB, rt wazero.Runtime, guest string) *mmrun.Module {
	t.Helper()
	m, err := mmrun.Compile(ctx, rt, guests.Load(t, guest))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func open(t testing.TB, dir string, m *mmrun.Module, o registry.Options) *registry.Registry {
	t.Helper()
	r, err := registry.Open(dir, m, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func closeAll(t testing.TB, r *registry.Registry) {
	t.Helper()
	if err := r.Close(ctx); err != nil {
		t.Error(err)
	}
}

// inc is one event of a counter.
func inc(r *registry.Registry, name string) (n uint64, err error) {
	err = r.Update(ctx, name, func(tx *mmrun.Tx) error {
		results, err := tx.Call(ctx, "inc")
		if err == nil {
			n = results[0]
		}
		return err
	})
	return n, err
}

// Each name has a state of its own, whatever the name, and finds it again: with few open at a time,
// under many goroutines, and after a close.
func TestManyNamesOverFewOpenInstances(t *testing.T) {
	m := compile(t, runtimeOf(t), "counter")
	dir := t.TempDir()
	names := []string{"a", "A", "..", "/etc/passwd", "con", "com1.txt", "x.name", "~", ".hidden",
		"end.",
		"ä", "a b", "100%", "%41", strings.Repeat("long ", 100), strings.Repeat("long ", 100) +
			"!", "\x00"}
	for i := range 30 {
		names = append(names, fmt.Sprint("name ", i))
	}
	want := make([]atomic.Uint64, len(names))
	for round := range 3 {
		r := open(t, dir, m, registry.Options{MaxOpen: 5})
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				for range 200 {
					i := rand.IntN(len(names))
					_, err := inc(r, names[i])
					if errors.Is(err, registry.ErrBusy) {
						runtime.Gosched()
						continue // eight are at work, five may be open
					}
					if err != nil {
						t.Error(err)
						return
					}
					want[i].Add(1)
				}
			})
		}
		all.Wait()
		if s := r.Stats(); s.Open > 5 || s.InUse != 0 {
			t.Errorf("round %d: %+v", round, s)
		}
		for i, name := range names {
			if want[i].Load() == 0 {
				continue
			}
			err := r.View(ctx, name, func(tx *mmrun.Tx) error {
				results, err := tx.Call(ctx, "get")
				if err == nil && results[0] != want[i].Load() {
					t.Errorf("%q: %d, want %d", name, results[0], want[i].Load())
				}
				return err
			})
			if err != nil {
				t.Error(err)
			}
		}
		var listed []string
		for after := ""; ; {
			page, next, err := r.List(after, 7)
			if err != nil {
				t.Fatal(err)
			}
			if listed = append(listed, page...); next == "" {
				break
			}
			after = next
		}
		var expected []string
		for i, name := range names {
			if want[i].Load() > 0 {
				expected = append(expected, name)
			}
		}
		slices.Sort(listed)
		slices.Sort(expected)
		if !slices.Equal(listed, expected) {
			t.Errorf("listed %q\nwant %q", listed, expected)
		}
		closeAll(t, r)
	}
	entries, err := os.ReadDir(filepath.Join(dir, "modules"))
	if err != nil || len(entries) != 1 {
		t.Errorf("the module is kept %d times, %v", len(entries), err)
	}
}

func TestLimits(t *testing.T) {
	m := compile(t, runtimeOf(t), "counter")
	r := open(t, t.TempDir(), m, registry.Options{MaxOpen: 1, MaxQueue: 2, MaxInstances: 2})
	defer closeAll(t, r)
	inside, goOn := make(chan struct{}), make(chan struct{})
	var all sync.WaitGroup
	for range 2 {
		all.Go(func() {
			_ = r.Update(ctx, "x", func(*mmrun.Tx) error {
				inside <- struct{}{}
				<-goOn
				return nil
			})
		})
	}
	<-inside
	for r.Stats().Waiting < 2 {
		runtime.Gosched()
	}
	if _, err := inc(r, "x"); !errors.Is(err, registry.ErrBusy) {
		t.Errorf("a third event in a queue of two: %v", err)
	}
	if _, err := inc(r, "y"); !errors.Is(err, registry.ErrBusy) {
		t.Errorf("a second instance where one may be open: %v", err)
	}
	close(goOn)
	<-inside
	all.Wait()
	if _, err := inc(r, "y"); err != nil {
		t.Error(err)
	}
	if _, err := inc(r, "z"); !errors.Is(err, registry.ErrTooMany) {
		t.Errorf("a third instance of two: %v", err)
	}
	if exists, _ := r.Exists("z"); exists {
		t.Error("it exists all the same")
	}
	if err := r.Delete(ctx, "x"); err != nil {
		t.Error(err)
	}
	if _, err := inc(r, "z"); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"", "\xff", strings.Repeat("x", 2000)} {
		if _, err := inc(r, name); !errors.Is(err, registry.ErrName) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestCreateAndDelete(t *testing.T) {
	rt := runtimeOf(t)
	dir := t.TempDir()
	r := open(t, dir, compile(t, rt, "counter"), registry.Options{Explicit: true})
	if err := r.AddModule("types", compile(t, rt, "types")); err != nil {
		t.Fatal(err)
	}
	if _, err := inc(r, "x"); !errors.Is(err, registry.ErrNotExist) {
		t.Errorf("an event of what was not created: %v", err)
	}
	if err := r.Create(ctx, "x", ""); err != nil {
		t.Error(err)
	}
	if err := r.Create(ctx, "x", ""); !errors.Is(err, registry.ErrExists) {
		t.Errorf("created twice: %v", err)
	}
	if err := r.Create(ctx, "y", "nonsense"); !errors.Is(err, registry.ErrNoModule) {
		t.Error(err)
	}
	long := strings.Repeat("y", 300)
	if err := r.Create(ctx, long, "types"); err != nil {
		t.Error(err)
	}
	if n, err := inc(r, "x"); n != 1 || err != nil {
		t.Error(n, err)
	}
	if err := r.View(ctx, long, func(tx *mmrun.Tx) error {
		if tx.Function("inc") != nil {
			t.Error("it has the wrong module")
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	if err := r.Delete(ctx, long); err != nil {
		t.Error(err)
	}
	if err := r.Delete(ctx, long); !errors.Is(err, registry.ErrNotExist) {
		t.Error(err)
	}
	// While events run: it goes when they have ended, and the next ones find nothing.
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 100 {
				if _, err := inc(r, "x"); err != nil && !errors.Is(err, registry.ErrNotExist) {
					t.Error(err)
				}
			}
		})
	}
	if err := r.Delete(ctx, "x"); err != nil {
		t.Error(err)
	}
	all.Wait()
	if exists, _ := r.Exists("x"); exists {
		t.Error("it is there again")
	}
	// Somebody who does not come to an end keeps it, as long as the context allows.
	if err := r.Create(ctx, "x", ""); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithCancel(ctx)
	err := r.Update(ctx, "x", func(*mmrun.Tx) error {
		cancel()
		if err := r.Delete(short, "x"); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if n, err := inc(r, "x"); n != 1 || err != nil {
		t.Error(n, err)
	}
	closeAll(t, r)
	if _, err := inc(r, "x"); !errors.Is(err, registry.ErrClosed) {
		t.Error(err)
	}
	// An instance of a module that is not given any more is run with the one that was kept.
	other := compile(t, rt, "types")
	r = open(t, dir, other, registry.Options{})
	if _, err := inc(r, "x"); !errors.Is(err, registry.ErrNoModule) {
		t.Error(err)
	}
	closeAll(t, r)
	r = open(t, dir, other, registry.Options{Compile: func(ctx context.Context, wasm []byte) (
		*mmrun.Module, error) {
		return mmrun.Compile(ctx, rt, wasm)
	}})
	if n, err := inc(r, "x"); n != 2 || err != nil {
		t.Error(n, err)
	}
	closeAll(t, r)
}

// What nobody uses is closed after a while; nothing is left of it in the process.
func TestIdleInstancesAreClosed(t *testing.T) {
	m := compile(t, runtimeOf(t), "counter")
	before := runtime.NumGoroutine()
	r := open(t, t.TempDir(), m, registry.Options{Idle: time.Millisecond})
	for round := range 3 {
		for i := range 50 {
			if n, err := inc(r, fmt.Sprint(i)); err != nil || n != uint64(round+1) {
				t.Fatal(n, err)
			}
		}
		deadline := time.Now().Add(time.Minute)
		for r.Stats().Open > 0 {
			if time.Now().After(deadline) {
				t.Fatalf("%+v", r.Stats())
			}
			time.Sleep(time.Millisecond)
		}
	}
	closeAll(t, r)
	for i := 0; runtime.NumGoroutine() > before && i < 1000; i++ {
		time.Sleep(time.Millisecond)
	}
	if after := runtime.NumGoroutine(); after > before {
		t.Errorf("%d goroutines, before there were %d", after, before)
	}
}

// What a delete that was cut off has left is taken away.
func TestTrashIsEmptied(t *testing.T) {
	m := compile(t, runtimeOf(t), "counter")
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "trash", "1", "x"), 0o777); err != nil {
		t.Fatal(err)
	}
	closeAll(t, open(t, dir, m, registry.Options{}))
	if found, err := os.ReadDir(filepath.Join(dir, "trash")); err != nil || len(found) > 0 {
		t.Error(found, err)
	}
}

// BenchmarkCreate makes counters, BenchmarkActivate opens and closes them.
func BenchmarkCreate(b *testing.B) {
	r := open(b, b.TempDir(), compile(b, runtimeOf(b), "counter"),
		registry.Options{MaxOpen: 1 << 20})
	for i := 0; b.Loop(); i++ {
		if _, err := inc(r, fmt.Sprint(i)); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	closeAll(b, r)
}

func BenchmarkActivate(b *testing.B) {
	r := open(b, b.TempDir(), compile(b, runtimeOf(b), "counter"), registry.Options{MaxOpen: 50})
	const names = 500
	for i := range names {
		if _, err := inc(r, fmt.Sprint(i)); err != nil {
			b.Fatal(err)
		}
	}
	var took []time.Duration
	for i := 0; b.Loop(); i++ {
		start := time.Now()
		if _, err := inc(r, fmt.Sprint(i*7%names)); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(start))
	}
	b.StopTimer()
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
	closeAll(b, r)
}

package realguests

import (
	"path/filepath"
	"strconv"
	"testing"

	"github.com/tetratelabs/wazero"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/internal/testkit/guests"
	"github.com/mmrun/mmrun/internal/testkit/oracle"
)

// BenchmarkStart is the time from nothing to an instance that takes events, runtime and compiled
// code included: first with an empty compile cache and no state, second in a process that finds
// both on the disk. Debug sections are not read, as in the command.
func BenchmarkStart(b *testing.B) {
	for _, g := range append(allGuests(), bigGuest()) {
		b.Run("guest="+g.name, func(b *testing.B) {
			wasm := g.wasm(b)
			start := func(b *testing.B, cacheDir, state string) {
				b.Helper()
				cache, err := wazero.NewCompilationCacheWithDir(cacheDir)
				if err != nil {
					b.Fatal(err)
				}
				w := newWorld()
				rt := wazero.NewRuntimeWithConfig(ctx,
					wazero.NewRuntimeConfig().WithDebugInfoEnabled(false).
						WithCompilationCache(cache))
				if err := g.instantiateHost(rt, w); err != nil {
					b.Fatal(err)
				}
				in, err := mmrun.Open(ctx, rt, state, wasm, mmrun.WithModuleConfig(w.config()))
				if err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				if err := in.Close(ctx); err != nil {
					b.Fatal(err)
				}
				rt.Close(ctx)
				cache.Close(ctx)
				b.StartTimer()
			}
			b.Run("start=first", func(b *testing.B) {
				for i := range b.N {
					b.StopTimer()
					dir := b.TempDir()
					b.StartTimer()
					start(b, filepath.Join(dir, "cache"), filepath.Join(dir, strconv.Itoa(i)))
				}
			})
			b.Run("start=second", func(b *testing.B) {
				dir := b.TempDir()
				start(b, filepath.Join(dir, "cache"), filepath.Join(dir, "state"))
				b.ResetTimer()
				for range b.N {
					start(b, filepath.Join(dir, "cache"), filepath.Join(dir, "state"))
				}
			})
		})
	}
}

// bigGuest is a Go guest of more than 5 MB.
func bigGuest() *guest {
	g := goGuest()
	g.name = "gobig"
	g.wasm = func(tb testing.TB) []byte { return guests.Go(tb, "gobig") }
	return g
}

// BenchmarkEvent is a small event on the state that the guest's list of events leaves: under plain
// wazero, and under mmrun in each mode. What mmrun adds is the cost of a commit.
func BenchmarkEvent(b *testing.B) {
	for _, g := range allGuests() {
		b.Run("guest="+g.name, func(b *testing.B) {
			wasm := g.wasm(b)
			b.Run("runtime=wazero", func(b *testing.B) {
				rt, w := newBenchRuntime(b, g)
				m, err := oracle.Compile(ctx, rt, wasm)
				if err != nil {
					b.Fatal(err)
				}
				mod, err := m.Start(ctx, w.config())
				if err != nil {
					b.Fatal(err)
				}
				tw := &twin{guest: g, world: w, module: m, mod: mod}
				smallEvents(b, g, w, func(fn func(tx) error) error { return fn(tw) })
			})
			for _, mode := range []mmrun.Mode{mmrun.Atomic, mmrun.Continuous} {
				b.Run("runtime=mmrun-"+mode.String(), func(b *testing.B) {
					rt, w := newBenchRuntime(b, g)
					in, err := mmrun.Open(ctx, rt, filepath.Join(b.TempDir(), "state"), wasm,
						mmrun.WithMode(mode), mmrun.WithModuleConfig(w.config()))
					if err != nil {
						b.Fatal(err)
					}
					defer in.Close(ctx)
					smallEvents(b, g, w, func(fn func(tx) error) error {
						return in.Update(ctx, func(tx *mmrun.Tx) error { return fn(tx) })
					})
				})
			}
		})
	}
}

// smallEvents runs all of the guest's events and then measures small ones.
func smallEvents(b *testing.B, g *guest, w *world, update func(func(tx) error) error) {
	b.Helper()
	for n := range uint64(len(g.events)) {
		if err := update(func(t tx) error {
			_, err := g.run(w, n+1, t)
			return err
		}); err != nil {
			b.Fatal(err)
		}
	}
	i := uint64(0)
	for b.Loop() {
		i++
		if err := update(func(t tx) error {
			s := &session{tx: t, world: w}
			g.small(s, i)
			return s.err
		}); err != nil {
			b.Fatal(err)
		}
	}
}

func newBenchRuntime(b *testing.B, g *guest) (wazero.Runtime, *world) {
	b.Helper()
	w := newWorld()
	rt := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfig().WithCompilationCache(cache(b)))
	b.Cleanup(func() { rt.Close(ctx) })
	if err := g.instantiateHost(rt, w); err != nil {
		b.Fatal(err)
	}
	return rt, w
}

package realguests

import (
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/internal/byhand"
)

// BenchmarkStart is the time from nothing to an instance that takes events, runtime and compiled code included: first
// with an empty compile cache and no state, second in a process that finds both on the disk.
func BenchmarkStart(b *testing.B) {
	for _, g := range allGuests() {
		b.Run("guest="+g.name, func(b *testing.B) {
			wasm := g.wasm(b)
			start := func(b *testing.B, cacheDir, state string) {
				b.Helper()
				cache, err := wazero.NewCompilationCacheWithDir(cacheDir)
				if err != nil {
					b.Fatal(err)
				}
				w := newWorld()
				rt := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfig().WithCompilationCache(cache))
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

// BenchmarkLife is the mean time of an event over the guest's whole list, from a state that is two events old: under
// plain wazero, and under mmrun in each mode. What mmrun adds is the cost of its commits.
func BenchmarkLife(b *testing.B) {
	for _, g := range allGuests() {
		b.Run("guest="+g.name, func(b *testing.B) {
			wasm := g.wasm(b)
			measure := func(b *testing.B, life func(b *testing.B) (event func(n uint64) error)) {
				var took time.Duration
				events := 0
				for range b.N {
					event := life(b)
					for n := range uint64(len(g.events)) {
						start := time.Now()
						if err := event(n + 1); err != nil {
							b.Fatal(err)
						}
						if n >= 2 {
							took += time.Since(start)
							events++
						}
					}
				}
				b.ReportMetric(0, "ns/op")
				b.ReportMetric(float64(took.Nanoseconds())/float64(events), "ns/event")
			}
			b.Run("runtime=wazero", func(b *testing.B) {
				rt, w := newBenchRuntime(b, g)
				m, err := byhand.Compile(ctx, rt, wasm)
				if err != nil {
					b.Fatal(err)
				}
				measure(b, func(b *testing.B) func(uint64) error {
					w.begin(0)
					mod, err := m.Start(ctx, w.config())
					if err != nil {
						b.Fatal(err)
					}
					tw := &twin{guest: g, world: w, module: m, mod: mod}
					return func(n uint64) error {
						_, err := g.run(w, n, tw)
						return err
					}
				})
			})
			for _, mode := range []mmrun.Mode{mmrun.Atomic, mmrun.Continuous} {
				b.Run("runtime=mmrun-"+mode.String(), func(b *testing.B) {
					rt, w := newBenchRuntime(b, g)
					lives := 0
					dir := b.TempDir()
					measure(b, func(b *testing.B) func(uint64) error {
						lives++
						w.begin(0)
						in, err := mmrun.Open(ctx, rt, filepath.Join(dir, strconv.Itoa(lives)), wasm,
							mmrun.WithMode(mode), mmrun.WithModuleConfig(w.config()))
						if err != nil {
							b.Fatal(err)
						}
						b.Cleanup(func() { in.Close(ctx) })
						return func(n uint64) error {
							return in.Update(ctx, func(tx *mmrun.Tx) error {
								_, err := g.run(w, n, tx)
								return err
							})
						}
					})
				})
			}
		})
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

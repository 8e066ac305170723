package lab_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/bench/lab"
	"github.com/mmrun/mmrun/rewriter"
)

// BenchmarkOpen is the way from nothing to a guest that takes events, after a clean close, with
// compiled code from a cache on the disk (code=cached) or compiled anew. who=module is what each of
// them has to do anyway: make a runtime, compile and instantiate.
func BenchmarkOpen(b *testing.B) {
	for _, code := range []string{"cached", "compiled"} {
		b.Run("code="+code, func(b *testing.B) {
			cacheDir := ""
			if code == "cached" {
				cacheDir = b.TempDir()
			}
			b.Run("who=module", func(b *testing.B) {
				rewritten, _, err := rewriter.Rewrite(module(b), rewriter.Options{})
				check(b, err)
				opening(b, func() (func() error, error) {
					p, err := lab.NewPlain(rewritten, cacheDir)
					return p.Close, err
				})
			})
			for _, mib := range []int{1, 16, 64, 256, 1024} {
				b.Run(fmt.Sprintf("mem=%dMiB", mib), func(b *testing.B) {
					for _, mode := range []mmrun.Mode{mmrun.Continuous, mmrun.Atomic} {
						b.Run("who="+mode.String(), func(b *testing.B) {
							openState(b, mode, mib,
								cacheDir)
						})
					}
					if mib <= 256 {
						b.Run("who=snapshot", func(b *testing.B) { openSnapshot(b, mib, cacheDir) })
					}
				})
			}
		})
	}
}

func opening(b *testing.B, open func() (close func() error, err error)) {
	warm, err := open() // the cache may be empty
	check(b, err)
	check(b, warm())
	for b.Loop() {
		close, err := open()
		check(b, err)
		b.StopTimer()
		check(b, close())
		b.StartTimer()
	}
}

func openState(b *testing.B, mode mmrun.Mode, mib int, cacheDir string) {
	dir := filepath.Join(b.TempDir(), "state")
	s, err := lab.NewState(module(b), dir, mmrun.WithMode(mode))
	check(b, err)
	check(b, lab.Prepare(s, mib, true))
	check(b, s.Close())
	opening(b, func() (func() error, error) {
		s, err := lab.ResumeState(dir, cacheDir)
		return s.Close, err
	})
}

func openSnapshot(b *testing.B, mib int, cacheDir string) {
	dir, wasm := b.TempDir(), module(b)
	s, err := lab.NewSnapshot(wasm, dir, cacheDir)
	check(b, err)
	check(b, lab.Prepare(s, mib, true))
	check(b, s.Close())
	opening(b, func() (func() error, error) {
		s, err := lab.NewSnapshot(wasm, dir, cacheDir)
		if err != nil {
			return nil, err
		}
		return s.Close, s.Restore()
	})
}

// BenchmarkRecovery opens what a kill has left: size MiB of wal, made by events that write to
// the same pages each time.
func BenchmarkRecovery(b *testing.B) {
	for _, size := range []int{1, 4, 16} {
		for _, pages := range []int{1, 1024, 8192} {
			b.Run(fmt.Sprintf("wal=%dMiB/pages=%d", size, pages), func(b *testing.B) {
				s := prepared(b, newState(b, mmrun.WithWALSize(int64(2*size*lab.MiB))), 64, true)
				check(b, s.Checkpoint(context.Background()))
				events, err := s.FillWAL(int64(size*lab.MiB-64<<10), pages)
				check(b, err)
				copied := filepath.Join(b.TempDir(), "copy")
				for b.Loop() {
					b.StopTimer()
					check(b, s.CopyFiles(copied, false))
					b.StartTimer()
					recovered, err := lab.NewState(nil, copied)
					check(b, err)
					b.StopTimer()
					if got := recovered.Stats().Recovered; got < uint64(events) {
						b.Fatalf("%d commits recovered, want at least %d", got, events)
					}
					check(b, recovered.Close())
					check(b, os.RemoveAll(copied))
					b.StartTimer()
				}
				b.ReportMetric(float64(events), "events")
			})
		}
	}
}

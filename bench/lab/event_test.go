package lab_test

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/bench/lab"
)

func module(tb testing.TB) []byte {
	tb.Helper()
	wasm, err := lab.Module("stores")
	if err != nil {
		tb.Fatal(err)
	}
	return wasm
}

func check(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

func newState(tb testing.TB, opts ...mmrun.Option) *lab.State {
	tb.Helper()
	s, err := lab.NewState(module(tb), filepath.Join(tb.TempDir(), "state"), opts...)
	check(tb, err)
	return s
}

// prepared closes the contestant at the end of the benchmark.
func prepared[C lab.Contestant](tb testing.TB, c C, mib int, touched bool) C {
	tb.Helper()
	tb.Cleanup(func() { check(tb, c.Close()) })
	check(tb, lab.Prepare(c, mib, touched))
	return c
}

// loop makes events one(addr, v) with a v that changes.
func loop(b *testing.B, event func([]uint64) error) {
	b.Helper()
	stack := make([]uint64, 2)
	v := uint64(0)
	one := func() {
		v++
		stack[0], stack[1] = 8, v
		if err := event(stack); err != nil {
			b.Fatal(err)
		}
	}
	one()
	b.ReportAllocs()
	for b.Loop() {
		one()
	}
}

// BenchmarkEvent is one event that writes to one page and to one global.
func BenchmarkEvent(b *testing.B) {
	for _, mib := range []int{1, 16, 64, 256, 1024} {
		for _, touched := range []bool{false, true} {
			pages := map[bool]string{false: "untouched", true: "touched"}[touched]
			b.Run(fmt.Sprintf("mem=%dMiB/pages=%s", mib, pages),
				func(b *testing.B) { benchmarkEvent(b, mib, touched) })
		}
	}
}

func benchmarkEvent(b *testing.B, mib int, touched bool) {
	if mib <= 256 {
		b.Run("who=plain", func(b *testing.B) {
			p, err := lab.NewPlain(module(b), "")
			check(b, err)
			prepared(b, p, mib, touched)
			b.Run("how=stack", func(b *testing.B) { loop(b, p.Event("one")) })
			b.Run("how=call", func(b *testing.B) { loop(b, p.CallEvent("one")) })
		})
		b.Run("who=continuous", func(b *testing.B) {
			s := prepared(b, newState(b, mmrun.WithMode(mmrun.Continuous)), mib, touched)
			b.Run("how=stack", func(b *testing.B) { loop(b, s.Event("one")) })
			b.Run("how=call", func(b *testing.B) { loop(b, s.CallEvent("one")) })
		})
	}
	b.Run("who=atomic", func(b *testing.B) {
		s := prepared(b, newState(b), mib, touched)
		b.Run("how=stack", func(b *testing.B) {
			before := s.Stats()
			loop(b, s.Event("one"))
			after := s.Stats()
			written, commits := after.WALBytes-before.WALBytes, after.Commits-before.Commits
			b.ReportMetric(float64(written)/float64(commits), "wal-B/op")
		})
		b.Run("how=call", func(b *testing.B) { loop(b, s.CallEvent("one")) })
	})
	b.Run("who=atomic-sync/how=stack", func(b *testing.B) {
		s := prepared(b, newState(b, mmrun.WithSync(mmrun.SyncAlways)), mib, touched)
		loop(b, s.Event("one"))
	})
	if mib <= 256 {
		b.Run("who=snapshot/how=stack", func(b *testing.B) {
			s, err := lab.NewSnapshot(module(b), b.TempDir(), "")
			check(b, err)
			prepared(b, s, mib, touched)
			loop(b, s.Event("one"))
		})
	}
}

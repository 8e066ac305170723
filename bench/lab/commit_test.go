package lab_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/bench/lab"
)

// BenchmarkCommit is an event that writes to n pages: the same ones each time, spread over the
// whole memory, or uniformly random ones. All of the memory has been touched.
func BenchmarkCommit(b *testing.B) {
	for _, mib := range []int{1, 64, 1024} {
		b.Run(fmt.Sprintf("mem=%dMiB", mib), func(b *testing.B) {
			s := prepared(b, newState(b), mib, true)
			pages := mib * lab.MiB / lab.PageSize
			for _, n := range []int{1, 8, 64, 1024} {
				if n > pages {
					continue
				}
				b.Run(fmt.Sprintf("pattern=same/pages=%d", n), func(b *testing.B) {
					touch(b, s, s.Event("touch"), n, pages/n, false)
				})
				b.Run(fmt.Sprintf("pattern=random/pages=%d", n), func(b *testing.B) {
					random(b, s, s.Event("random"), n)
				})
			}
		})
	}
}

// touch makes events that write to n pages, stride pages apart; if it moves, to others each time.
func touch(b *testing.B, s *lab.State, event func([]uint64) error, n, stride int, moves bool) {
	stack, first, v := make([]uint64, 4), 0, uint64(1)
	walBytes(b, s, func() {
		v++
		if moves {
			first = (first + 1) % stride
		}
		stack[0], stack[1], stack[2], stack[3] = uint64(first), uint64(stride), uint64(n), v
		check(b, event(stack))
	})
}

func random(b *testing.B, s *lab.State, event func([]uint64) error, n int) {
	stack, seed := make([]uint64, 2), uint64(1)
	walBytes(b, s, func() {
		seed = seed*6364136223846793005 + 1
		stack[0], stack[1] = seed, uint64(n)
		check(b, event(stack))
	})
}

// walBytes runs events and reports what they write to the wal.
func walBytes(b *testing.B, s *lab.State, event func()) {
	before := s.Stats()
	b.ReportAllocs()
	for b.Loop() {
		event()
	}
	after := s.Stats()
	if n := after.Commits - before.Commits; n > 0 {
		b.ReportMetric(float64(after.WALBytes-before.WALBytes)/float64(n), "wal-B/op")
	}
}

// BenchmarkView is a query that writes to four pages and is rolled back.
func BenchmarkView(b *testing.B) {
	for _, mib := range []int{1, 64} {
		for _, touched := range []bool{false, true} {
			pages := map[bool]string{false: "untouched", true: "touched"}[touched]
			b.Run(fmt.Sprintf("mem=%dMiB/pages=%s", mib, pages), func(b *testing.B) {
				s := prepared(b, newState(b), mib, touched)
				stride := mib * lab.MiB / lab.PageSize / 4
				b.Run("pattern=same", func(b *testing.B) {
					touch(b, s, s.ViewEvent("touch"), 4,
						stride, false)
				})
				b.Run("pattern=moving", func(b *testing.B) {
					touch(b, s, s.ViewEvent("touch"), 4,
						stride, true)
				})
			})
		}
	}
}

var errRollback = errors.New("rolled back on purpose")

// BenchmarkRollback is an event that fails after it has written to n pages, 64 MiB touched.
func BenchmarkRollback(b *testing.B) {
	s := prepared(b, newState(b), 64, true)
	event := func(stack []uint64) error {
		err := s.Update(b.Context(), func(tx *mmrun.Tx) error {
			if err := tx.Function("touch").CallWithStack(b.Context(), stack); err != nil {
				return err
			}
			return errRollback
		})
		if errors.Is(err, errRollback) {
			return nil
		}
		return fmt.Errorf("not rolled back: %w", err)
	}
	for _, n := range []int{1, 8, 64, 1024} {
		stride := 64 * lab.MiB / lab.PageSize / n
		b.Run(fmt.Sprintf("pattern=same/pages=%d", n), func(b *testing.B) {
			touch(b, s, event, n,
				stride, false)
		})
		b.Run(fmt.Sprintf("pattern=moving/pages=%d", n),
			func(b *testing.B) { touch(b, s, event, n, stride, true) })
	}
}

// BenchmarkCheckpoint brings n dirty pages into the file.
func BenchmarkCheckpoint(b *testing.B) {
	s := prepared(b, newState(b, mmrun.WithWALSize(64*lab.MiB)), 64, true)
	v := uint64(1)
	for _, n := range []int{1, 64, 1024, 8192} {
		b.Run(fmt.Sprintf("pages=%d", n), func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				v++
				check(b, s.Setup("touch", 0, 1, uint64(n), v))
				b.StartTimer()
				check(b, s.Checkpoint(context.Background()))
			}
			b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "pages/s")
		})
	}
}

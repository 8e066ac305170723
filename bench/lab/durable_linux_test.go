package lab_test

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"testing"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/bench/lab"
)

// BenchmarkDurable is events that each survive a power cut (SyncAlways), by many goroutines at
// once, beside the raw floor: one writer that overwrites 4 KiB of a file and syncs it. Compare
// events/s.
func BenchmarkDurable(b *testing.B) {
	b.Run("raw", func(b *testing.B) {
		f, err := lab.NewBare(filepath.Join(b.TempDir(), "raw"), lab.MiB)
		check(b, err)
		defer f.Close()
		for b.Loop() {
			check(b, f.PwriteSync())
		}
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
	})
	for _, clients := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			s := newState(b, mmrun.WithSync(mmrun.SyncAlways))
			check(b, s.Setup("touch", 0, 1, 1, 1))
			work := make(chan uint64)
			var all sync.WaitGroup
			for range clients {
				all.Go(func() {
					for i := range work {
						_, err := s.Call(context.Background(), "touch", 0, 1, 1, i)
						check(b, err)
					}
				})
			}
			for i := uint64(0); b.Loop(); i++ {
				work <- i
			}
			close(work)
			all.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
		})
	}
}

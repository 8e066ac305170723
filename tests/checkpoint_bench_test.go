package tests

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/mmapmem"
	"github.com/mmrun/mmrun/vfs"
)

// BenchmarkCheckpointSums is what page checksums cost a checkpoint: of a memory of 64 MiB, 8 bytes
// or all of some pages have been changed, by one event or by many. It is made with checksums and
// without, in turns; %-for-sums is how much longer it takes with them, by the medians.
func BenchmarkCheckpointSums(b *testing.B) {
	for _, x := range []struct{ pages, bytes, events int }{
		{pages: 64, bytes: 8, events: 1}, {pages: 64, bytes: mmapmem.PageSize,
			events: 1}, {pages: 64, bytes: 8, events: 20_000},
		{pages: 1024, bytes: 8, events: 1}, {pages: 1024, bytes: mmapmem.PageSize, events: 1},
		{pages: 8192, bytes: 8, events: 1},
	} {
		b.Run(fmt.Sprintf("pages=%d/bytes=%d/events=%d", x.pages, x.bytes, x.events),
			func(b *testing.B) {
				const memoryPages = 16384
				m, dir := newMachine(b), b.TempDir()
				rnd := rand.New(rand.NewPCG(1, 2))
				open := func(name string) *mmrun.Instance {
					in, err := m.open(filepath.Join(dir, name), vfs.OS, true,
						mmrun.WithSync(mmrun.SyncNever), mmrun.WithWALSize(mmrun.DefaultWALSize))
					if err != nil {
						b.Fatal(err)
					}
					b.Cleanup(func() { abandon(in) })
					return in
				}
				// change makes an event that stores to pages.
				change := func(in *mmrun.Instance, pages []int, value uint64) {
					if err := in.Update(bg, func(tx *mmrun.Tx) (err error) {
						for i := 0; i < len(pages) && err == nil; i++ {
							at := uint64(pages[i]) * mmapmem.PageSize
							if x.bytes == 8 {
								_, err = tx.Call(bg, "one", at+value%500*8, value)
							} else {
								_, err = tx.Call(bg, "fill", at, uint64(x.bytes), value&0xff)
							}
						}
						return err
					}); err != nil {
						b.Fatal(err)
					}
				}
				checkpoint := func(in *mmrun.Instance) time.Duration {
					start := time.Now()
					if err := in.Checkpoint(bg); err != nil {
						b.Fatal(err)
					}
					return time.Since(start)
				}
				with, without := open("with"), open("without")
				storeOf(without).LeaveOutChecksums()
				contestants := []*mmrun.Instance{with, without}
				for _, in := range contestants {
					if _, err := in.Call(bg, "grow", memoryPages/16-1); err != nil {
						b.Fatal(err)
					}
					// so that the files have all their blocks
					for some := range slices.Chunk(rnd.Perm(memoryPages), 1024) {
						change(in, some, 1)
						checkpoint(in)
					}
				}
				times := make([][]time.Duration, len(contestants))
				value := uint64(1)
				for b.Loop() {
					some := rnd.Perm(memoryPages)[:x.pages]
					for _, i := range rnd.Perm(len(contestants)) {
						if x.events == 1 {
							change(contestants[i], some, value)
						} else {
							for e := range x.events {
								change(contestants[i], some[e%x.pages:][:1], value+uint64(e))
							}
						}
						times[i] = append(times[i], checkpoint(contestants[i]))
					}
					value++
				}
				if n := with.Stats().Checkpoints; n > uint64(len(times[0])+memoryPages/1024) {
					b.Errorf("%d checkpoints: the wal was full before the end of the events", n)
				}
				median := func(t []time.Duration) float64 {
					slices.Sort(t)
					return float64(t[len(t)/2])
				}
				b.ReportMetric(median(times[0])/1e6, "ms/checkpoint")
				b.ReportMetric(100*(median(times[0])/median(times[1])-1), "%-for-sums")
			})
	}
}

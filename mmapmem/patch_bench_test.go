package mmapmem

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// BenchmarkFold is what a checkpoint does with the memory file: 8 bytes or all of each page, at random places of a
// memory of 64 MiB, and the sync at the end. It is done with page checksums and without, in turns; %-for-sums is how much
// longer it takes with them, by the medians.
func BenchmarkFold(b *testing.B) {
	const pages = 16384
	for _, count := range []int{64, 1024, 8192} {
		for _, length := range []int{8, PageSize} {
			b.Run(fmt.Sprintf("pages=%d/bytes=%d", count, length), func(b *testing.B) {
				dir := b.TempDir()
				rnd := rand.New(rand.NewPCG(1, 2))
				data := make([]byte, PageSize)
				folder := func(name string, sums *Sums) func(at []int, n int) time.Duration {
					f := newFile(b, dir, name)
					p := NewPatcher(f, sums)
					return func(at []int, n int) time.Duration {
						start := time.Now()
						for _, page := range at {
							if err := p.Patch(uint64(page)*PageSize, data[:n]); err != nil {
								b.Fatal(err)
							}
						}
						if err := p.Flush(); err != nil {
							b.Fatal(err)
						}
						if err := f.Sync(); err != nil {
							b.Fatal(err)
						}
						return time.Since(start)
					}
				}
				without, with := folder("without", nil), folder("with", NewSums(newFile(b, dir, "sums")))
				data[0] = 1
				without(rnd.Perm(pages), PageSize)
				with(rnd.Perm(pages), PageSize)
				var times [2][]time.Duration
				for b.Loop() {
					data[0]++
					at := rnd.Perm(pages)[:count]
					times[0] = append(times[0], without(at, length))
					times[1] = append(times[1], with(at, length))
				}
				for _, t := range times {
					slices.Sort(t)
				}
				median := func(t []time.Duration) float64 { return float64(t[len(t)/2]) }
				b.ReportMetric(median(times[1])/1e6, "ms/fold")
				b.ReportMetric(100*(median(times[1])/median(times[0])-1), "%-for-sums")
			})
		}
	}
}

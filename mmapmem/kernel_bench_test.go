//go:build linux

package mmapmem

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/mmrun/mmrun/internal/testkit/scratch"
	"github.com/mmrun/mmrun/vfs"
)

// guarded opens a memory of mib MiB whose pages are all guarded.
func guarded(b *testing.B, f vfs.File, mib int, trackers ...NewTracker) *Memory {
	b.Helper()
	m, err := Open(f, Private, uint32(mib)*16, trackers...)
	if err != nil {
		b.Fatal(err)
	}
	if m.Allocate(0, 0).Reallocate(uint64(mib)<<20) == nil {
		b.Fatal(m.GrowError())
	}
	m.policy.wasted = 1 << 30
	commit(b, m, 1)
	return m
}

func commit(b *testing.B, m *Memory, seq uint64) {
	pending, err := m.Changes()
	if err == nil {
		err = pending.Keep(seq, false)
	}
	if err != nil {
		b.Fatal(err)
	}
}

func fileOf(b *testing.B, mib int) vfs.File {
	f := scratch.File(b, b.TempDir(), "memory")
	block := bytes.Repeat([]byte{1}, 1<<16)
	for i := range mib * 16 {
		if _, err := f.WriteAt(block, int64(i)<<16); err != nil {
			b.Fatal(err)
		}
	}
	return f
}

// BenchmarkFaultAround is 4000 events of which each reads some random pages and writes to one and
// the same, in a memory that was just opened and guarded: with the pages in memory mapped ahead
// and without.
func BenchmarkFaultAround(b *testing.B) {
	const events = 4000
	for _, mib := range []int{16, 64, 256} {
		for _, reads := range []int{1, 8} {
			b.Run(fmt.Sprintf("mem=%dMiB/reads=%d", mib, reads), func(b *testing.B) {
				f := fileOf(b, mib)
				var took [2]time.Duration
				var sum byte
				for b.Loop() {
					for without := range took {
						m := guarded(b, f, mib, Kernel)
						if without == 1 {
							m.tracker.(*kernelTracker).around.next = m.pages()
							m.tracker.(*kernelTracker).around.idle = -1 << 40
						}
						rnd := rand.New(rand.NewPCG(1, 2))
						start := time.Now()
						for seq := uint64(2); seq < events+2; seq++ {
							for range reads {
								sum += m.live[rnd.Uint32N(m.pages())*PageSize]
							}
							m.live[8] = byte(seq)
							commit(b, m, seq)
						}
						took[without] += time.Since(start)
						if err := m.Close(); err != nil {
							b.Fatal(err)
						}
					}
				}
				_ = sum
				b.ReportMetric(float64(took[0].Nanoseconds())/float64(b.N)/events, "ns/event")
				b.ReportMetric(float64(took[1])/float64(took[0]), "x-without")
			})
		}
	}
}

// BenchmarkCommit is a commit of some pages, the same each time or random ones, in a memory that is
// mapped whole.
func BenchmarkCommit(b *testing.B) {
	for _, mib := range []int{1, 64} {
		for _, pages := range []int{1, 8, 64} {
			for _, random := range []bool{false, true} {
				name := fmt.Sprintf("mem=%dMiB/pages=%d/random=%t", mib, pages, random)
				b.Run(name, func(b *testing.B) {
					m := guarded(b, fileOf(b, mib), mib)
					defer m.Close()
					rnd := rand.New(rand.NewPCG(1, 2))
					var sum byte
					for p := range m.pages() {
						sum += m.live[p*PageSize]
					}
					_ = sum
					seq := uint64(1)
					for b.Loop() {
						seq++
						for i := range uint32(pages) {
							p := i
							if random {
								p = rnd.Uint32N(m.pages())
							}
							m.live[p*PageSize+8] = byte(seq)
						}
						commit(b, m, seq)
					}
				})
			}
		}
	}
}

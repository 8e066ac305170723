package lab_test

import (
	"path/filepath"
	"testing"

	"github.com/mmrun/mmrun/bench/lab"
)

// BenchmarkPart measures what an atomic event with cold pages is made of, each part alone.
func BenchmarkPart(b *testing.B) {
	p, err := lab.NewParts(filepath.Join(b.TempDir(), "parts"), 64)
	check(b, err)
	defer p.Close()
	const batch = 256
	b.Run("part=fault", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			if i%batch == 0 && i > 0 {
				b.StopTimer()
				check(b, p.Drop(batch))
				b.StartTimer()
			}
			check(b, p.Fault(1))
		}
		check(b, p.DropAll())
	})
	b.Run("part=madvise", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			if i%batch == 0 {
				b.StopTimer()
				check(b, p.DropAll())
				check(b, p.Fault(batch))
				b.StartTimer()
			}
			check(b, p.Drop(1))
		}
		check(b, p.DropAll())
	})
	check(b, p.Map())
	check(b, p.Fault(8))
	for name, part := range map[string]func() error{
		"scan": p.Scan, "compare": p.Compare, "copy": p.Copy, "fold": p.Fold, "getrusage": p.Faults,
	} {
		b.Run("part="+name, func(b *testing.B) {
			for b.Loop() {
				check(b, part())
			}
		})
	}
}

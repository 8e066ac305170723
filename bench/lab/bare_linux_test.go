package lab_test

import (
	"path/filepath"
	"testing"

	"github.com/mmrun/mmrun/bench/lab"
)

// BenchmarkBare is what a write of one page costs at least.
func BenchmarkBare(b *testing.B) {
	bare, err := lab.NewBare(filepath.Join(b.TempDir(), "bare"), 8*lab.MiB)
	check(b, err)
	defer bare.Close()
	for name, op := range map[string]func() error{"pwrite": bare.Pwrite,
		"pwrite+fdatasync": bare.PwriteSync} {
		b.Run("who="+name, func(b *testing.B) {
			for b.Loop() {
				check(b, op())
			}
		})
	}
}

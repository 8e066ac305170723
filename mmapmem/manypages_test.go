//go:build linux

package mmapmem

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/mmrun/mmrun/internal/disk"
)

// The kernel hands out at most 512 regions at a time and then resumes by itself: none may be
// missed, and none told twice.
func TestTrackerNamesEachOfManyScatteredPagesOnce(t *testing.T) {
	const wasmPages = 1024
	f, err := disk.OS.OpenFile(filepath.Join(t.TempDir(), "memory"), os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m, err := Open(f, Private, wasmPages)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if m.Allocate(0, 0).Reallocate(wasmPages*WasmPageSize) == nil {
		t.Fatal(m.GrowError())
	}
	written := map[uint32]bool{}
	for _, count := range []uint32{511, 512, 513, 530, 1024, 1025, 3000, 8000} {
		for len(written) < int(count) {
			p := uint32(len(written)) * 2 % (wasmPages * 16)
			m.Bytes()[p*PageSize] = 1
			written[p] = true
		}
		seen := map[uint32]int{}
		last := uint32(0)
		if err := m.tracker.private(func(first, end uint32) {
			if first < last || end <= first {
				t.Errorf("%d pages: run [%d, %d) after one that ends at %d", count, first, end, last)
			}
			last = end
			for p := first; p < end; p++ {
				seen[p]++
			}
		}); err != nil {
			t.Fatal(err)
		}
		if len(seen) != len(written) {
			t.Errorf("%d pages are private, %d were named", len(written), len(seen))
		}
		for p := range written {
			if seen[p] != 1 {
				t.Errorf("%d pages: page %d was named %d times", count, p, seen[p])
			}
		}
	}
}

//go:build linux

package mmapmem

import (
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/mmrun/mmrun/vfs"
)

// openPrivate opens a Private memory of at most maxWasmPages on a new file.
func openPrivate(t *testing.T, maxWasmPages uint32) (vfs.File, *Memory) {
	t.Helper()
	f := newFile(t, t.TempDir(), "memory")
	m, err := Open(f, Private, maxWasmPages)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return f, m
}

// The kernel hands out at most 512 regions at a time and then resumes by itself: none may be
// missed, and none told twice.
func TestTrackerNamesEachOfManyScatteredPagesOnce(t *testing.T) {
	const wasmPages = 1024
	_, m := openPrivate(t, wasmPages)
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

// With all pages protected, those that have been written are found, however many runs they make, and no others: neither those that
// were read for the first time, nor those that were dropped, nor those that nobody has touched.
func TestProtectedMemoryTellsWhatWasWritten(t *testing.T) {
	const wasmPages = 64
	f, m := openPrivate(t, 2*wasmPages)
	scan, ok := m.tracker.(*scanTracker)
	if !ok {
		t.Skipf("this kernel has the tracker %s", m.tracker.name())
	}
	if m.Allocate(0, 0).Reallocate(wasmPages*WasmPageSize) == nil {
		t.Fatal(m.GrowError())
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	m.waste = 1 << 30 // the next commit protects
	_, err := m.Changes()
	must(err)
	m.Committed(1)
	if scan.wp == nil {
		t.Skip("this kernel protects no pages")
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	sum := byte(0)
	for seq := uint64(2); seq < 300; seq++ {
		if seq == 150 && m.Allocate(0, 0).Reallocate(2*wasmPages*WasmPageSize) == nil {
			t.Fatal(m.GrowError())
		}
		pages := uint32(m.size / PageSize)
		var want []uint32
		for range rnd.IntN([]int{2, 20, 200, 1000}[rnd.IntN(4)]) {
			p := rnd.Uint32N(pages)
			if rnd.IntN(3) == 0 {
				sum += m.Bytes()[p*PageSize+7]
				continue
			}
			m.Bytes()[p*PageSize+8] = byte(seq)
			m.Bytes()[p*PageSize+9]++
			if m.slotOf = append(m.slotOf, make([]int32, max(0, int(pages)-len(m.slotOf)))...); m.slotOf[p] == 0 {
				want = append(want, p)
			}
		}
		slices.Sort(want)
		want = slices.Compact(want)
		_, err := m.Changes()
		must(err)
		if !slices.Equal(m.fresh, want) {
			t.Fatalf("event %d: fresh pages %v, want %v", seq, m.fresh, want)
		}
		if scan.marks {
			must(scan.scan(queryWritten, scan.all(), func(first, end uint32) {
				for p := first; p < end; p++ {
					if m.slotOf[p] == 0 && !slices.Contains(want, p) {
						t.Errorf("event %d: page %d will be looked at each time", seq, p)
					}
				}
			}))
		}
		switch rnd.IntN(8) {
		case 0:
			must(m.Rollback(m.size))
		case 1:
			for _, r := range m.ranges { // as the fold does
				_, err := f.WriteAt(m.live[r.Offset:r.Offset+r.Len], int64(r.Offset))
				must(err)
			}
			must(m.CommittedToFile(seq))
		case 2:
			m.waste = 1 << 30
			m.Committed(seq)
			if len(m.hot) > 0 {
				t.Fatalf("event %d: %d pages are still hot", seq, len(m.hot))
			}
		default:
			m.Committed(seq)
		}
		if rnd.IntN(10) == 0 {
			for _, h := range append(slices.Clone(m.hot), m.cool...) {
				_, err := f.WriteAt(m.page(h.page)[:], int64(h.page)*PageSize)
				must(err)
			}
			_, err := m.Evict(seq, seq, 0, 1+rnd.IntN(1000))
			must(err)
		}
	}
	_ = sum
}

// Locked memory (mlockall) refuses to be dropped in the usual way. What is written to it afterwards must be found.
func TestDroppedPagesOfLockedMemoryAreWatched(t *testing.T) {
	const wasmPages, mlockOnFault = 16, 1
	_, m := openPrivate(t, wasmPages)
	if m.Allocate(0, 0).Reallocate(wasmPages*WasmPageSize) == nil {
		t.Fatal(m.GrowError())
	}
	if _, _, errno := unix.Syscall(unix.SYS_MLOCK2, uintptr(unsafe.Pointer(unsafe.SliceData(m.live))), uintptr(len(m.live)), mlockOnFault); errno != 0 {
		t.Skipf("mlock2: %v", errno)
	}
	for seq := uint64(1); seq < 5; seq++ {
		for p := range uint32(2 * keptFresh) { // more than a rollback keeps
			m.Bytes()[p*PageSize] = 1
		}
		if err := m.Rollback(m.size); err != nil {
			t.Fatal(err)
		}
		at := uint32(seq) * PageSize
		m.Bytes()[at] = byte(seq)
		changes, err := m.Changes()
		if err != nil || len(changes) != 1 || changes[0] != (Range{at, 8}) {
			t.Fatalf("commit %d: %v %v", seq, changes, err)
		}
		m.Committed(seq)
	}
}

package mmapmem

import (
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/mmrun/mmrun/internal/testkit/scratch"
	"github.com/mmrun/mmrun/vfs"
)

// openPrivate opens a Private memory of at most maxWasmPages on a new file.
func openPrivate(t *testing.T, maxWasmPages uint32) (vfs.File, *Memory) {
	t.Helper()
	f := scratch.File(t, t.TempDir(), "memory")
	m, err := Open(f, Private, maxWasmPages)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return f, m
}

// kernelOf skips the test on a machine without the kernel's tracker.
func kernelOf(t *testing.T, m *Memory) *kernelTracker {
	t.Helper()
	k, ok := m.tracker.(*kernelTracker)
	if !ok {
		t.Skipf("the tracker here is %s", m.Tracker())
	}
	return k
}

func withoutProtection(t Tracker) { t.(*kernelTracker).hopeless = true }

// The kernel hands out at most 512 regions at a time and then resumes by itself: none may be
// missed, and none told twice.
func TestTrackerNamesEachOfManyScatteredPagesOnce(t *testing.T) {
	const wasmPages = 1024
	_, m := openPrivate(t, wasmPages)
	kernel := kernelOf(t, m)
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
		kernel.faults = -1 // whatever it is
		if err := m.tracker.Changed(func(first, end uint32) {
			if first < last || end <= first {
				t.Errorf("%d pages: run [%d, %d) after one that ends at %d",
					count, first, end, last)
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

// With all pages protected, those that have been written are found, however many runs they make,
// and no others: neither those that were read for the first time, nor those that were dropped,
// nor those that nobody has touched.
func TestProtectedMemoryTellsWhatWasWritten(t *testing.T) {
	const wasmPages = 64
	f, m := openPrivate(t, 2*wasmPages)
	kernel := kernelOf(t, m)
	if m.Allocate(0, 0).Reallocate(wasmPages*WasmPageSize) == nil {
		t.Fatal(m.GrowError())
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	m.policy.wasted = 1 << 30 // the next commit guards
	pending, err := m.Changes()
	must(err)
	must(pending.Keep(1, false))
	if !kernel.protected {
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
			if m.table.ref(p) == refClean {
				want = append(want, p)
			}
		}
		slices.Sort(want)
		want = slices.Compact(want)
		pending, err := m.Changes()
		must(err)
		if !slices.Equal(m.news, want) {
			t.Fatalf("event %d: new pages %v, want %v", seq, m.news, want)
		}
		must(kernel.scan(m.live, queryWritten, kernel.all(), func(first, end uint32) {
			for p := first; p < end; p++ {
				if m.table.ref(p) == refClean {
					t.Errorf("event %d: page %d will be looked at each time", seq, p)
				}
			}
		}))
		switch rnd.IntN(8) {
		case 0:
			must(m.Rollback(m.size))
		case 1:
			for _, r := range pending.Ranges() { // as a checkpoint does
				_, err := f.WriteAt(m.live[r.Offset:r.Offset+r.Len], int64(r.Offset))
				must(err)
			}
			must(pending.KeepInFile(seq))
		case 2:
			m.policy.wasted = 1 << 30
			must(pending.Keep(seq, false))
			if m.table.copied > 0 {
				t.Fatalf("event %d: %d pages are still copied", seq, m.table.copied)
			}
		case 3: // and the next commits give some back
			must(pending.Keep(seq, false))
			for _, h := range m.table.held {
				_, err := f.WriteAt(m.page(h.page)[:], int64(h.page)*PageSize)
				must(err)
			}
			m.policy.idle, m.policy.batch = 0, 1+rnd.IntN(1000)
			m.InFile(seq)
		default:
			must(pending.Keep(seq, false))
		}
	}
	_ = sum
}

// Nobody may write between Changes and the end of the event, and a page that is protected without
// having been found would never be. Whoever does it all the same is found at the next commit.
func TestGuardMissesNothing(t *testing.T) {
	_, m := openPrivate(t, 4)
	kernel := kernelOf(t, m)
	if m.Allocate(0, 0).Reallocate(4*WasmPageSize) == nil {
		t.Fatal(m.GrowError())
	}
	pending, err := m.Changes()
	if err != nil {
		t.Fatal(err)
	}
	const page = 7
	m.Bytes()[page*PageSize] = 1
	m.policy.wasted = 1 << 30
	if err := pending.Keep(1, false); err != nil {
		t.Fatal(err)
	}
	if !kernel.protected {
		t.Skip("this kernel protects no pages")
	}
	pending, err = m.Changes()
	if r := pending.Ranges(); err != nil || len(r) != 1 || r[0] != (Range{page * PageSize, 8}) {
		t.Fatalf("%v %v", r, err)
	}
}

// Locked memory (mlockall) refuses to be dropped in the usual way. What is written to it afterwards
// must be found.
func TestDroppedPagesOfLockedMemoryAreWatched(t *testing.T) {
	const wasmPages, mlockOnFault = 16, 1
	_, m := openPrivate(t, wasmPages)
	if m.Allocate(0, 0).Reallocate(wasmPages*WasmPageSize) == nil {
		t.Fatal(m.GrowError())
	}
	if _, _, errno := unix.Syscall(unix.SYS_MLOCK2,
		uintptr(unsafe.Pointer(unsafe.SliceData(m.live))), uintptr(len(m.live)),
		mlockOnFault); errno != 0 {
		t.Skipf("mlock2: %v", errno)
	}
	for seq := uint64(1); seq < 5; seq++ {
		for p := range uint32(2 * keptNew) { // more than a rollback keeps
			m.Bytes()[p*PageSize] = 1
		}
		if err := m.Rollback(m.size); err != nil {
			t.Fatal(err)
		}
		at := uint32(seq) * PageSize
		m.Bytes()[at] = byte(seq)
		pending, err := m.Changes()
		if r := pending.Ranges(); err != nil || len(r) != 1 || r[0] != (Range{at, 8}) {
			t.Fatalf("commit %d: %v %v", seq, r, err)
		}
		if err := pending.Keep(seq, false); err != nil {
			t.Fatal(err)
		}
	}
}

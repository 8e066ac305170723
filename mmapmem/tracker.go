package mmapmem

import "time"

// A tracker finds the pages of a Private memory that are private. It may name pages that are
// not; it must never miss one.
//
// There are three, and [Open] takes the first that works:
//
//	pagemap-scan  the ioctl PAGEMAP_SCAN on /proc/self/pagemap, Linux 6.7 or newer
//	pagemap       bit 61 of the entries of /proc/self/pagemap, older Linux
//	compare       the whole memory against the file; works on any operating system, at a cost
//	              that is linear in the memory
//
// None needs a privilege.
type tracker interface {
	name() string
	// counter is a number that moves whenever a page may have become private, or a negative
	// one if there is no such thing.
	counter() int64
	// private calls fn for runs of private pages, by page index. No page is named twice unless
	// it has a shadow.
	private(fn func(first, end uint32)) error
	close() error
}

// A protector is a tracker that can write-protect pages, such that a write to a protected page
// is let through, moves the counter, and makes private name the page again.
type protector interface {
	// protect protects all private pages and calls fn for runs of those that were not. After
	// an error some may be protected, of which private will not tell until they are written.
	protect(fn func(first, end uint32)) error
	// avoidable is the time that private has taken because nothing is protected yet.
	avoidable() time.Duration
	// dropped is called when runs of private pages, ascending, have become those of the file again.
	dropped(runs []run) error
}

// run is pages first to end-1.
type run struct{ first, end uint32 }

// runsOf groups pages, which ascend, with their neighbours.
func runsOf(pages []uint32) []run {
	var runs []run
	for _, p := range pages {
		if n := len(runs); n > 0 && runs[n-1].end == p {
			runs[n-1].end++
		} else {
			runs = append(runs, run{p, p + 1})
		}
	}
	return runs
}

// forceTracker, if not empty, is the only tracker that newTracker may choose. For tests.
var forceTracker string

func newTracker(m *Memory) tracker {
	for _, open := range trackers {
		t, err := open(m)
		if err != nil {
			continue
		}
		if forceTracker == "" || forceTracker == t.name() {
			return t
		}
		_ = t.close()
	}
	return &compareTracker{m}
}

// compareTracker compares the whole memory with the file.
type compareTracker struct{ m *Memory }

func (t *compareTracker) name() string   { return "compare" }
func (t *compareTracker) counter() int64 { return -1 }
func (t *compareTracker) close() error   { return nil }

func (t *compareTracker) private(fn func(first, end uint32)) error {
	n := uint32(t.m.size / PageSize)
	for p := range n {
		if *t.m.page(p) != *t.m.basePage(p) {
			fn(p, p+1)
		}
	}
	return nil
}

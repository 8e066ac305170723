package mmapmem

// A Tracker says which pages of a Private memory may have changed.
//
// It knows how to find out and nothing else: what is known of each page is in the page table, and
// when pages are given back is decided by the policy. It must never miss a page; it may name one
// that has not changed, at the cost of a comparison.
//
// There are two that need no help of the guest; [Best] takes the first that works:
//
//	kernel   page-fault counters, PAGEMAP_SCAN and asynchronous write protection; Linux 6.7 or
//	         newer, all of it from 6.9 on. Needs no privilege
//	compare  the whole memory against the file; any system, at a cost that is linear in the memory.
//	         The oracle of the others
type Tracker interface {
	// Name is that of the mechanism, one word.
	Name() string
	// Changed calls found for runs of pages, by page index, that may have been written since the
	// last Clean. It need not name copied pages: they are compared anyway. It is called at most
	// once between two calls of Clean, with no guest running from then on.
	Changed(found func(first, end uint32)) error
	// Clean says that every page has the bytes of the last commit: those that were named have a
	// shadow now or have been dropped. It tells whether the next write to any page will be told,
	// also to those that were named before: held pages are guarded from then on. If not, they stay
	// copied.
	Clean(s Settled) (guarded bool)
	// Dropped says that pages, in ascending runs, show the file again. If they could not be given
	// back (reclaimed is false), they only have its bytes, in private pages of the process.
	Dropped(runs []Run, reclaimed bool) error
	// Close releases what the tracker holds. The memory is still mapped.
	Close() error
}

// Settled is what a Tracker is told when all is clean.
type Settled struct {
	// Copied is how many pages are compared at each commit, Wasted how many comparisons were for
	// nothing since Clean last returned true: what guarding them would save.
	Copied, Wasted int
	// Faulted tells that the caller itself may have caused page faults since Changed, as a store
	// to a mapped file does, and that they were not the guest's.
	Faulted bool
}

// NewTracker makes the Tracker of a memory that is being opened.
type NewTracker func(*Memory) (Tracker, error)

// Best is the kernel's tracker, or comparing where the kernel has none.
func Best(m *Memory) (Tracker, error) {
	if t, err := Kernel(m); err == nil {
		return t, nil
	}
	return Compare(m)
}

// Compare compares everything.
func Compare(m *Memory) (Tracker, error) { return compareTracker{m}, nil }

// Run is pages First to End-1, by index.
type Run struct{ First, End uint32 }

// runsOf groups pages, which ascend, with their neighbours.
func runsOf(pages []uint32) []Run {
	var runs []Run
	for _, p := range pages {
		if n := len(runs); n > 0 && runs[n-1].End == p {
			runs[n-1].End++
		} else {
			runs = append(runs, Run{p, p + 1})
		}
	}
	return runs
}

// compareTracker compares the clean pages with the file; copied ones are compared by who asks.
type compareTracker struct{ m *Memory }

func (compareTracker) Name() string              { return "compare" }
func (compareTracker) Clean(Settled) bool        { return false }
func (compareTracker) Dropped([]Run, bool) error { return nil }
func (compareTracker) Close() error              { return nil }

func (t compareTracker) Changed(found func(first, end uint32)) error {
	for p := range t.m.pages() {
		if t.m.table.ref(p) == refClean && *t.m.page(p) != *t.m.filePage(p) {
			found(p, p+1)
		}
	}
	return nil
}

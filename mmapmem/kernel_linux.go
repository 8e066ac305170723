package mmapmem

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

// kernelTracker asks the kernel for the pages that have become private.
//
// Making a page private is a fault, and Linux counts faults: while the counter stands still, only
// pages that were private before can have changed, and those are copied, or guarded.
//
// When it has moved, PAGEMAP_SCAN finds the pages that are present or swapped and are not the
// file's. To tell that, the kernel looks at what it knows of each page that is mapped, which is a
// cache miss (35 ns). Once all pages are protected, it is enough to ask for those that are not
// any more, which is in the page tables (2 ns), and to look closer at the few that are found; see
// amongWritten.
type kernelTracker struct {
	m *Memory
	*kernel
	faults    int64         // the counter when all private pages were known
	asked     bool          // they were asked for since then
	blind     bool          // there are clean pages that are private: a write to one is no fault
	protected bool          // all pages were; see guard
	hopeless  bool          // protecting them has failed
	spent     time.Duration // on looks at every page, before they were protected
	late      []Run         // private pages that guard met
	unknown   []Run         // pages that are not protected and have no shadow
	private   []Run         // private ones among them
	around    faultAround
}

// Kernel is the kernel's tracker.
func Kernel(m *Memory) (Tracker, error) {
	k, err := openKernel()
	if err != nil {
		return nil, err
	}
	return &kernelTracker{m: m, kernel: k, faults: -1}, nil
}

func (t *kernelTracker) Name() string { return "kernel" }

// Close has nothing to do: the kernel forgets the protection of a mapping with the mapping.
func (t *kernelTracker) Close() error { return nil }

// faultCounter is the number of page faults of the process so far, -1 if it cannot be had. Linux
// counts a fault before it returns from it, those made by the kernel on the process's behalf (a
// read(2) into the mapping) included, so that a page cannot have become private while the sum
// stood still.
func faultCounter() int64 {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return -1
	}
	return int64(u.Minflt) + int64(u.Majflt)
}

func (t *kernelTracker) all() Run { return Run{0, t.m.pages()} }

func (t *kernelTracker) Changed(found func(first, end uint32)) error {
	now := faultCounter()
	if now == t.faults && now >= 0 && !t.blind && len(t.late) == 0 {
		return nil
	}
	t.asked = true
	for _, r := range t.late {
		found(r.First, r.End)
	}
	t.late = t.late[:0]
	if t.protected {
		return t.amongWritten(found)
	}
	start := time.Now()
	err := t.scan(t.m.live, queryPrivate, t.all(), found)
	t.spent += time.Since(start)
	return err
}

// mostUnknown is how many runs are looked at one by one, before all pages are at once.
const mostUnknown = 64

// amongWritten calls found for private pages, once all pages are protected. A hit of the scan is
// a page written since, read for the first time, or under a new page table; hits that are not
// private are protected again, so that they are not found again.
func (t *kernelTracker) amongWritten(found func(first, end uint32)) error {
	t.unknown = t.unknown[:0]
	table := &t.m.table
	if err := t.scan(t.m.live, queryWritten, t.all(), func(first, end uint32) {
		for p := first; p < end; {
			from, held := p, table.refs[p].held()
			for p < end && table.refs[p].held() == held {
				p++
			}
			if held {
				found(from, p)
			} else {
				t.unknown = append(t.unknown, Run{from, p})
			}
		}
	}); err != nil {
		return err
	}
	t.around.step(t.m, len(t.unknown) == 0)
	if len(t.unknown) == 0 {
		return nil
	}
	ask := t.unknown
	if len(ask) > mostUnknown {
		ask = []Run{{t.unknown[0].First, t.unknown[len(t.unknown)-1].End}}
	}
	private := t.private[:0]
	for _, r := range ask {
		if err := t.scan(t.m.live, queryPrivate.unprotected(), r, func(first, end uint32) {
			private = append(private, Run{first, end})
		}); err != nil {
			return err
		}
	}
	t.private = private
	for _, r := range t.unknown {
		// The parts of r in between what was found in it. Of what was found, the held pages have
		// been named, and none of them is in r.
		for len(private) > 0 && private[0].First < r.End {
			if f := private[0]; f.End > r.First {
				first, end := max(f.First, r.First), min(f.End, r.End)
				if err := t.protect(Run{r.First, first}); err != nil {
					return err
				}
				found(first, end)
				r.First = end
				if f.End > r.End {
					break // it goes on in the next run
				}
			}
			private = private[1:]
		}
		if err := t.protect(r); err != nil {
			return err
		}
	}
	return nil
}

// protect protects all pages of r, present or not.
func (t *kernelTracker) protect(r Run) error {
	return t.scan(t.m.live, queryWritten.protecting(), r, func(uint32, uint32) {})
}

// A guard costs a scan, which is linear in the memory's pages, and a fault for each page that is
// written again. In comparisons (BenchmarkPart in bench): 160 for the calls, 0.03 for a page
// scanned, 8 for a fault. That is while pages and shadows are in the processor's cache, up to 512
// of them; a comparison from memory costs half a microsecond, as much as such a fault.
const (
	guardBase, guardPagesScanned, guardPerPage, guardInCache = 160, 32, 8, 512

	comparison = 120 * time.Nanosecond // more or less
)

// Clean guards the held pages when comparing those that do not change has cost as much as that,
// and looks at every page as well. So what a commit costs depends on the pages that change and not
// on how many are held.
func (t *kernelTracker) Clean(s Settled) (guarded bool) {
	price := guardBase + int(t.m.pages())/guardPagesScanned +
		guardPerPage*min(s.Copied, guardInCache)
	if t.protects && !t.hopeless && t.m.size > 0 && s.Wasted+int(t.spent/comparison) >= price {
		// After an error some pages may be protected and still be copied; comparing those is
		// merely slower.
		t.hopeless = t.guard() != nil
		guarded = !t.hopeless
		t.asked = true
	}
	if t.asked || s.Faulted {
		// The guest has not run since Changed: the faults in between are ours.
		t.faults = faultCounter()
		t.asked = false
	}
	return guarded
}

// guard protects all pages. The mapping is registered for it at the first call only: a mapping
// registered with userfaultfd reads its file in single pages instead of in runs.
func (t *kernelTracker) guard() error {
	if !t.protected {
		if err := t.register(t.m.live); err != nil {
			return err
		}
	}
	// Each private page is held now, unless it was written from outside of an event, which is not
	// allowed. Still it must not be missed.
	refs := t.m.table.refs
	query := queryPrivate.unprotected().protecting()
	if err := t.scan(t.m.live, query, t.all(), func(first, end uint32) {
		for p := first; p < end; p++ {
			if int(p) >= len(refs) || !refs[p].held() {
				t.late = append(t.late, Run{p, p + 1})
			}
		}
	}); err != nil {
		return err
	}
	if err := t.protect(t.all()); err != nil {
		return err
	}
	t.protected, t.spent = true, 0
	return nil
}

// Dropped protects the pages at once: the next scan would find and look closer at each.
func (t *kernelTracker) Dropped(runs []Run, reclaimed bool) error {
	t.blind = t.blind || !reclaimed
	if !t.protected {
		return nil
	}
	if len(runs) > mostUnknown+t.m.table.copied {
		// At once, with the copied pages in between: they are compared all the same.
		runs = []Run{{runs[0].First, runs[len(runs)-1].End}}
	}
	for _, r := range runs {
		if err := t.protect(r); err != nil {
			return err
		}
	}
	return nil
}

var errNoKernel = errors.New("the kernel does not tell which pages were written")

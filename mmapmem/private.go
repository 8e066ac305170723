package mmapmem

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Range is a run of bytes of the memory.
type Range struct {
	Offset uint32 // address of the first byte
	Len    uint32 // bytes
}

// private is what a Private memory knows of its pages.
//
// Extra memory: a shadow of 4 KiB for each hot page, 4 bytes for each page of the memory, and at
// most maxRangesPerPage ranges of 8 bytes for each page that an event changes.
type private struct {
	base    []byte // the file, read-only: the old bytes of fresh pages
	tracker tracker
	faults  int64 // the process's fault counter when the last set of private pages was known
	scanned bool  // the tracker was asked since then

	slotOf []int32   // page index -> index into hot plus one, or minus (index into cool plus one); 0 for a cold page
	hot    []hotPage // compared at each commit
	cool   []hotPage // write-protected; see guard
	fresh  []uint32  // pages found private by the last Changes that are not hot
	ranges []Range   // the result of the last Changes
	free   []*[PageSize]byte
	slab   [][PageSize]byte // shadows not given out yet

	waste   int  // comparisons of unchanged hot pages since the last guard or Evict
	noGuard bool // the tracker cannot protect pages
	stuck   bool // there are cold pages that are private: a write to one is no fault
}

type hotPage struct {
	page    uint32 // page index
	changed uint64 // seq of the last commit that changed it
	shadow  *[PageSize]byte
}

func (m *Memory) openPrivate(reserve int) error {
	base, err := mapBase(m.file.OSFile(), reserve)
	if err != nil {
		return fmt.Errorf("%s: map: %w", m.file.Name(), err)
	}
	m.base = base
	m.tracker = newTracker(m)
	m.faults = -1
	return nil
}

func (m *Memory) closePrivate() error {
	if m.kind != Private {
		return nil
	}
	return errors.Join(m.tracker.close(), unmap(m.base))
}

// Tracker names the mechanism that finds fresh pages; see tracker.go.
func (m *Memory) Tracker() string {
	if m.kind == Shared {
		return "none"
	}
	return m.tracker.name()
}

// HotPages is the number of pages that are compared at each commit.
func (m *Memory) HotPages() int { return len(m.hot) }

// PrivatePages is the number of pages that have a shadow: hot and cool ones.
func (m *Memory) PrivatePages() int { return len(m.hot) + len(m.cool) }

// FreshPages is the number of pages that the last Changes found newly private.
func (m *Memory) FreshPages() int { return len(m.fresh) }

// Idle tells whether comparing pages that do not change has cost more than a checkpoint would,
// after which they could be evicted. It does not where idle pages can be write-protected.
func (m *Memory) Idle() bool { return m.waste > wasteBase+wastePerPage*len(m.hot) }

const (
	// wasteBase stands for the cost of a checkpoint, in comparisons of 0.12 µs; wastePerPage for
	// that of an eviction and of the fault that brings the page back.
	wasteBase, wastePerPage = 4096, 32

	// A guard pass costs a scan, which is linear in the memory's pages, and a fault for each
	// page that is written again. In comparisons: 0.03 for a page scanned, 8 for a fault. That is while
	// pages and shadows are in the processor's cache; a comparison from memory costs half a microsecond, as
	// much as such a fault.
	guardBase, guardPagesScanned, guardPerPage, guardInCache = 160, 32, 8, 512

	// comparison is how long a comparison takes, more or less (BenchmarkParts in bench).
	comparison = 120 * time.Nanosecond
)

// guard write-protects the hot pages and calls them cool, when comparing pages that do not change
// has cost as much as that. A cool page is not compared: a write to it is a fault, which moves
// the counter and makes the next scan find it. So what a commit costs depends on the pages that
// change and not on how many are private.
//
// It runs at the end of Committed and Rollback, when each private page has a shadow that is equal
// to it.
func (m *Memory) guard() {
	if m.noGuard || m.size == 0 {
		return
	}
	p, ok := m.tracker.(protector)
	if ok && m.waste+int(p.avoidable()/comparison) < guardBase+int(m.size/PageSize)/guardPagesScanned+guardPerPage*min(len(m.hot), guardInCache) {
		return
	}
	m.growSlots()
	if !ok || p.protect(m.meetPrivate) != nil {
		// Some pages may be protected now and still hot; comparing those is merely slower.
		m.noGuard = true
		return
	}
	for _, h := range m.hot {
		m.cool = append(m.cool, h)
		m.slotOf[h.page] = -int32(len(m.cool))
	}
	clear(m.hot)
	m.hot = m.hot[:0]
	m.waste = 0
	m.scanned = true
}

// meetPrivate takes in private pages that are not known. At a quiescent point there are none, unless they were written from
// outside of an event, which is not allowed. Still they must not be missed.
func (m *Memory) meetPrivate(first, end uint32) {
	for p := first; p < end; p++ {
		if m.slotOf[p] == 0 {
			shadow := m.newShadow()
			*shadow = *m.basePage(p)
			m.addHot(hotPage{page: p, shadow: shadow})
		}
	}
}

// becomeHot notes that a cool page was written.
func (m *Memory) becomeHot(p uint32) {
	i := -m.slotOf[p] - 1
	h := m.cool[i]
	last := len(m.cool) - 1
	m.cool[i] = m.cool[last]
	m.slotOf[m.cool[i].page] = -(i + 1)
	m.cool[last] = hotPage{}
	m.cool = m.cool[:last]
	m.addHot(h)
}

func (m *Memory) addHot(h hotPage) {
	m.hot = append(m.hot, h)
	m.slotOf[h.page] = int32(len(m.hot))
}

func (m *Memory) page(i uint32) *[PageSize]byte {
	return (*[PageSize]byte)(m.live[uint64(i)*PageSize:])
}

func (m *Memory) basePage(i uint32) *[PageSize]byte {
	return (*[PageSize]byte)(m.base[uint64(i)*PageSize:])
}

// Changes returns the ranges in which the memory differs from the last commit. The slice is
// valid until the next call. No guest code may run between Changes and the Committed or Rollback
// that follows it.
//
// If the fault counter has not moved since the last known set of private pages, no page has
// become private (making one private is a fault), and only hot pages can have changed.
func (m *Memory) Changes() ([]Range, error) {
	m.ranges = m.ranges[:0]
	if err := m.findFresh(); err != nil {
		return nil, err
	}
	for i := range m.hot {
		h := &m.hot[i]
		before := len(m.ranges)
		m.ranges = appendDiff(m.ranges, h.page, m.page(h.page), h.shadow)
		if len(m.ranges) == before {
			m.waste++
		}
	}
	for _, p := range m.fresh {
		m.ranges = appendDiff(m.ranges, p, m.page(p), m.basePage(p))
	}
	return m.ranges, nil
}

// findFresh sets m.fresh.
func (m *Memory) findFresh() error {
	m.fresh = m.fresh[:0]
	now := m.tracker.counter()
	if now == m.faults && now >= 0 && !m.stuck {
		return nil
	}
	m.growSlots()
	m.scanned = true
	return m.tracker.private(func(first, end uint32) {
		for p := first; p < end; p++ {
			switch slot := m.slotOf[p]; {
			case slot == 0:
				m.fresh = append(m.fresh, p)
			case slot < 0:
				m.becomeHot(p)
			}
		}
	})
}

// growSlots makes slotOf as long as the memory.
func (m *Memory) growSlots() {
	if n := int(m.size / PageSize); n > len(m.slotOf) {
		m.slotOf = append(m.slotOf, make([]int32, n-len(m.slotOf))...)
	}
}

// settled notes that every private page is hot, as long as the fault counter stays where it is
// now. Faults between the scan and this point are ours: the guest does not run.
func (m *Memory) settled() {
	m.fresh = m.fresh[:0]
	if m.scanned {
		m.faults = m.tracker.counter()
		m.scanned = false
	}
}

// FaultsAreOurs says, after Committed, that all faults since Changes are the caller's own, such as
// those of stores to a mapped wal. The next Changes then need not look for what they have made
// private.
func (m *Memory) FaultsAreOurs() {
	m.scanned = true
	m.settled()
}

// Committed makes the bytes that Changes saw the reference for the next comparison. seq is the
// number of the commit. Fresh pages become hot.
func (m *Memory) Committed(seq uint64) {
	m.updateShadows(seq)
	for _, p := range m.fresh {
		shadow := m.newShadow()
		*shadow = *m.page(p)
		m.addHot(hotPage{page: p, changed: seq, shadow: shadow})
	}
	m.fresh = m.fresh[:0]
	m.guard()
	m.settled()
}

// CommittedToFile is Committed for an event whose changes are in the file already: its fresh
// pages become cold instead of hot, so that an event that changes a large part of the memory
// needs no shadows.
func (m *Memory) CommittedToFile(seq uint64) error {
	m.updateShadows(seq)
	err := m.drop(m.fresh)
	m.settled()
	return err
}

func (m *Memory) updateShadows(seq uint64) {
	for _, r := range m.ranges {
		p := r.Offset / PageSize
		if m.slotOf[p] == 0 {
			continue // fresh
		}
		h := &m.hot[m.slotOf[p]-1]
		h.changed = seq
		at := r.Offset % PageSize
		copy(h.shadow[at:at+r.Len], m.live[r.Offset:])
	}
}

// keptFresh is how many fresh pages a rollback keeps: a query that comes again writes to the same
// pages again, and putting their bytes back costs a tenth of dropping them and of the faults that
// bring them back (BenchmarkView). With keptPrivate private pages it keeps none: only a checkpoint
// leads to evictions, and queries make none.
const (
	keptFresh   = 64
	keptPrivate = 4096
)

// Rollback puts the memory back to its last commit, when it had size bytes: hot pages get their
// shadow's bytes, fresh ones are dropped or, if they are few, become hot. The guest's memory keeps
// its size; bytes past size read as zero, since nothing past it was ever written to the file.
func (m *Memory) Rollback(size uint64) error {
	if err := m.findFresh(); err != nil {
		return err
	}
	for i := range m.hot {
		h := &m.hot[i]
		if live := m.page(h.page); bytes.Equal(live[:], h.shadow[:]) {
			m.waste++
		} else {
			*live = *h.shadow
		}
	}
	if len(m.fresh) > keptFresh || m.PrivatePages() > keptPrivate || m.size != size {
		err := m.drop(m.fresh)
		m.settled()
		return err
	}
	for _, p := range m.fresh {
		shadow := m.newShadow()
		*shadow = *m.basePage(p)
		*m.page(p) = *shadow
		// No commit that is not in the file has changed it: it may be evicted at any time.
		m.addHot(hotPage{page: p, shadow: shadow})
	}
	m.fresh = m.fresh[:0]
	m.guard()
	m.settled()
	return nil
}

// drop makes pages cold. Runs of neighbours cost one system call.
func (m *Memory) drop(pages []uint32) error {
	runs := runsOf(pages)
	for _, r := range runs {
		first, end := uint64(r.first)*PageSize, uint64(r.end)*PageSize
		stuck, err := dropRange(m.live[first:end], m.base[first:end])
		m.stuck = m.stuck || stuck
		if err != nil {
			return fmt.Errorf("%s: drop pages %d to %d: %w", m.file.Name(), r.first, r.end-1, err)
		}
	}
	if p, ok := m.tracker.(protector); ok {
		return p.dropped(runs)
	}
	return nil
}

// Evict makes cold up to limit private pages that no commit after folded has changed and that have
// been idle for at least idle commits before now. The bytes of all commits up to folded must be
// in the file. It tells whether there are more.
func (m *Memory) Evict(folded, now, idle uint64, limit int) (more bool, err error) {
	var pages []uint32
	rest := func(from []hotPage, sign int32) []hotPage {
		kept := from[:0]
		for _, h := range from {
			resting := h.changed <= folded && now-h.changed >= idle
			if resting && len(pages) < limit {
				pages = append(pages, h.page)
				m.slotOf[h.page] = 0
				m.free = append(m.free, h.shadow)
				continue
			}
			more = more || resting
			kept = append(kept, h)
			m.slotOf[h.page] = sign * int32(len(kept))
		}
		clear(from[len(kept):])
		return kept
	}
	m.cool = rest(m.cool, -1)
	m.hot = rest(m.hot, 1)
	if !more {
		m.waste = 0
	}
	slices.Sort(pages)
	return more, m.drop(pages)
}

// shadowSlab is how many shadows are allocated at once (256 KiB).
const shadowSlab = 64

func (m *Memory) newShadow() *[PageSize]byte {
	if n := len(m.free); n > 0 {
		s := m.free[n-1]
		m.free = m.free[:n-1]
		return s
	}
	if len(m.slab) == 0 {
		m.slab = make([][PageSize]byte, shadowSlab)
	}
	s := &m.slab[0]
	m.slab = m.slab[1:]
	return s
}

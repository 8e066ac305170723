package mmapmem

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
)

// Range is a run of bytes of the memory.
type Range struct {
	Offset uint32 // address of the first byte
	Len    uint32 // bytes
}

// private is what a Private memory knows of its pages.
//
// Extra memory: what the page table takes, a shadow of 4 KiB for each held page, and at most
// maxRangesPerPage ranges of 8 bytes for each page that an event changes.
type private struct {
	base    []byte // the file, read-only: the old bytes of clean and new pages
	tracker Tracker
	table   pageTable
	policy  policy
	shadows shadows

	found func(first, end uint32) // what the tracker is given, made once

	news    []uint32 // new pages, in the order in which they were found
	ranges  []Range  // of the Pending
	pending uint64   // number of the Pending, odd while it is open
}

func (m *Memory) openPrivate(reserve int, trackers []NewTracker) (err error) {
	if m.base, err = mapBase(m.file.OSFile(), reserve); err != nil {
		return fmt.Errorf("map %d bytes of address space: %w", reserve, mapLimit(err))
	}
	m.policy = newPolicy()
	m.found = func(first, end uint32) {
		for p := first; p < end; p++ {
			if m.table.found(p) {
				m.news = append(m.news, p)
			}
		}
	}
	if len(trackers) == 0 {
		trackers = []NewTracker{Best}
	}
	var errs []error
	for _, open := range trackers {
		if m.tracker, err = open(m); err == nil {
			if t, ok := m.tracker.(interface{ heldCostNothing() bool }); ok && t.heldCostNothing() {
				m.policy.keepHeld()
			}
			return nil
		}
		errs = append(errs, err)
	}
	return errors.Join(append(errs, unmap(m.base))...)
}

func (m *Memory) closePrivate() error {
	if m.kind != Private {
		return nil
	}
	return errors.Join(m.tracker.Close(), unmap(m.base))
}

// Tracker names the mechanism that finds changed pages; see [Tracker].
func (m *Memory) Tracker() string {
	if m.kind == Shared {
		return "none"
	}
	return m.tracker.Name()
}

// CopiedPages is the number of pages that are compared at each commit.
func (m *Memory) CopiedPages() int { return m.table.copied }

// HeldPages is the number of pages that have a shadow.
func (m *Memory) HeldPages() int { return len(m.table.held) }

// WantsCheckpoint tells whether pages should be given back, which needs a checkpoint: see
// [Memory.InFile].
func (m *Memory) WantsCheckpoint() bool { return m.policy.wantsCheckpoint(&m.table) }

// InFile says that the bytes of all commits up to seq are in the file. The commits that follow give
// back pages that have come to rest, some each time.
func (m *Memory) InFile(seq uint64) {
	m.policy.inFile = max(m.policy.inFile, seq)
	m.policy.look = len(m.table.held)
}

func (m *Memory) pages() uint32 { return uint32(m.size / PageSize) }

func (m *Memory) page(i uint32) *[PageSize]byte {
	return (*[PageSize]byte)(m.live[uint64(i)*PageSize:])
}

func (m *Memory) filePage(i uint32) *[PageSize]byte {
	return (*[PageSize]byte)(m.base[uint64(i)*PageSize:])
}

// Pending is what an event has changed, between [Memory.Changes] and the end of the event: Keep,
// KeepInFile, or [Memory.Rollback]. The guest must not run meanwhile.
type Pending struct {
	m  *Memory
	id uint64
}

var errEnded = errors.New("a Pending was used after its event had ended")

// Changes finds the ranges in which the memory differs from the last commit. An error is one after
// which it cannot be told what has changed: the memory is of no more use.
func (m *Memory) Changes() (Pending, error) {
	if m.pending%2 == 1 {
		return Pending{}, errors.New("Changes was called twice in one event")
	}
	if err := m.find(); err != nil {
		return Pending{}, err
	}
	m.pending++
	m.ranges = m.ranges[:0]
	for i := range m.table.held[:m.table.copied] {
		h := &m.table.held[i]
		before := len(m.ranges)
		m.ranges = appendDiff(m.ranges, h.page, m.page(h.page), h.shadow)
		if len(m.ranges) == before {
			m.policy.wasted++
		}
	}
	for _, p := range m.news {
		m.ranges = appendDiff(m.ranges, p, m.page(p), m.filePage(p))
	}
	return Pending{m, m.pending}, nil
}

// find asks the tracker.
func (m *Memory) find() error {
	m.table.cover(m.pages())
	return m.tracker.Changed(m.found)
}

// Ranges are the bytes that have changed, in ascending runs within each page. The slice is valid
// until the event ends.
func (p Pending) Ranges() []Range {
	if !p.open() {
		return nil
	}
	return p.m.ranges
}

// TooMany tells that the event has changed so many pages that they should not get shadows: put them
// into the file and call KeepInFile. If that cannot be, Keep holds them all the same.
func (p Pending) TooMany() bool {
	return p.open() && p.m.policy.tooMany(&p.m.table, len(p.m.news))
}

func (p Pending) open() bool { return p.m != nil && p.m.pending == p.id }

func (p Pending) end() error {
	if !p.open() {
		return errEnded
	}
	p.m.pending++
	return nil
}

// Keep makes the bytes that Changes saw the reference for the next event. seq is the number of
// the commit; it must be where a recovery finds it, since from now on nothing can bring back what
// was before, and pages that have come to rest may be given back. faulted tells that the caller
// may have caused page faults since Changes, as stores to a mapped log do.
func (p Pending) Keep(seq uint64, faulted bool) error {
	if err := p.end(); err != nil {
		return err
	}
	m := p.m
	m.updateShadows(seq)
	for _, page := range m.news {
		shadow := m.shadows.get()
		*shadow = *m.page(page)
		m.table.hold(heldPage{page: page, changed: seq, shadow: shadow})
	}
	m.news = m.news[:0]
	m.clean(faulted)
	return m.evict()
}

// KeepInFile is Keep for an event whose bytes, and those of all before it, are in the file already.
// Its new pages get no shadows, so that an event that changes a large part of the memory needs
// no more than that. If there are too many held pages, all are given back.
func (p Pending) KeepInFile(seq uint64) error {
	if err := p.end(); err != nil {
		return err
	}
	m := p.m
	m.updateShadows(seq)
	m.policy.inFile = seq
	if len(m.table.held)+len(m.news) > mostHeld {
		for n := len(m.table.held); n > 0; n-- {
			h := m.table.release(n - 1)
			m.shadows.put(h.shadow)
			m.news = append(m.news, h.page)
		}
	}
	err := m.dropNew()
	m.clean(true)
	return err
}

// updateShadows brings the shadows of copied pages to the bytes of commit seq.
func (m *Memory) updateShadows(seq uint64) {
	m.policy.now = seq
	for _, r := range m.ranges {
		p := r.Offset / PageSize
		if ref := m.table.refs[p]; ref.held() {
			h := &m.table.held[ref.index()]
			h.changed = seq
			at := r.Offset % PageSize
			copy(h.shadow[at:at+r.Len], m.live[r.Offset:])
		}
	}
}

// clean tells the tracker that all pages have the bytes of the last commit.
func (m *Memory) clean(faulted bool) {
	if m.tracker.Clean(Settled{Copied: m.table.copied, Wasted: m.policy.wasted, Faulted: faulted}) {
		m.table.guard()
		m.policy.wasted = 0
	}
}

// Rollback puts the memory back to its last commit, when it had size bytes: held pages get their
// shadow's bytes, new ones are dropped or, if they are few, become held. The guest's memory keeps
// its size; bytes past size read as zero, since nothing past it was ever written to the file.
//
// It ends a Pending, if there is one.
func (m *Memory) Rollback(size uint64) error {
	if m.pending%2 == 1 {
		m.pending++
	} else if err := m.find(); err != nil {
		return err
	}
	for i := range m.table.held[:m.table.copied] {
		h := &m.table.held[i]
		if live := m.page(h.page); bytes.Equal(live[:], h.shadow[:]) {
			m.policy.wasted++
		} else {
			*live = *h.shadow
		}
	}
	if len(m.news) > keptNew || len(m.table.held) > keptHeld || m.size != size {
		err := m.dropNew()
		m.clean(false)
		return err
	}
	for _, p := range m.news {
		shadow := m.shadows.get()
		*shadow = *m.filePage(p)
		*m.page(p) = *shadow
		// No commit that is not in the file has changed it: it may be evicted at any time.
		m.table.hold(heldPage{page: p, shadow: shadow})
	}
	m.news = m.news[:0]
	m.clean(false)
	return nil
}

// dropNew makes the new pages clean.
func (m *Memory) dropNew() error {
	for _, p := range m.news {
		m.table.refs[p] = refClean
	}
	slices.Sort(m.news)
	err := m.drop(m.news)
	m.news = m.news[:0]
	return err
}

// evict makes pages clean that have come to rest, as long as there are some and as many as one
// commit may take. It is called right after an event has been kept and at no other time: what the
// guest writes to a guarded page afterwards is in that page alone, until the tracker has been
// asked.
func (m *Memory) evict() error {
	if m.policy.look == 0 || len(m.table.held) <= m.policy.keep {
		m.policy.look = 0
		return nil
	}
	var pages []uint32
	// Backwards: what release puts into the place of an entry has been looked at, or is copied
	// and will be looked at after the next checkpoint.
	at := min(m.policy.look, len(m.table.held))
	for looks := 0; at > 0 && looks < evictLook && len(pages) < m.policy.batch; looks++ {
		at--
		if h := &m.table.held[at]; m.policy.rests(h) {
			pages = append(pages, h.page)
			m.shadows.put(m.table.release(at).shadow)
		}
	}
	if m.policy.look = at; at == 0 {
		m.policy.wasted = 0
	}
	slices.Sort(pages)
	return m.drop(pages)
}

// drop makes pages, which ascend, show the file again. Runs of neighbours cost one system call.
func (m *Memory) drop(pages []uint32) error {
	if len(pages) == 0 {
		return nil
	}
	runs := runsOf(pages)
	reclaimed := true
	for _, r := range runs {
		first, end := uint64(r.First)*PageSize, uint64(r.End)*PageSize
		if reclaim(m.live[first:end]) != nil {
			// The same bytes, in pages of the process.
			copy(m.live[first:end], m.base[first:end])
			reclaimed = false
		}
	}
	if err := m.tracker.Dropped(runs, reclaimed); err != nil {
		return fmt.Errorf("%s: give back %d pages from page %d on: %w",
			m.file.Name(), len(pages), pages[0], err)
	}
	return nil
}

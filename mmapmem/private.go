package mmapmem

import (
	"bytes"
	"errors"
	"fmt"
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

	slotOf []int32 // page index -> index into hot plus one; 0 for a cold page
	hot    []hotPage
	fresh  []uint32 // pages found private by the last Changes that are not hot
	ranges []Range  // the result of the last Changes
	free   []*[PageSize]byte
	slab   [][PageSize]byte // shadows not given out yet

	waste int // comparisons of unchanged hot pages since the last Evict
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

// FreshPages is the number of pages that the last Changes found newly private.
func (m *Memory) FreshPages() int { return len(m.fresh) }

// Waste is the number of comparisons since the last Evict that found a hot page unchanged.
func (m *Memory) Waste() int { return m.waste }

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
	if now == m.faults && now >= 0 {
		return nil
	}
	if n := int(m.size / PageSize); n > len(m.slotOf) {
		m.slotOf = append(m.slotOf, make([]int32, n-len(m.slotOf))...)
	}
	m.scanned = true
	return m.tracker.private(func(first, end uint32) {
		for p := first; p < end; p++ {
			if m.slotOf[p] == 0 {
				m.fresh = append(m.fresh, p)
			}
		}
	})
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

// Committed makes the bytes that Changes saw the reference for the next comparison. seq is the
// number of the commit. Fresh pages become hot.
func (m *Memory) Committed(seq uint64) {
	m.updateShadows(seq)
	for _, p := range m.fresh {
		shadow := m.newShadow()
		*shadow = *m.page(p)
		m.hot = append(m.hot, hotPage{page: p, changed: seq, shadow: shadow})
		m.slotOf[p] = int32(len(m.hot))
	}
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
		if int(p) >= len(m.slotOf) || m.slotOf[p] == 0 {
			continue // fresh
		}
		h := &m.hot[m.slotOf[p]-1]
		h.changed = seq
		at := r.Offset % PageSize
		copy(h.shadow[at:at+r.Len], m.live[r.Offset:])
	}
}

// Rollback puts the memory back to its last commit: hot pages get their shadow's bytes, fresh
// ones are dropped. The size stays what it is; bytes past the committed size read as zero, since
// nothing past it was ever written to the file.
func (m *Memory) Rollback() error {
	if err := m.findFresh(); err != nil {
		return err
	}
	for i := range m.hot {
		h := &m.hot[i]
		if live := m.page(h.page); !bytes.Equal(live[:], h.shadow[:]) {
			*live = *h.shadow
		}
	}
	err := m.drop(m.fresh)
	m.settled()
	return err
}

// drop makes pages cold. Runs of neighbours cost one system call.
func (m *Memory) drop(pages []uint32) error {
	for i := 0; i < len(pages); {
		j := i + 1
		for j < len(pages) && pages[j] == pages[j-1]+1 {
			j++
		}
		first, end := uint64(pages[i])*PageSize, uint64(pages[j-1]+1)*PageSize
		if err := dropRange(m.live[first:end], m.base[first:end]); err != nil {
			return fmt.Errorf("%s: drop pages %d to %d: %w", m.file.Name(), pages[i], pages[j-1], err)
		}
		i = j
	}
	return nil
}

// Evict makes cold up to limit hot pages that no commit after folded has changed and that have
// been idle for at least idle commits before now. The bytes of all commits up to folded must be
// in the file. It returns how many pages were evicted and whether more could be.
func (m *Memory) Evict(folded, now, idle uint64, limit int) (evicted int, more bool, err error) {
	var pages []uint32
	kept := m.hot[:0]
	for _, h := range m.hot {
		if h.changed > folded || now-h.changed < idle {
			kept = append(kept, h)
			continue
		}
		if len(pages) == limit {
			more = true
			kept = append(kept, h)
			continue
		}
		pages = append(pages, h.page)
		m.slotOf[h.page] = 0
		m.free = append(m.free, h.shadow)
	}
	clear(m.hot[len(kept):])
	m.hot = kept
	for i := range m.hot {
		m.slotOf[m.hot[i].page] = int32(i + 1)
	}
	if !more {
		m.waste = 0
	}
	sortPages(pages)
	return len(pages), more, m.drop(pages)
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

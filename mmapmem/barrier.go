package mmapmem

// Marks is what a guest tells of the pages that it writes; see package rewriter. It is asked when
// no guest is running.
type Marks interface {
	// Marked calls found for each page that the guest has written since Forget, by index, and for
	// some that it has not; some may lie behind the end of the memory. known is false if that may
	// not be all: then every page may have been written.
	Marked(found func(page uint32)) (known bool)
	// Forget makes no page marked. known is false if that could not be done: the next Marked will
	// not be known, unless the guest has been started anew.
	Forget() (known bool)
	// HostTells says that the host function which the guest is calling tells what it writes.
	HostTells()
}

// Barrier makes the Tracker of a guest that tells what it writes. What the host writes has to be
// told by [Memory.MarkWritten] or [Memory.MarkAll].
//
//	barrier  the guest's own marks; any system. Its cost goes by the pages that are written
func Barrier(marks Marks) NewTracker {
	return func(m *Memory) (Tracker, error) {
		t := &barrierTracker{m: m, marks: marks}
		t.mark = func(page uint32) { t.name(page) }
		return t, nil
	}
}

type barrierTracker struct {
	m     *Memory
	marks Marks
	mark  func(page uint32)
	found func(first, end uint32) // of the call of Changed

	host     []uint32 // pages that the host has written since Clean
	all      bool     // it may have written any
	compared uint64   // events in which all pages were compared
}

func (*barrierTracker) Name() string              { return "barrier" }
func (*barrierTracker) Dropped([]Run, bool) error { return nil }
func (*barrierTracker) Close() error              { return nil }
func (*barrierTracker) heldCostNothing() bool     { return true }

// Changed names marked pages, or, if it is not known which are, those that have changed.
func (t *barrierTracker) Changed(found func(first, end uint32)) error {
	t.found = found
	known := t.marks.Marked(t.mark)
	for _, page := range t.host {
		t.name(page)
	}
	if !known || t.all {
		t.compared++
		for page := range t.m.pages() {
			t.name(page)
		}
	}
	return nil
}

// name names a page, unless it is seen at once that it has not changed: a clean page would get a
// shadow for that.
func (t *barrierTracker) name(page uint32) {
	m := t.m
	if page >= m.pages() {
		return
	}
	if ref := m.table.ref(page); ref == refClean && *m.page(page) == *m.filePage(page) {
		return
	}
	t.found(page, page+1)
}

// Clean forgets: all marked pages have the bytes of the last commit.
func (t *barrierTracker) Clean(Settled) bool {
	t.host = t.host[:0]
	t.all = !t.marks.Forget()
	return true
}

// hostMarker is a Tracker that has to be told what the host writes.
type hostMarker interface {
	markWritten(first, end uint32)
	markAll()
	hostTells()
}

func (t *barrierTracker) markWritten(first, end uint32) {
	if n := len(t.host); n > 0 && t.host[n-1] == first && end == first+1 {
		return // the buffer of an event, most likely
	}
	const most = 1 << 16
	if len(t.host)+int(end-first) > most {
		t.all = true
		return
	}
	for page := first; page < end; page++ {
		t.host = append(t.host, page)
	}
}

func (t *barrierTracker) markAll()   { t.all = true }
func (t *barrierTracker) hostTells() { t.marks.HostTells() }

// MarkWritten says that the host has written, or is about to write in this event, n bytes at an
// address. It is for trackers that do not see the host's stores; nothing happens with the others.
func (m *Memory) MarkWritten(address, n uint32) {
	if h, ok := m.tracker.(hostMarker); ok && n > 0 {
		end := (uint64(address) + uint64(n) + PageSize - 1) / PageSize
		h.markWritten(address/PageSize, uint32(end))
	}
}

// MarkAll says that the host may have written, or may write in this event, anything.
func (m *Memory) MarkAll() {
	if h, ok := m.tracker.(hostMarker); ok {
		h.markAll()
	}
}

// HostTells says that the host function which the guest is calling tells all that it writes by
// MarkWritten: without it, every page may have been written.
func (m *Memory) HostTells() {
	if h, ok := m.tracker.(hostMarker); ok {
		h.hostTells()
	}
}

// MarksHost tells whether the tracker has to be told what the host writes.
func (m *Memory) MarksHost() bool {
	_, ok := m.tracker.(hostMarker)
	return ok
}

// ComparedAll is how many events have had every page compared, because somebody who does not tell
// may have written.
func (m *Memory) ComparedAll() uint64 {
	if t, ok := m.tracker.(*barrierTracker); ok {
		return t.compared
	}
	return 0
}

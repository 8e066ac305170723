package mmapmem

import "github.com/mmrun/mmrun/vfs"

// A page of a Private memory is in one of these states.
//
//	state    shadow  found when it is written
//	clean    no      by the tracker; its old bytes are those of the file
//	new      no      it was found; the event that wrote it has not ended yet
//	copied   yes     by comparing it with the shadow, at each commit
//	guarded  yes     by the tracker
//
//	          found            kept              Clean: all guarded
//	  clean --------> new ------------> copied <--------------------> guarded
//	    ^              |                   |          found              |
//	    '--------------+-------------------+-----------------------------'
//	       rolled back, or its bytes are in the file: dropped
type pageState int

const (
	stateClean pageState = iota
	stateNew
	stateCopied
	stateGuarded
)

func (s pageState) String() string {
	return [...]string{"clean", "new", "copied", "guarded"}[s]
}

// pageRef is what the page table has of one page: 0 for a clean one, 1 for a new one, otherwise
// the index of its entry among the held ones, plus 2. The zero value is right for pages that
// nobody has asked about, so that the table can grow at any time.
type pageRef uint32

const (
	refClean pageRef = iota
	refNew
	refHeld
)

func refTo(index int) pageRef { return pageRef(index) + refHeld }

func (r pageRef) held() bool { return r >= refHeld }
func (r pageRef) index() int { return int(r - refHeld) }

// heldPage is a page with a shadow.
type heldPage struct {
	page    uint32 // page index
	changed uint64 // seq of the last commit that changed it
	shadow  *[PageSize]byte
}

// pageTable knows the state of each page. Memory: 4 bytes for each page up to the last one that was
// ever found, 24 for each held page.
type pageTable struct {
	refs   []pageRef  // by page index; pages behind the end are clean
	held   []heldPage // the copied ones, then the guarded ones
	copied int        // how many are copied
}

func (t *pageTable) ref(page uint32) pageRef {
	if int(page) < len(t.refs) {
		return t.refs[page]
	}
	return refClean
}

func (t *pageTable) state(page uint32) pageState {
	switch r := t.ref(page); {
	case r == refClean:
		return stateClean
	case r == refNew:
		return stateNew
	case r.index() < t.copied:
		return stateCopied
	default:
		return stateGuarded
	}
}

// cover makes refs as long as a memory of so many pages, for loops over it.
func (t *pageTable) cover(pages uint32) {
	if n := int(pages); n > len(t.refs) {
		t.refs = append(t.refs, make([]pageRef, n-len(t.refs))...)
	}
}

// found notes that a page may have been written. It tells whether the page is new by that.
func (t *pageTable) found(page uint32) bool {
	switch r := t.refs[page]; {
	case r == refClean:
		t.refs[page] = refNew
		return true
	case r.held() && r.index() >= t.copied:
		t.swap(r.index(), t.copied)
		t.copied++
	}
	return false
}

// hold makes a clean or new page copied.
func (t *pageTable) hold(h heldPage) {
	t.held = append(t.held, h)
	last := len(t.held) - 1
	t.refs[h.page] = refTo(last)
	t.swap(last, t.copied)
	t.copied++
}

// release makes the page of an entry clean. The last entries take its place.
func (t *pageTable) release(index int) heldPage {
	h := t.held[index]
	if index < t.copied {
		t.copied--
		t.swap(index, t.copied)
		index = t.copied
	}
	last := len(t.held) - 1
	t.swap(index, last)
	t.refs[h.page] = refClean
	t.held[last] = heldPage{}
	t.held = t.held[:last]
	return h
}

// guard makes all held pages guarded.
func (t *pageTable) guard() { t.copied = 0 }

func (t *pageTable) swap(i, j int) {
	if i == j {
		return
	}
	t.held[i], t.held[j] = t.held[j], t.held[i]
	t.refs[t.held[i].page], t.refs[t.held[j].page] = refTo(i), refTo(j)
}

// Look is what can be told of a page from outside.
type Look byte

// How a page looks; the later ones count more where several pages are told of at once.
const (
	Untouched Look = iota // it was never written: the file has no blocks for it, as far as is known
	Clean                 // its bytes are in the file
	Dirty                 // the file has older bytes
	Written               // changed by one of the last commits
)

// Looks tells how the memory looks at a quiescent point: into has one element for each run of
// pagesEach pages. Written is what a commit behind since has changed. It takes time for each page
// that is held and each stretch of data in the file.
func (m *Memory) Looks(into []Look, pagesEach uint32, since uint64) error {
	clear(into)
	mark := func(first, end uint32, l Look) {
		for cell := first / pagesEach; uint64(cell)*uint64(pagesEach) < uint64(end); cell++ {
			if int(cell) >= len(into) {
				return
			}
			into[cell] = max(into[cell], l)
		}
	}
	for at := int64(0); at < int64(m.size); {
		start, end, err := vfs.NextData(m.file, at)
		if err != nil {
			return err
		}
		if start >= end || start >= int64(m.size) {
			break
		}
		mark(uint32(start/PageSize), uint32((end+PageSize-1)/PageSize), Clean)
		at = end
	}
	if m.kind == Shared {
		return nil
	}
	for i := range m.table.held {
		switch h := &m.table.held[i]; {
		case h.changed > since:
			mark(h.page, h.page+1, Written)
		case h.changed > m.policy.inFile:
			mark(h.page, h.page+1, Dirty)
		}
	}
	return nil
}

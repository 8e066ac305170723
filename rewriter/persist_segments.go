package rewriter

import "github.com/mmrun/mmrun/rewriter/internal/wasm"

// markSegments gives a flag and a function to each segment for which it matters whether it has been
// dropped: one that the code reads, and that the code itself drops, at a time that only the running
// state knows.
func (p *persister) markSegments() {
	u := p.usage
	for i, d := range p.m.Data {
		// Active ones are passive from now on, and dropped by mmrun:init.
		if u.readsData[i] && (u.dropsData[i] || d.Active) {
			p.markSegment(DataSegment, i, wasm.OpDataDrop)
		}
	}
	for i, e := range p.m.Elems[:len(u.readsElem)] { // others have been appended
		if u.readsElem[i] && u.dropsElem[i] && e.Mode == wasm.ElemPassive {
			p.markSegment(ElemSegment, i, wasm.OpElemDrop)
		}
	}
}

func (p *persister) markSegment(kind SegmentKind, index int, drop wasm.Op) {
	s := Segment{Kind: kind, Index: uint32(index)}
	s.Dropped = reservedName(kind.String(), index, "dropped")
	flag := p.addFlag(s.Dropped)
	s.Drop = reservedName(kind.String(), index, "drop")
	p.addFunc(s.Drop, nil, nil, nil, setFlag(wasm.Code(nil).Op(drop, s.Index), flag))
	p.info.Segments = append(p.info.Segments, s)
	if p.segments == nil {
		p.segments = map[segmentKey]uint32{}
	}
	p.segments[segmentKey{kind, s.Index}] = flag
}

// segmentKey names a segment for which it makes a difference whether it is dropped.
type segmentKey struct {
	kind  SegmentKind
	index uint32
}

func keyOf(drop wasm.Op, index uint32) segmentKey {
	if drop == wasm.OpElemDrop {
		return segmentKey{ElemSegment, index}
	}
	return segmentKey{DataSegment, index}
}

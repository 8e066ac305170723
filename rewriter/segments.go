package rewriter

// droppable is a Segment, and the index of its flag.
type droppable struct {
	Segment
	flag uint32
}

// planSegments gives a flag and a function to each segment for which it matters whether it has been dropped: the code
// reads it, and it is dropped neither never nor at each instantiation.
func (b *builder) planSegments() {
	u := b.usage
	for i, d := range b.m.data {
		// Active ones are passive from now on, and dropped by mmrun:init.
		if u.readsData[i] && (u.dropsData[i] || d.active) {
			b.planSegment(DataSegment, i, opDataDrop)
		}
	}
	for i, e := range b.m.elems {
		if u.readsElem[i] && u.dropsElem[i] && e.mode == elemPassive {
			b.planSegment(ElemSegment, i, opElemDrop)
		}
	}
}

func (b *builder) planSegment(kind SegmentKind, index int, drop opcode) {
	s := droppable{Segment: Segment{Kind: kind, Index: uint32(index)}}
	s.Dropped = b.name(kind.String(), index, "dropped")
	s.flag = b.addFlag(s.Dropped)
	s.Drop = b.name(kind.String(), index, "drop")
	b.addFunc(s.Drop, nil, nil, nil, setFlag(code(nil).op(drop, s.Index), s.flag))
	b.info.Segments = append(b.info.Segments, s.Segment)
	if b.segments == nil {
		b.segments = map[segmentKey]*droppable{}
	}
	b.segments[segmentKey{kind, s.Index}] = &s
}

type segmentKey struct {
	kind  SegmentKind
	index uint32
}

// segment is nil if it makes no difference whether the segment is dropped.
func (b *builder) segment(kind SegmentKind, index uint32) *droppable {
	return b.segments[segmentKey{kind, index}]
}

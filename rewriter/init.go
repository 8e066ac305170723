package rewriter

import "sort"

// mmrun:init has one memory.init for each formerly active data segment, in their order:
//
//	offset expression; i32.const 0; i32.const length; memory.init N; data.drop N
//
// That would do, but the Go linker writes up to 100,000 segments of a few bytes each, and compiling that many memory.init
// takes wazero 40 s. So neighbours that lie at most mergeGap bytes apart are joined to one new segment with zeros
// in between, and the old ones become empty: 21 remain of the 100,000. Nobody can tell, since joined are only
//
//   - segments that the code does not read,
//   - at constant offsets, one behind the other in the module and in memory,
//   - that are in bounds, so that none of them traps,
//   - with nothing between them but zeros: no other segment lies there.

// mergeGap is more than the longest run of zeros that the Go linker leaves inside of a segment.
const mergeGap = 64

// fixedSegment is an active segment whose place is known.
type fixedSegment struct{ start, end uint64 }

// planInit makes active data segments passive and adds the function that does what they did.
func (b *builder) planInit() {
	active := false
	for _, d := range b.m.data {
		active = active || d.active
	}
	if !active {
		return
	}
	places, free := b.places()
	b.data = make([][]byte, len(b.m.data), len(b.m.data)+16)
	var c code
	for i := 0; i < len(b.m.data); {
		n := 1
		for last, ok := places[i]; ok && i+n < len(b.m.data); n++ {
			next, fixed := places[i+n]
			if !fixed || next.start < last.end || next.start-last.end > mergeGap || !free(last.end, next.start) {
				break
			}
			last = next
		}
		if n > 1 {
			c = b.merge(c, i, n, places)
		} else {
			c = b.makePassive(c, i)
		}
		i += n
	}
	b.info.Init = Reserved + "init"
	b.addFunc(b.info.Init, nil, nil, nil, c)
}

// makePassive makes segment i passive and adds to c what it did if it was active.
func (b *builder) makePassive(c code, i int) code {
	d := &b.m.data[i]
	b.data[i] = append([]byte{dataPassive}, b.m.wasm[d.bytes.start:d.bytes.end]...)
	if !d.active {
		return c
	}
	index := uint32(i)
	c = append(c, b.m.wasm[d.offset.start:d.offset.end]...) // a constant expression is code as it is
	c = writeAndDrop(c, d.length, index)
	if s := b.segment(DataSegment, index); s != nil {
		c = setFlag(c, s.flag)
	}
	return c
}

// writeAndDrop writes a segment to the offset on the stack. Like an active segment, memory.init traps out of bounds even
// if there is nothing to write.
func writeAndDrop(c code, length int, index uint32) code {
	return c.i32(0).i32(int32(length)).op(opMemoryInit, index, 0).op(opDataDrop, index)
}

// merge makes one passive segment of n active ones from i on, and adds to c what they did.
func (b *builder) merge(c code, i, n int, places map[int]fixedSegment) code {
	start, end := places[i].start, places[i+n-1].end
	entry := appendU32(append(make([]byte, 0, 6+end-start), dataPassive), uint32(end-start))
	at := start
	for j := i; j < i+n; j++ {
		d := &b.m.data[j]
		entry = append(entry, make([]byte, places[j].start-at)...)
		entry = append(entry, b.m.wasm[d.bytes.end-d.length:d.bytes.end]...)
		at = places[j].end
		b.data[j] = []byte{dataPassive, 0}
	}
	b.data = append(b.data, entry)
	return writeAndDrop(c.i32(int32(uint32(start))), int(end-start), uint32(len(b.data)-1))
}

// places tells where segments lie that may be merged, and whether a range of memory is still all zeros when a segment
// behind it is written.
func (b *builder) places() (map[int]fixedSegment, func(start, end uint64) bool) {
	size := uint64(b.m.memory.Min) << 16
	places := make(map[int]fixedSegment, len(b.m.data))
	var all []fixedSegment
	for i, d := range b.m.data {
		if !d.active {
			continue
		}
		offset, ok := b.m.constant(d.offset)
		if !ok {
			break // it may lie anywhere, so that from here on nothing is known to be zero
		}
		place := fixedSegment{offset, offset + uint64(d.length)}
		all = append(all, place)
		if place.end <= size && !b.usage.readsData[i] {
			places[i] = place
		}
	}
	return places, sortedFree(all)
}

// sortedFree returns a function that says whether no segment reaches into a range.
func sortedFree(all []fixedSegment) func(start, end uint64) bool {
	sort.Slice(all, func(i, j int) bool { return all[i].start < all[j].start })
	maxEnd := make([]uint64, len(all)+1) // of the first n
	for i, s := range all {
		maxEnd[i+1] = max(maxEnd[i], s.end)
	}
	return func(start, end uint64) bool {
		n := sort.Search(len(all), func(i int) bool { return all[i].start >= end })
		return start == end || maxEnd[n] <= start
	}
}

// constant evaluates an offset that is one i32.const.
func (m *module) constant(expr span) (uint64, bool) {
	if expr.end-expr.start < 2 || opcode(m.wasm[expr.start]) != opI32Const {
		return 0, false
	}
	r := &reader{buf: m.wasm, pos: expr.start + 1, end: expr.end}
	v, err := r.signed(32)
	return uint64(uint32(v)), err == nil && r.left() == 0
}

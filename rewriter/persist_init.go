package rewriter

import (
	"slices"
	"sort"

	"github.com/mmrun/mmrun/rewriter/internal/wasm"
)

// mmrun:init has one memory.init for each formerly active data segment, in their order:
//
//	offset expression; i32.const 0; i32.const length; memory.init N; data.drop N
//
// That would do, but the Go linker writes up to 100,000 segments of a few bytes each, and compiling
// that many memory.init takes wazero 40 s. So neighbours that lie at most mergeGap bytes apart are
// joined to one new segment with zeros in between, and the old ones become empty: 21 remain of the
// 100,000. Nobody can tell, since joined are only
//
//   - segments that the code does not read,
//   - at constant offsets, one behind the other in the module and in memory,
//   - that are in bounds, so that none of them traps,
//   - with nothing between them but zeros: no other segment lies there.

// mergeGap is more than the longest run of zeros that the Go linker leaves inside of a segment.
const mergeGap = 64

// fixedSegment is an active segment whose place is known.
type fixedSegment struct{ start, end uint64 }

// init makes active data segments passive and adds the function that does what they did. Before
// that the function traps where an active element segment does not fit into its table, as
// instantiation should: wazero skips it silently there, with all behind it.
func (p *persister) init() {
	c := p.checkElems()
	active := func(d wasm.DataSegment) bool { return d.Active }
	if slices.ContainsFunc(p.m.Data, active) {
		c = p.writeData(c)
	}
	if c == nil {
		return
	}
	p.info.Init = Reserved + "init"
	p.addFunc(p.info.Init, nil, nil, nil, c)
}

// checkElems is code that traps if an active element segment does not fit. Of most segments it can
// be told now that they do.
func (p *persister) checkElems() (c wasm.Code) {
	for _, e := range p.m.Elems[:len(p.usage.readsElem)] {
		if e.Mode != wasm.ElemActive {
			continue
		}
		offset, known := e.Offset.Constant()
		if known && uint64(offset)+uint64(e.Count) <= uint64(p.m.Tables[e.Table].Min) {
			continue
		}
		// What is copied to where it is must be there. A constant expression is code as it is; that
		// of an element segment stays one, too, so the runtime has a look at it.
		c = c.Add(e.Offset).Add(e.Offset).I32(int32(e.Count)).Op(wasm.OpTableCopy, e.Table, e.Table)
	}
	return c
}

func (p *persister) writeData(c wasm.Code) wasm.Code {
	places, free := p.places()
	own := len(p.m.Data)
	for i := 0; i < own; {
		n := 1
		for last, ok := places[i]; ok && i+n < own; n++ {
			next, fixed := places[i+n]
			if !fixed || next.start < last.end || next.start-last.end > mergeGap || !free(last.end,
				next.start) {
				break
			}
			last = next
		}
		if n > 1 {
			c = p.merge(c, i, n, places)
		} else {
			c = p.makePassive(c, i)
		}
		i += n
	}
	return c
}

// makePassive makes segment i passive and adds to c what it did if it was active.
func (p *persister) makePassive(c wasm.Code, i int) wasm.Code {
	d := &p.m.Data[i]
	if !d.Active {
		return c
	}
	offset := d.Offset
	if _, ok := offset.Constant(); !ok {
		// As code it would be allowed more than as a constant expression: so it becomes the value
		// of a constant, where the runtime holds it to the same rules as in a segment.
		constant := p.m.AddGlobal(wasm.Type{Kind: wasm.I32}, false, offset)
		offset = wasm.Code(nil).Op(wasm.OpGlobalGet, constant)
	}
	c = writeAndDrop(c.Add(offset), len(d.Bytes), uint32(i))
	d.Deactivate(d.Bytes)
	if flag, ok := p.segments[segmentKey{DataSegment, uint32(i)}]; ok {
		c = setFlag(c, flag)
	}
	return c
}

// writeAndDrop writes a segment to the offset on the stack. Like an active segment, memory.init
// traps out of bounds even if there is nothing to write.
func writeAndDrop(c wasm.Code, length int, segment uint32) wasm.Code {
	return c.I32(0).I32(int32(length)).Op(wasm.OpMemoryInit, segment, 0).Op(wasm.OpDataDrop,
		segment)
}

// merge makes one passive segment of n active ones from i on, and adds to c what they did.
func (p *persister) merge(c wasm.Code, i, n int, places map[int]fixedSegment) wasm.Code {
	start, end := places[i].start, places[i+n-1].end
	merged := make([]byte, end-start)
	for j := i; j < i+n; j++ {
		copy(merged[places[j].start-start:], p.m.Data[j].Bytes)
		p.m.Data[j].Deactivate(nil)
	}
	return writeAndDrop(c.I32(int32(uint32(start))), len(merged), p.m.AddData(merged))
}

// places tells where segments lie that may be merged, and whether a range of memory is still all
// zeros when a segment behind it is written.
func (p *persister) places() (map[int]fixedSegment, func(start, end uint64) bool) {
	size := uint64(p.m.Memory.Min) << 16
	places := make(map[int]fixedSegment, len(p.m.Data))
	var all []fixedSegment
	for i, d := range p.m.Data {
		if !d.Active {
			continue
		}
		offset, ok := d.Offset.Constant()
		if !ok {
			break // it may lie anywhere, so that from here on nothing is known to be zero
		}
		place := fixedSegment{uint64(offset), uint64(offset) + uint64(len(d.Bytes))}
		all = append(all, place)
		if place.end <= size && !p.usage.readsData[i] {
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

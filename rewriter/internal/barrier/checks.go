package barrier

import "github.com/mmrun/mmrun/rewriter/internal/wasm"

// capacity is how many bytes one check may cover. A larger one covers more stores and finds a page
// boundary among its bytes more often, which takes the slow way.
const capacity = 64

// sizes of what the instructions write, in bytes. Of atomic ones it is the most that any does.
var sizes = func() map[wasm.Op]int32 {
	m := map[wasm.Op]int32{
		wasm.OpI32Store: 4, wasm.OpI64Store: 8, wasm.OpF32Store: 4, wasm.OpF64Store: 8,
		wasm.OpI32Store8: 1, wasm.OpI32Store16: 2,
		wasm.OpI64Store8: 1, wasm.OpI64Store16: 2, wasm.OpI64Store32: 4, wasm.OpV128Store: 16,
	}
	const vec, atomic = 0xfd << 16, 0xfe << 16
	for i, size := range []int32{1, 2, 4, 8} { // v128.store8_lane to v128.store64_lane
		m[wasm.Op(vec|0x58+i)] = size
	}
	for op := wasm.Op(atomic | 0x17); op <= atomic|0x4e; op++ {
		m[op] = 8
	}
	return m
}()

// write sees to it that a check covers what an instruction writes.
func (a *analysis) write(in *wasm.Instr) {
	pops, pushes, _ := in.Op.Stack()
	if in.Op.Writes() == wasm.BulkMemory {
		a.popN(3)
		a.bulk = append(a.bulk, in.Start)
		return
	}
	a.popN(len(pops) - 1)
	a.cover(a.pop(), in, &store{in.Start, pops[1:]})
	a.pushN(len(pushes), in.End)
}

func (a *analysis) cover(addr entry, in *wasm.Instr, s *store) {
	size, at := sizes[in.Op], addr.value.add(in.Offset)
	if a.covered(at, size) {
		return
	}
	g := &group{base: at.origin, from: at.plus, span: size, at: in.Start,
		ofGlobal: a.ofGlobal[at.origin]}
	a.all = append(a.all, g)
	if a.hoist(g) {
		return
	}
	g.src = a.source(addr, s)
	a.s.groups = append(a.s.groups, g)
}

// covered finds a check that every path to here has made, or extends one.
func (a *analysis) covered(at value, size int32) bool {
	if a.find(a.s.groups, at, size) {
		return true
	}
	for l := a.open; l != nil; l = l.outer {
		if a.find(l.hoisted, at, size) {
			return true
		}
	}
	return false
}

func (a *analysis) find(groups []*group, at value, size int32) bool {
	for i := len(groups) - 1; i >= 0; i-- {
		g := groups[i]
		if g.base != at.origin {
			continue
		}
		d := int32(at.plus - g.from)
		lo, hi := min(0, int64(d)), max(int64(g.span), int64(d)+int64(size))
		if hi-lo <= capacity {
			g.from += uint32(int32(lo))
			g.span = int32(hi - lo)
			return true
		}
	}
	return false
}

// source finds an address of the base of addr, which lies below the operands of s.
func (a *analysis) source(addr entry, s *store) source {
	if src, ok := findSource(addr.origin, a.s.locals, a.s.globals); ok {
		return src
	}
	if addr.end >= 0 {
		return source{kind: teed, end: addr.end, plus: addr.plus}
	}
	return source{kind: below, store: s, plus: addr.plus}
}

func findSource(base origin, locals []value, globals map[uint32]value) (source, bool) {
	if base == 0 {
		return source{kind: constant}, true
	}
	for i, v := range locals {
		if v.origin == base {
			return source{kind: inLocal, index: uint32(i), plus: v.plus}, true
		}
	}
	least, found := uint32(0), false
	for i, v := range globals { // the first, so that the same module always gives the same bytes
		if v.origin == base && (!found || i < least) {
			least, found = i, true
		}
	}
	if !found {
		return source{}, false
	}
	return source{kind: inGlobal, index: least, plus: globals[least].plus}, true
}

// hoist puts the check before the outermost loop through which the base does not change.
func (a *analysis) hoist(g *group) bool {
	var best *loop
	var src source
	n := len(a.frames) - 1
	for l := a.open; l != nil; l = l.outer {
		for ; n > 0 && a.frames[n].loop != l; n-- {
			if a.frames[n].op == wasm.OpIf || a.frames[n].forked {
				n = -1
				break
			}
		}
		if n < 0 || g.base >= l.first {
			break
		}
		s, ok := findSource(g.base, l.locals, l.globals)
		if !ok {
			break
		}
		best, src = l, s
		n--
	}
	if best == nil {
		return false
	}
	g.src, g.at = src, best.start
	best.hoisted = append(best.hoisted, g)
	return true
}

package barrier

import (
	"cmp"
	"slices"

	"github.com/mmrun/mmrun/rewriter/internal/wasm"
)

// insertion is code that goes before the instruction at an offset. Those at one place follow their
// ranks.
type insertion struct {
	at, rank int
	code     wasm.Code
	instead  int // so many bytes that are there are left out
}

const (
	ended = iota // the call of the host before
	tees         // of the instruction before
	checks
	bulks
	calls
)

// emit writes the checks that an analysis has found into the function, and a note before each call
// of the host.
func (p *pass) emit(a *analysis, hostCalls []hostCall) {
	w := &writer{pass: p, body: a.body, temps: make(map[int]uint32)}
	for _, g := range a.all {
		w.check(g)
	}
	w.ranges(a.bulk)
	for _, c := range hostCalls {
		w.hostCall(c)
	}
	slices.SortStableFunc(w.all, func(x, y insertion) int {
		return cmp.Or(cmp.Compare(x.at, y.at), cmp.Compare(x.rank, y.rank))
	})
	var out wasm.Code
	copied := 0
	for _, i := range w.all {
		out = append(append(out, a.body.Code[copied:i.at]...), i.code...)
		copied = i.at + i.instead
	}
	a.body.Edit(append(out, a.body.Code[copied:]...))
}

// writer collects what is inserted into one function.
type writer struct {
	*pass
	body  *wasm.Body
	all   []insertion
	temps map[int]uint32 // locals that hold an address, by the end of what has made it
	page  uint32         // a local for the index of a page, once there is one
	paged bool
	// a local for the call of the host that this code was called in, once there is one
	outer   uint32
	outered bool
	spills  map[wasm.Type][]uint32
}

func (w *writer) insert(at, rank int, c wasm.Code) {
	w.all = append(w.all,
		insertion{at, rank, c, 0})
}

// hostCall has what a host function writes marked, or notes that it was called.
func (w *writer) hostCall(c hostCall) {
	outputs, known := w.known(c.function)
	if !known {
		e := &emitter{}
		w.hostUnknown(e)
		if c.op == wasm.OpReturnCall {
			// It goes on when this function has gone, so nobody can say when it has ended.
			w.insert(c.start, calls, e.i32(0).gset(w.active).c)
			return
		}
		if !w.outered {
			w.outer, w.outered = w.body.AddLocal(i32), true
		}
		w.insert(c.start, calls, e.gget(w.active).set(w.outer).gget(w.host).gset(w.active).c)
		w.insert(c.end, ended, (&emitter{}).get(w.outer).gset(w.active).c)
		return
	}
	if len(outputs) > 0 {
		call := wasm.Code(nil).Op(c.op, w.wrapped(c.function, outputs))
		w.all = append(w.all, insertion{c.start, calls, call, c.end - c.start})
	}
}

// temp is a local that gets what is on top of the stack at an offset.
func (w *writer) temp(end int) uint32 {
	l, ok := w.temps[end]
	if !ok {
		l = w.body.AddLocal(i32)
		w.temps[end] = l
		w.insert(end, tees, wasm.Code(nil).Op(wasm.OpLocalTee, l))
	}
	return l
}

// check writes the check of a group:
//
//	if address - window > pageSize - span:
//	    page = address >> pageShift
//	    if page < table.size and table[page] and the bytes lie in one page:
//	        window = address & -pageSize
//	    else:
//	        window = mark(address, span)
func (w *writer) check(g *group) {
	e, rest := &emitter{}, wasm.Code(nil)
	plus := g.from - g.src.plus
	var address wasm.Code
	switch g.src.kind {
	case constant:
		address = address.I32(int32(g.from))
		plus = 0
	case inLocal:
		address = address.Op(wasm.OpLocalGet, g.src.index)
	case inGlobal:
		address = address.Op(wasm.OpGlobalGet, g.src.index)
	case teed:
		address = address.Op(wasm.OpLocalGet, w.temp(g.src.end))
	case below:
		var l uint32
		l, rest = w.putAside(e, g.src.store)
		address = address.Op(wasm.OpLocalGet, l)
	}
	if plus != 0 {
		address = address.I32(int32(plus)).Op(wasm.OpI32Add)
	}
	window := w.heap
	if g.ofGlobal {
		window = w.stack
	}
	if !w.paged {
		w.page, w.paged = w.body.AddLocal(i32), true
	}
	e.add(address).gget(window).op(wasm.OpI32Sub).i32(pageSize - g.span).op(wasm.OpI32GtU).
		block(wasm.OpIf)
	e.add(address).i32(pageShift).op(wasm.OpI32ShrU).tee(w.page).size(w.pages).op(wasm.OpI32LtU)
	e.c = e.c.Block(wasm.OpIf, wasm.I32Value)
	e.get(w.page).op(wasm.OpTableGet, w.pages).op(wasm.OpRefIsNull)
	if g.span > 1 {
		e.add(address).i32(pageSize - 1).op(wasm.OpI32And).i32(pageSize - g.span).op(wasm.OpI32GtU).
			op(wasm.OpI32Or)
	}
	e.op(wasm.OpElse).i32(1).end()
	e.c = e.c.Block(wasm.OpIf, wasm.I32Value)
	e.add(address).i32(g.span).call(w.mark).
		op(wasm.OpElse).add(address).i32(-pageSize).op(wasm.OpI32And).end().
		gset(window).end()
	w.insert(g.at, checks, e.add(rest).c)
}

// putAside moves the operands of a store that lie above its address into locals, and the address,
// too, which stays on the stack. rest puts the operands back.
func (w *writer) putAside(e *emitter, s *store) (address uint32, rest wasm.Code) {
	if w.spills == nil {
		w.spills = make(map[wasm.Type][]uint32)
	}
	used := make(map[wasm.Type]int)
	local := func(t wasm.Type) uint32 {
		if used[t] == len(w.spills[t]) {
			w.spills[t] = append(w.spills[t], w.body.AddLocal(t))
		}
		used[t]++
		return w.spills[t][used[t]-1]
	}
	address = local(i32)
	for i := len(s.pops) - 1; i >= 0; i-- {
		l := local(typeOf(s.pops[i]))
		e.set(l)
		rest = append(wasm.Code(nil).Op(wasm.OpLocalGet, l), rest...)
	}
	e.tee(address)
	return address, rest
}

// typeOf is the type that a letter of wasm.Op.Stack stands for.
func typeOf(letter byte) wasm.Type {
	return wasm.Type{Kind: map[byte]wasm.Kind{'i': wasm.I32, 'l': wasm.I64, 'f': wasm.F32,
		'd': wasm.F64, 'v': wasm.V128}[letter]}
}

// ranges marks what bulk instructions write; their operands are destination, something, length.
func (w *writer) ranges(bulk []int) {
	if len(bulk) == 0 {
		return
	}
	length, other, to := w.body.AddLocal(i32), w.body.AddLocal(i32), w.body.AddLocal(i32)
	for _, at := range bulk {
		e := &emitter{}
		e.set(length).set(other).tee(to).get(length).call(w.range_).
			get(to).get(other).get(length)
		w.insert(at, bulks, e.c)
	}
}

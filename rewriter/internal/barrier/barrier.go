// Package barrier is the pass that lets a guest tell which pages of its memory it writes.
//
// # What is added
//
// A table of references to functions has an entry for each page of 4 KiB that is not null once the
// page is marked; a second one an entry for each 64 pages. Two globals, the windows, hold the
// address of the last page that was found marked: one for addresses that come from a global, as a
// stack pointer does, one for the others. Before a store the code compares its address with the
// window; if it is not in that page it looks into the table; and if the page is not marked it calls
// a function that marks it. The first pages that are marked are also noted in globals, so that a
// host that has few of them to read finds them there; of more it asks by next.
//
//	export           what it does
//	barrier:count    how many pages have been marked since forget: up to the number of the globals
//	                 that note them; one more stands for any number; -1: some could not be noted
//	barrier:0 ...    the pages, by index
//	barrier:next     (from i32) -> (i32): the first marked page at or behind that one; -1: none
//	barrier:forget   () -> (): no page is marked
//	barrier:host     how often functions of the host have been called since forget that may have
//	                 written anything. Of WASI's it is known what they write (wasi.go), and marked
//	barrier:active   which of those calls the code is in, by that count; 0: none, or one that cannot
//	                 be told
//	barrier:foreign  to be set by the host if the functions called WASI's may be others: then they
//	                 may have written anything, too
//
// Pages behind the end of the memory can be marked, too: by stores that have trapped, and by checks
// of what was not stored in the end. The memory may grow to them.
//
// # Why no store is missed
//
// Between two calls of forget a page that is marked stays so, and no host code calls forget while
// code of the module is on the stack. So a check, once made, holds for all stores that follow it to
// the bytes that it has covered, whatever happens between them, calls and growth included.
//
// A store is left without a check of its own only if each path to it has made one that covers it.
// Addresses are compared as an origin plus a constant modulo 2^32. An origin is a value that is not
// computed further: a parameter, the result of a load or a call, what two paths give at once, what
// a loop may change. Where paths meet, a local has the origin that all of them give it, or a new
// one; the checks are those that all of them have made. At the begin of a loop each local that the
// loop assigns anywhere gets a new origin. So two addresses of one origin differ by that constant
// each time that the code comes there. An address that overflows 32 bits traps before it writes;
// the check has marked another page then, for nothing.
//
// A check whose address does not change in a loop is made before the loop. It may mark a page that
// the loop does not write in the end, which costs a comparison.
//
// A check is made before the store, with the operands on the stack. It changes no value of the
// module's own and cannot trap: the store traps as without it, at the same place with nothing
// written.
//
// A pass that lets the host see the module between two stores, such as one that suspends it, has to
// make those places boundaries here.
package barrier

import (
	"fmt"

	"github.com/mmrun/mmrun/rewriter/internal/wasm"
)

// Names of the exports, behind the prefix that is reserved.
const (
	Count  = "barrier:count"
	Next   = "barrier:next"
	Forget = "barrier:forget"
	Host   = "barrier:host"
	Active = "barrier:active"
	// Foreign is a global that the host may set.
	Foreign = "barrier:foreign"
)

// Noted is how many pages are noted in globals.
const Noted = 16

// PageName is the export of the i-th page noted.
func PageName(i int) string { return fmt.Sprintf("barrier:%d", i) }

const (
	pageShift  = 12
	pageSize   = 1 << pageShift
	groupShift = 6 // pages in an entry of the second table
	// nowhere is the window before anything is marked: of the last wasm page, to which no memory
	// reaches.
	nowhere = -65536
	// Lost is the count when a page could not be noted because the table could not grow.
	Lost = -1
)

// pass is what is added, by index.
type pass struct {
	m                   *wasm.Module
	pages, groups       uint32 // tables
	heap, stack         uint32 // windows
	count, host         uint32
	active, foreign     uint32
	noted               []uint32
	mark, range_, touch uint32
	wrappers            map[uint32]uint32 // of imported functions
}

var i32 = wasm.Type{Kind: wasm.I32}

// Apply adds the barrier to all functions that the module has; prefix begins the names of the
// exports. A module without a memory is left as it is. hidden says that functions of the host can
// be called without the barrier seeing it, by reference.
func Apply(m *wasm.Module, prefix string) (hidden bool, err error) {
	if m.Memory == nil {
		return false, nil
	}
	p := &pass{m: m}
	original := len(m.Funcs)
	p.add(prefix)
	for i := range m.Funcs[:original] {
		f := &m.Funcs[i]
		if f.Body == nil {
			hidden = hidden || m.Declared(uint32(i))
			continue
		}
		if f.Body.Has&(wasm.HasStore|wasm.HasFunc) == 0 {
			continue
		}
		calls, err := p.hostCalls(f.Body)
		if err != nil {
			return false, err
		}
		a := &analysis{body: f.Body}
		if f.Body.Has&wasm.HasStore != 0 {
			if a, err = analyze(m, f); err != nil {
				return false, err
			}
		}
		if len(calls) > 0 || a.all != nil || a.bulk != nil {
			p.emit(a, calls)
		}
	}
	return hidden, nil
}

// hostCall is a direct call of an imported function.
type hostCall struct {
	start, end int // of the instruction
	op         wasm.Op
	function   uint32
}

func (p *pass) hostCalls(b *wasm.Body) (calls []hostCall, err error) {
	err = wasm.Walk(b.Code, func(in *wasm.Instr) error {
		if (in.Op == wasm.OpCall || in.Op == wasm.OpReturnCall) && p.m.Funcs[in.Index].Body == nil {
			calls = append(calls, hostCall{in.Start, in.End, in.Op, in.Index})
		}
		return nil
	})
	return calls, err
}

// add appends tables, globals and functions.
func (p *pass) add(prefix string) {
	m := p.m
	funcRef := wasm.Type{Kind: wasm.FuncRef}
	table := func(entries uint32) uint32 {
		t := m.AddTable(funcRef, entries)
		m.Tables[t].HasMax = false
		return t
	}
	const pagesPerWasmPage = 65536 / pageSize
	p.pages = table(m.Memory.Min * pagesPerWasmPage)
	p.groups = table(m.Memory.Min*pagesPerWasmPage>>groupShift + 1)
	global := func(value int32) uint32 { return m.AddGlobal(i32, true, wasm.Code(nil).I32(value)) }
	p.heap, p.stack, p.count, p.host = global(nowhere), global(nowhere), global(0), global(0)
	m.AddExport(prefix+Count, wasm.KindGlobal, p.count)
	m.AddExport(prefix+Host, wasm.KindGlobal, p.host)
	p.active, p.foreign = global(0), global(0)
	m.AddExport(prefix+Active, wasm.KindGlobal, p.active)
	m.AddExport(prefix+Foreign, wasm.KindGlobal, p.foreign)
	for i := range Noted {
		p.noted = append(p.noted, global(0))
		m.AddExport(prefix+PageName(i), wasm.KindGlobal, p.noted[i])
	}
	p.addTouch()
	p.addMark()
	p.addRange()
	m.AddExport(prefix+Forget, wasm.KindFunc, p.addForget())
	m.AddExport(prefix+Next, wasm.KindFunc, p.addNext())
}

// emitter writes code; its methods are short because there is much of it.
type emitter struct{ c wasm.Code }

func (e *emitter) op(op wasm.Op, immediates ...uint32) *emitter {
	e.c = e.c.Op(op, immediates...)
	return e
}
func (e *emitter) i32(v int32) *emitter     { e.c = e.c.I32(v); return e }
func (e *emitter) get(l uint32) *emitter    { return e.op(wasm.OpLocalGet, l) }
func (e *emitter) set(l uint32) *emitter    { return e.op(wasm.OpLocalSet, l) }
func (e *emitter) tee(l uint32) *emitter    { return e.op(wasm.OpLocalTee, l) }
func (e *emitter) gget(g uint32) *emitter   { return e.op(wasm.OpGlobalGet, g) }
func (e *emitter) gset(g uint32) *emitter   { return e.op(wasm.OpGlobalSet, g) }
func (e *emitter) call(f uint32) *emitter   { return e.op(wasm.OpCall, f) }
func (e *emitter) size(t uint32) *emitter   { return e.op(wasm.OpTableSize, t) }
func (e *emitter) add(c wasm.Code) *emitter { e.c = e.c.Add(c); return e }
func (e *emitter) end() *emitter            { return e.op(wasm.OpEnd) }
func (e *emitter) null() *emitter {
	e.c = e.c.RefNull(wasm.Type{Kind: wasm.FuncRef})
	return e
}

// block begins a block, loop or if without a result.
func (e *emitter) block(op wasm.Op) *emitter { e.c = e.c.Block(op, wasm.NoValue); return e }

// addTouch adds touch(page): marks a page.
func (p *pass) addTouch() {
	const page = 0
	self := uint32(len(p.m.Funcs)) // what is not null
	ref := p.m.AddGlobal(wasm.Type{Kind: wasm.FuncRef}, false,
		wasm.Code(nil).Op(wasm.OpRefFunc, self))
	e := &emitter{}
	grow := func(table uint32, index func() *emitter) {
		// To the length of the memory, at least; the growth is undone by nothing.
		index().size(table).op(wasm.OpI32GeU).block(wasm.OpIf)
		e.null()
		index().i32(1).op(wasm.OpI32Add).size(table).op(wasm.OpI32Sub).op(wasm.OpTableGrow, table)
		e.i32(-1).op(wasm.OpI32Eq).block(wasm.OpIf).
			i32(Lost).gset(p.count).op(wasm.OpReturn).end().end()
	}
	pageOf := func() *emitter { return e.get(page) }
	groupOf := func() *emitter { return e.get(page).i32(groupShift).op(wasm.OpI32ShrU) }
	// Growing by single entries would be slow: a memory that has grown takes all at once.
	e.get(page).size(p.pages).op(wasm.OpI32GeU).block(wasm.OpIf).
		op(wasm.OpMemorySize, 0).i32(4).op(wasm.OpI32Shl).size(p.pages).op(wasm.OpI32GtU).
		block(wasm.OpIf).null().
		op(wasm.OpMemorySize, 0).i32(4).op(wasm.OpI32Shl).size(p.pages).op(wasm.OpI32Sub).
		op(wasm.OpTableGrow, p.pages).op(wasm.OpDrop).end().end()
	grow(p.pages, pageOf)
	// An entry for each group that the first table has pages of: next looks at all of them.
	grow(p.groups, func() *emitter { return e.size(p.pages).i32(groupShift).op(wasm.OpI32ShrU) })
	e.get(page).op(wasm.OpTableGet, p.pages).op(wasm.OpRefIsNull).op(wasm.OpI32Eqz).
		block(wasm.OpIf).op(wasm.OpReturn).end()
	e.get(page).gget(ref).op(wasm.OpTableSet, p.pages)
	groupOf().gget(ref).op(wasm.OpTableSet, p.groups)
	// Noted by its number: a chain is as good as a br_table for so few.
	for i := range p.noted {
		e.gget(p.count).i32(int32(i)).op(wasm.OpI32Eq).block(wasm.OpIf).
			get(page).gset(p.noted[i]).i32(int32(i + 1)).gset(p.count).op(wasm.OpReturn).end()
	}
	e.gget(p.count).i32(Noted).op(wasm.OpI32Eq).block(wasm.OpIf).i32(Noted + 1).gset(p.count).end()
	p.touch = p.m.AddFunc(wasm.Types(wasm.I32), nil, nil, e.c)
}

// addMark adds mark(address, span) -> window: marks the one page or the two that the bytes lie in.
func (p *pass) addMark() {
	const address, span, last = 0, 1, 2
	e := &emitter{}
	e.get(address).i32(pageShift).op(wasm.OpI32ShrU).call(p.touch).
		get(address).get(span).op(wasm.OpI32Add).i32(1).op(wasm.OpI32Sub).tee(last).
		get(address).op(wasm.OpI32Xor).i32(pageSize - 1).op(wasm.OpI32GtU).
		block(wasm.OpIf).get(last).i32(pageShift).op(wasm.OpI32ShrU).call(p.touch).end()
	e.get(address).i32(-pageSize).op(wasm.OpI32And)
	p.mark = p.m.AddFunc(wasm.Types(wasm.I32, wasm.I32), wasm.Types(wasm.I32), wasm.Types(wasm.I32),
		e.c)
}

// addRange adds range(address, length): marks what a bulk instruction or the host is about to
// write, up to the end of the memory. An instruction that would write beyond it writes nothing; a
// host may write what there is.
func (p *pass) addRange() {
	const address, length, page, last = 0, 1, 2, 3
	memoryPages := func(e *emitter) *emitter {
		return e.op(wasm.OpMemorySize,
			0).i32(4).op(wasm.OpI32Shl)
	}
	e := &emitter{}
	e.get(length).op(wasm.OpI32Eqz).block(wasm.OpIf).op(wasm.OpReturn).end()
	e.get(address).i32(pageShift).op(wasm.OpI32ShrU).set(page).
		get(address).get(length).op(wasm.OpI32Add).i32(1).op(wasm.OpI32Sub).
		i32(pageShift).op(wasm.OpI32ShrU).set(last)
	memoryPages(e.get(last)).op(wasm.OpI32GeU).get(last).get(page).op(wasm.OpI32LtU).
		op(wasm.OpI32Or).
		block(wasm.OpIf)
	memoryPages(e).i32(1).op(wasm.OpI32Sub).set(last).end()
	memoryPages(e.get(page)).op(wasm.OpI32GeU).block(wasm.OpIf).op(wasm.OpReturn).end()
	e.block(wasm.OpLoop).get(page).call(p.touch).
		get(page).i32(1).op(wasm.OpI32Add).tee(page).get(last).op(wasm.OpI32LeU).op(wasm.OpBrIf,
		0).end()
	p.range_ = p.m.AddFunc(wasm.Types(wasm.I32, wasm.I32), nil, wasm.Types(wasm.I32, wasm.I32), e.c)
}

// addForget adds forget(). It takes time by the pages that are marked, up to those that are noted,
// and beyond that also by the size of the memory.
func (p *pass) addForget() uint32 {
	const group, n = 0, 1
	e := &emitter{}
	e.i32(nowhere).gset(p.heap).i32(nowhere).gset(p.stack).i32(0).gset(p.host).i32(0).gset(p.active)
	e.gget(p.count).i32(Noted).op(wasm.OpI32LeU).block(wasm.OpIf)
	for i, noted := range p.noted {
		e.gget(p.count).i32(int32(i)).op(wasm.OpI32Eq).
			block(wasm.OpIf).i32(0).gset(p.count).op(wasm.OpReturn).end()
		e.gget(noted).null().op(wasm.OpTableSet, p.pages).
			gget(noted).i32(groupShift).op(wasm.OpI32ShrU).null().op(wasm.OpTableSet, p.groups)
	}
	e.i32(0).gset(p.count).op(wasm.OpReturn).end()
	// All groups that have a marked page.
	e.block(wasm.OpBlock).block(wasm.OpLoop).
		get(group).size(p.groups).op(wasm.OpI32GeU).op(wasm.OpBrIf, 1).
		get(group).op(wasm.OpTableGet, p.groups).op(wasm.OpRefIsNull).op(wasm.OpI32Eqz).
		block(wasm.OpIf).
		get(group).null().op(wasm.OpTableSet, p.groups).
		get(group).i32(groupShift).op(wasm.OpI32Shl).null(). // the last group may be cut short
		size(p.pages).get(group).i32(groupShift).op(wasm.OpI32Shl).op(wasm.OpI32Sub).tee(n).
		i32(1<<groupShift).
		get(n).i32(1<<groupShift).op(wasm.OpI32LtU).op(wasm.OpSelect).
		op(wasm.OpTableFill, p.pages).end().
		get(group).i32(1).op(wasm.OpI32Add).set(group).op(wasm.OpBr, 0).end().end()
	e.i32(0).gset(p.count)
	return p.m.AddFunc(nil, nil, wasm.Types(wasm.I32, wasm.I32), e.c)
}

// addNext adds next(from) -> page.
func (p *pass) addNext() uint32 {
	const from = 0
	e := &emitter{}
	e.block(wasm.OpLoop).
		get(from).size(p.pages).op(wasm.OpI32GeU).block(wasm.OpIf).i32(-1).op(wasm.OpReturn).end().
		get(from).i32(groupShift).op(wasm.OpI32ShrU).op(wasm.OpTableGet,
		p.groups).op(wasm.OpRefIsNull).
		block(wasm.OpIf).
		get(from).i32(groupShift).op(wasm.OpI32ShrU).i32(1).op(wasm.OpI32Add).
		i32(groupShift).op(wasm.OpI32Shl).set(from).op(wasm.OpBr, 1).end().
		get(from).op(wasm.OpTableGet, p.pages).op(wasm.OpRefIsNull).
		block(wasm.OpIf).get(from).i32(1).op(wasm.OpI32Add).set(from).op(wasm.OpBr, 1).end().
		end()
	e.get(from)
	return p.m.AddFunc(wasm.Types(wasm.I32), wasm.Types(wasm.I32), nil, e.c)
}

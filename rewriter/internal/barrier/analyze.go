package barrier

import (
	"slices"

	"github.com/mmrun/mmrun/rewriter/internal/wasm"
)

// group is one check, and the bytes that it covers: all of them at addresses of one origin.
type group struct {
	base     origin
	from     uint32 // first byte, from the base on, modulo 2^32
	span     int32  // bytes
	at       int    // it is made before the instruction at this offset
	src      source
	ofGlobal bool // the base is the value of a global: a stack pointer, most likely
}

// source is where a check finds an address of the base.
type source struct {
	kind  sourceKind
	index uint32 // of a local or a global
	plus  uint32 // what is there is that much more than the base
	end   int    // teed: behind this offset
	store *store // below the operands of this one
}

type sourceKind byte

const (
	constant sourceKind = iota // the base is 0
	inLocal
	inGlobal
	teed  // on top of the stack when the instruction ended that made it
	below // somewhere on the stack; its operands are put aside
)

// store is an instruction that writes at an address on the stack.
type store struct {
	at   int    // its offset
	pops string // its operands above the address, as in wasm.Op.Stack
}

// analysis walks through a function once and decides where checks are made.
type analysis struct {
	m    *wasm.Module
	body *wasm.Body

	s        *state // nil in code that is never reached
	frames   []frame
	deadIn   int // blocks that were opened in such code
	made     origin
	ofGlobal map[origin]bool
	loops    []*loop // in the order in which they begin
	nextLoop int
	open     *loop // the innermost one that is open
	all      []*group
	bulk     []int // offsets of memory.fill, memory.copy and memory.init
}

func (a *analysis) fresh() value {
	a.made++
	return value{origin: a.made}
}

func analyze(m *wasm.Module, f *wasm.Func) (*analysis, error) {
	a := &analysis{m: m, body: f.Body, ofGlobal: make(map[origin]bool)}
	if err := a.findLoops(); err != nil {
		return nil, err
	}
	s := &state{locals: make([]value, f.Body.Locals)}
	for i := range s.locals {
		if uint32(i) < f.Body.Params {
			s.locals[i] = a.fresh()
		} // others are 0
	}
	a.s = s
	a.frames = append(a.frames, frame{op: wasm.OpBlock, results: len(m.Types[f.Type].Results)})
	return a, wasm.Walk(f.Body.Code, a.step)
}

func (a *analysis) findLoops() error {
	var open []*loop
	return wasm.Walk(a.body.Code, func(in *wasm.Instr) error {
		switch in.Op {
		case wasm.OpTry, wasm.OpDelegate, wasm.OpCatch, wasm.OpCatchAll, wasm.OpRethrow:
			return wasm.Unsupported(a.body.Offset+in.Start, "legacy exceptions")
		case wasm.OpLoop, wasm.OpTryTable:
			l := &loop{start: in.Start, assigns: map[uint32]bool{}, sets: map[uint32]bool{}}
			a.loops = append(a.loops, l)
			open = append(open, l)
		case wasm.OpBlock, wasm.OpIf:
			open = append(open, nil)
		case wasm.OpEnd:
			if len(open) > 0 {
				open = open[:len(open)-1]
			}
		case wasm.OpLocalSet, wasm.OpLocalTee:
			for _, l := range open {
				if l != nil {
					l.assigns[in.Index] = true
				}
			}
		case wasm.OpGlobalSet:
			for _, l := range open {
				if l != nil {
					l.sets[in.Index] = true
				}
			}
		case wasm.OpCall, wasm.OpCallIndirect, wasm.OpCallRef:
			for _, l := range open {
				if l != nil {
					l.calls = true
				}
			}
		}
		return nil
	})
}

func (a *analysis) push(v value, end int) { a.s.stack = append(a.s.stack, entry{v, end}) }

func (a *analysis) pop() entry {
	if n := len(a.s.stack); n > a.frames[len(a.frames)-1].height {
		e := a.s.stack[n-1]
		a.s.stack = a.s.stack[:n-1]
		return e
	}
	return entry{a.fresh(), -1}
}

func (a *analysis) popN(n int) {
	for range n {
		a.pop()
	}
}

func (a *analysis) pushN(n, end int) {
	for i := range n {
		if i < n-1 {
			a.push(a.fresh(), -1)
		} else {
			a.push(a.fresh(), end)
		}
	}
}

func (a *analysis) arity(b wasm.BlockType) (params, results int) {
	switch {
	case b.Indexed:
		t := &a.m.Types[b.Index]
		return len(t.Params), len(t.Results)
	case b.Result.Kind != 0:
		return 0, 1
	}
	return 0, 0
}

func (a *analysis) step(in *wasm.Instr) error {
	if a.s == nil {
		return a.stepDead(in)
	}
	if in.Op.Writes() != wasm.NoWrite {
		a.write(in)
		return nil
	}
	switch in.Op {
	case wasm.OpBlock, wasm.OpLoop, wasm.OpIf, wasm.OpTryTable:
		a.enter(in)
	case wasm.OpElse:
		f := &a.frames[len(a.frames)-1]
		a.merge(f, a.s)
		a.s = f.entry
		f.entry = nil
	case wasm.OpEnd:
		a.leave(in)
	case wasm.OpBr:
		a.branch(in.Index)
		a.s = nil
	case wasm.OpBrIf:
		a.pop()
		a.branch(in.Index)
	case wasm.OpBrOnNull:
		a.pop()
		a.branch(in.Index)
		a.push(a.fresh(), in.End)
	case wasm.OpBrOnNonNull:
		a.branch(in.Index)
		a.pop()
	case wasm.OpBrTable:
		a.pop()
		seen := map[uint32]bool{}
		_ = wasm.Labels(a.body.Code[in.Start:in.End], func(l uint32) {
			if !seen[l] {
				seen[l] = true
				a.branch(l)
			}
		})
		a.s = nil
	case wasm.OpReturn, wasm.OpUnreachable, wasm.OpThrow, wasm.OpThrowRef, wasm.OpReturnCall,
		wasm.OpReturnCallIn, wasm.OpReturnCallRf:
		a.s = nil
	case wasm.OpCall:
		t := a.m.TypeOf(in.Index)
		a.call(t, in.End)
	case wasm.OpCallIndirect, wasm.OpCallRef:
		a.pop()
		a.call(&a.m.Types[in.Index], in.End)
	case wasm.OpDrop:
		a.pop()
	case wasm.OpSelect, wasm.OpSelectTyped:
		a.popN(3)
		a.push(a.fresh(), in.End)
	case wasm.OpLocalGet:
		a.push(a.s.locals[in.Index], in.End)
	case wasm.OpLocalSet:
		a.s.locals[in.Index] = a.pop().value
	case wasm.OpLocalTee:
		e := a.pop()
		a.s.locals[in.Index] = e.value
		a.push(e.value, in.End)
	case wasm.OpGlobalGet:
		v, ok := a.s.globals[in.Index]
		if !ok {
			v = a.fresh()
			if g := a.m.Globals[in.Index]; g.Mutable && g.Type.Kind == wasm.I32 {
				a.ofGlobal[v.origin] = true
				if a.s.globals == nil {
					a.s.globals = map[uint32]value{}
				}
				a.s.globals[in.Index] = v
			}
		}
		a.push(v, in.End)
	case wasm.OpGlobalSet:
		v := a.pop()
		if a.s.globals == nil {
			a.s.globals = map[uint32]value{}
		}
		a.s.globals[in.Index] = v.value
	case wasm.OpI32Const:
		a.push(value{plus: uint32(in.Value)}, in.End)
	case wasm.OpI32Add:
		y, x := a.pop(), a.pop()
		switch {
		case y.origin == 0:
			a.push(x.value.add(y.plus), in.End)
		case x.origin == 0:
			a.push(y.value.add(x.plus), in.End)
		default:
			a.push(a.fresh(), in.End)
		}
	case wasm.OpI32Sub:
		y, x := a.pop(), a.pop()
		if y.origin == 0 {
			a.push(x.value.add(-y.plus), in.End)
		} else {
			a.push(a.fresh(), in.End)
		}
	case wasm.OpTableGet, wasm.OpRefIsNull, wasm.OpRefAsNonNull:
		a.pop()
		a.push(a.fresh(), in.End)
	case wasm.OpTableSet:
		a.popN(2)
	case wasm.OpTableGrow:
		a.popN(2)
		a.push(a.fresh(), in.End)
	case wasm.OpTableFill:
		a.popN(3)
	case wasm.OpRefNull, wasm.OpRefFunc:
		a.push(a.fresh(), in.End)
	default:
		pops, pushes, ok := in.Op.Stack()
		if !ok {
			return wasm.Unsupported(a.body.Offset+in.Start,
				"%s, which the write barrier does not know",
				in.Op)
		}
		a.popN(len(pops))
		a.pushN(len(pushes), in.End)
	}
	return nil
}

func (a *analysis) stepDead(in *wasm.Instr) error {
	switch in.Op {
	case wasm.OpLoop, wasm.OpTryTable:
		a.nextLoop++
		a.deadIn++
	case wasm.OpBlock, wasm.OpIf:
		a.deadIn++
	case wasm.OpElse:
		if a.deadIn == 0 {
			f := &a.frames[len(a.frames)-1]
			a.s = f.entry
			f.entry = nil
		}
	case wasm.OpEnd:
		if a.deadIn > 0 {
			a.deadIn--
		} else {
			a.leave(in)
		}
	}
	return nil
}

func (a *analysis) call(t *wasm.FuncType, end int) {
	a.popN(len(t.Params))
	a.pushN(len(t.Results), end)
	a.s.globals = nil
}

func (a *analysis) enter(in *wasm.Instr) {
	f := frame{op: in.Op}
	if in.Op == wasm.OpIf {
		a.pop()
	}
	f.params, f.results = a.arity(in.Block)
	f.height = len(a.s.stack) - f.params
	switch in.Op {
	case wasm.OpIf:
		f.entry = a.s.clone()
	case wasm.OpLoop, wasm.OpTryTable:
		l := a.loops[a.nextLoop]
		a.nextLoop++
		if in.Op == wasm.OpTryTable {
			a.catches(in, l)
			break
		}
		f.loop = l
		l.locals = slices.Clone(a.s.locals)
		l.globals = a.s.clone().globals
		l.first = a.made + 1
		l.outer = a.open
		a.open = l
		a.forget(a.s, l)
		for i := f.height; i < len(a.s.stack); i++ {
			a.s.stack[i] = entry{a.fresh(), -1}
		}
	}
	a.frames = append(a.frames, f)
}

// forget forgets what l may change.
func (a *analysis) forget(s *state, l *loop) {
	for x := range l.assigns {
		s.locals[x] = a.fresh()
	}
	if l.calls {
		s.globals = nil
	}
	for g := range l.sets {
		delete(s.globals, g)
	}
}

func (a *analysis) catches(in *wasm.Instr, l *loop) {
	s := a.s.clone()
	a.forget(s, l)
	s.globals = nil
	_ = wasm.CatchLabels(a.body.Code[in.Start:in.End], func(label uint32) {
		a.mergeInto(label, s)
	})
}

func (a *analysis) branch(label uint32) { a.mergeInto(label, a.s) }

func (a *analysis) mergeInto(label uint32, s *state) {
	f := &a.frames[len(a.frames)-1-int(label)]
	f.forked = true
	if f.op != wasm.OpLoop {
		a.merge(f, s)
	}
}

// merge adds a branch to the end of f.
func (a *analysis) merge(f *frame, s *state) {
	if f.merged == nil {
		f.merged = s.clone()
		f.merged.stack = f.merged.stack[:min(f.height, len(f.merged.stack))]
		return
	}
	m := f.merged
	for i := range m.locals {
		if m.locals[i] != s.locals[i] {
			m.locals[i] = a.fresh()
		}
	}
	for g, v := range m.globals {
		if w, ok := s.globals[g]; !ok || w != v {
			delete(m.globals, g)
		}
	}
	m.groups = intersect(m.groups, s.groups)
}

func intersect(x, y []*group) []*group {
	n := 0
	for n < len(x) && n < len(y) && x[n] == y[n] {
		n++
	}
	out := x[:n]
	for _, g := range x[n:] {
		if slices.Contains(y[n:], g) {
			out = append(out, g)
		}
	}
	return out
}

func (a *analysis) leave(in *wasm.Instr) {
	n := len(a.frames) - 1
	f := a.frames[n]
	if n == 0 {
		a.s = nil
		return
	}
	straight := f.merged == nil && f.entry == nil
	if a.s != nil && !straight {
		a.merge(&f, a.s)
	}
	if f.entry != nil { // if without else
		a.merge(&f, f.entry)
	}
	if f.loop != nil {
		a.open = f.loop.outer
	}
	a.frames = a.frames[:n]
	if straight {
		if a.s != nil {
			if f.loop != nil {
				a.s.groups = append(a.s.groups, f.loop.hoisted...)
			}
			for i := range f.results {
				at := len(a.s.stack) - f.results + i
				if at >= 0 {
					a.s.stack[at].end = -1
				}
			}
			if f.results > 0 && len(a.s.stack) > 0 {
				a.s.stack[len(a.s.stack)-1].end = in.End
			}
		}
		return
	}
	a.s = f.merged
	if f.loop != nil {
		a.s.groups = append(a.s.groups, f.loop.hoisted...)
	}
	a.pushN(f.results, in.End)
}

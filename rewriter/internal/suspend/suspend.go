// Package suspend is the pass that lets a program be left in the middle of its calls, and come back
// to them later, in another instance, too.
//
// # What is added
//
// Mutable globals. calls counts the calls of imports that wait, so that a host that is asked
// several times in one of them can tell. state is 0 as a rule. A host function that wants the
// program to be left sets it to 1; each function that is on the stack then saves what it still
// needs, and returns. To come back, the host sets state to 1 again and calls the program's entry:
// each function finds its place, and calls on, down to the host function, which sets state to 0.
// Frames are written to the guest's memory from sp on, up to limit: any range of it, whose content
// the host keeps meanwhile and puts back. While state is 1 nothing else touches memory.
//
// There are two versions of each function that can be left. The one at its index only has a check
// behind each call that can be left, and saves; it runs as long as nothing is left. If state is 1
// when it is entered it calls the other one, which can also be entered in the middle, and is
// slower.
//
// # Which functions
//
// A function can be left if it calls an import that waits, or a function that can be left, or calls
// indirectly a type that such a function has whose address is taken. A site is such a call.
//
// # A frame
//
// The values that are needed behind the call (locals that are alive, operands below the arguments;
// the arguments themselves only of an import, which is called again), then the number of the site,
// from 1, and the function's index. They are taken back in reverse order. A frame of another
// function traps.
//
// The code must be valid: what cannot be reached is left out, whatever it is. Whoever runs the
// result has had the module validated as it was.
//
// # What is refused
//
// A reference that is needed behind a site has no place in memory; a call through a reference
// (call_ref) has no index. Both are refused by name where they occur in a function that can be
// left.
package suspend

import (
	"fmt"
	"runtime"

	"github.com/mmrun/mmrun/rewriter/internal/wasm"
)

// Names of the exports, behind the prefix that is reserved.
const (
	State = "suspend:state"
	SP    = "suspend:sp"
	Limit = "suspend:limit"
	Calls = "suspend:calls"
)

// Waits says whether an import is one at which the program may be left.
type Waits func(module, name string) bool

// pass is what is added, by index, and what is known of the module.
type pass struct {
	m                *wasm.Module
	canonical        []int
	leaves           []bool       // by function: it can be left
	leavesType       map[int]bool // a function of that canonical type whose address is taken can
	state, sp, limit uint32
	calls            uint32
	push, pop        uint32
	helpers          map[helperKey]uint32
}

// helperKey is a function that saves or restores n values of a kind.
type helperKey struct {
	kind wasm.Kind
	n    int
	save bool
}

// Apply adds the pass to a module that has a memory. all treats each call as one that can be left,
// for tests. It tells how many sites there are.
func Apply(m *wasm.Module, prefix string, waits Waits, all bool) (sites int, err error) {
	if m.Memory == nil {
		return 0, wasm.Unsupported(0, "a program without a memory has no room to save its stack")
	}
	p := &pass{m: m, helpers: make(map[helperKey]uint32)}
	original := len(m.Funcs)
	if err := p.analyze(waits, all); err != nil {
		return 0, err
	}
	i32 := wasm.Type{Kind: wasm.I32}
	global := func(name string) uint32 {
		g := m.AddGlobal(i32, true, wasm.Code(nil).I32(0))
		m.AddExport(prefix+name, wasm.KindGlobal, g)
		return g
	}
	p.state, p.sp, p.limit, p.calls = global(State), global(SP), global(Limit), global(Calls)
	p.push = p.helper(wasm.I32, 2, true)
	load := p.helper(wasm.I32, 2, false)
	// pop(function) -> site, which traps if the frame is another function's.
	p.pop = m.AddFunc(wasm.Types(wasm.I32), wasm.Types(wasm.I32), nil, wasm.Code(nil).
		Op(wasm.OpCall, load).Op(wasm.OpLocalGet, 0).Op(wasm.OpI32Ne).
		Block(wasm.OpIf, wasm.NoValue).Op(wasm.OpUnreachable).Op(wasm.OpEnd))
	for i := range original {
		if !p.leaves[i] || m.Funcs[i].Body == nil {
			continue
		}
		n, err := p.function(uint32(i))
		if err != nil {
			return 0, err
		}
		sites += n
	}
	return sites, nil
}

// analyze finds the functions that can be left.
func (p *pass) analyze(waits Waits, all bool) error {
	m := p.m
	n := len(m.Funcs)
	p.canonical = wasm.CanonicalTypes(m.Types)
	p.leaves, p.leavesType = make([]bool, n), make(map[int]bool)
	taken := make([]bool, n)
	callers, typeCallers := make([][]uint32, n), make(map[int][]uint32)
	for i := range m.Funcs {
		taken[i] = m.Declared(uint32(i))
		f := &m.Funcs[i]
		if f.Imported() {
			p.leaves[i] = all || waits(f.From.Module, f.From.Name)
			continue
		}
		err := wasm.Walk(f.Body.Code, func(in *wasm.Instr) error {
			switch in.Op {
			case wasm.OpCall, wasm.OpReturnCall:
				callers[in.Index] = append(callers[in.Index], uint32(i))
			case wasm.OpCallIndirect, wasm.OpReturnCallIn, wasm.OpCallRef, wasm.OpReturnCallRf:
				t := p.canonical[in.Index]
				typeCallers[t] = append(typeCallers[t], uint32(i))
			case wasm.OpRefFunc:
				taken[in.Index] = true
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if all {
		for i := range m.Funcs {
			p.leaves[i] = true
			p.leavesType[p.canonical[m.Funcs[i].Type]] = true
		}
		return nil
	}
	var work []uint32
	for i, leaves := range p.leaves {
		if leaves {
			work = append(work, uint32(i))
		}
	}
	mark := func(callers []uint32) {
		for _, c := range callers {
			if !p.leaves[c] {
				p.leaves[c] = true
				work = append(work, c)
			}
		}
	}
	for len(work) > 0 {
		f := work[len(work)-1]
		work = work[:len(work)-1]
		mark(callers[f])
		if t := p.canonical[m.Funcs[f].Type]; taken[f] && !p.leavesType[t] {
			p.leavesType[t] = true
			mark(typeCallers[t])
		}
	}
	return nil
}

// canLeave tells whether a call is a site.
func (p *pass) canLeave(in *wasm.Instr) bool {
	switch in.Op {
	case wasm.OpCall, wasm.OpReturnCall:
		return p.leaves[in.Index]
	case wasm.OpCallIndirect, wasm.OpReturnCallIn, wasm.OpCallRef, wasm.OpReturnCallRf:
		return p.leavesType[p.canonical[in.Index]]
	}
	return false
}

// What is stored and loaded, by kind.
var (
	stores = map[wasm.Kind]wasm.Op{wasm.I32: wasm.OpI32Store, wasm.I64: wasm.OpI64Store,
		wasm.F32: wasm.OpF32Store, wasm.F64: wasm.OpF64Store, wasm.V128: wasm.OpV128Store}
	loads = map[wasm.Kind]wasm.Op{wasm.I32: wasm.OpI32Load, wasm.I64: 0x29, wasm.F32: 0x2a,
		wasm.F64: 0x2b, wasm.V128: 0xfd << 16}
	sizes = map[wasm.Kind]uint32{wasm.I32: 4, wasm.I64: 8, wasm.F32: 4, wasm.F64: 8, wasm.V128: 16}
)

// helper is a function that saves n values, or gives them back in their order. One that has no room
// traps: the host gives it more and begins anew.
func (p *pass) helper(kind wasm.Kind, n int, save bool) uint32 {
	key := helperKey{kind, n, save}
	if i, ok := p.helpers[key]; ok {
		return i
	}
	types := make([]wasm.Type, n)
	for i := range types {
		types[i] = wasm.Type{Kind: kind}
	}
	size := int32(sizes[kind]) * int32(n)
	local := wasm.Types(wasm.I32)
	var c wasm.Code
	var index uint32
	if save {
		at := uint32(n)
		c = c.Op(wasm.OpGlobalGet, p.sp).Op(wasm.OpLocalTee, at).I32(size).Op(wasm.OpI32Add).
			Op(wasm.OpGlobalGet, p.limit).Op(wasm.OpI32GtU).
			Block(wasm.OpIf, wasm.NoValue).Op(wasm.OpUnreachable).Op(wasm.OpEnd)
		for j := range uint32(n) {
			c = c.Op(wasm.OpLocalGet, at).Op(wasm.OpLocalGet, j).Op(stores[kind], 0, j*sizes[kind])
		}
		c = c.Op(wasm.OpLocalGet, at).I32(size).Op(wasm.OpI32Add).Op(wasm.OpGlobalSet, p.sp)
		index = p.m.AddFunc(types, nil, local, c)
	} else {
		c = c.Op(wasm.OpGlobalGet, p.sp).I32(size).Op(wasm.OpI32Sub).Op(wasm.OpLocalTee, 0).
			Op(wasm.OpGlobalSet, p.sp)
		for j := range uint32(n) {
			c = c.Op(wasm.OpLocalGet, 0).Op(loads[kind], 0, j*sizes[kind])
		}
		index = p.m.AddFunc(nil, types, local, c)
	}
	p.helpers[key] = index
	return index
}

// function makes the two versions of a function.
func (p *pass) function(index uint32) (sites int, err error) {
	// Only a validator could tell each way in which code may be wrong beforehand. What is wrong
	// takes more from the stack than there is.
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(runtime.Error); !ok {
				panic(r)
			}
			err = wasm.Malformed(0, "the code of function %d is not valid", index)
		}
	}()
	m := p.m
	body, typ := m.Funcs[index].Body, m.TypeOf(index)
	// The slice of types may move while types are added.
	params, results := typ.Params, typ.Results
	f := &function{p: p, index: index, code: body.Code, results: results, params: len(params)}
	if f.locals, err = body.LocalTypes(params); err != nil {
		return 0, err
	}
	if err := f.decode(body.Offset); err != nil || len(f.sites) == 0 {
		return 0, err
	}
	f.liveness()
	name := fmt.Sprintf("function %d", index)
	slow := f.version(false, 0)
	if err := slow.run(); err != nil {
		return 0, wasm.Unsupported(body.Offset, "%s can wait, and %v", name, err)
	}
	twin := m.AddFunc(params, results, nil, slow.out[:len(slow.out)-1])
	m.Funcs[twin].Body.SetLocals(slow.locals[len(params):])
	fast := f.version(true, twin)
	if err := fast.run(); err != nil {
		return 0, wasm.Unsupported(body.Offset, "%s can wait, and %v", name, err)
	}
	body = m.Funcs[index].Body
	body.Edit(fast.out)
	body.SetLocals(fast.locals[len(params):])
	body.SetHas()
	return len(f.sites), nil
}

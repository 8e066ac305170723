package suspend

import (
	"errors"
	"fmt"
	"math/bits"

	"github.com/mmrun/mmrun/rewriter/internal/wasm"
)

// call writes a site.
func (v *version) call(o *instr) error {
	s := &v.sites[o.site]
	var t *wasm.FuncType
	args := 0
	switch o.op {
	case wasm.OpCall, wasm.OpReturnCall:
		t = v.p.m.TypeOf(o.index)
	case wasm.OpCallIndirect, wasm.OpReturnCallIn:
		t = &v.p.m.Types[o.index]
		args = 1 // the index in the table
	default:
		return errors.New("it calls a function by reference (call_ref)")
	}
	args += len(t.Params)
	var rest wasm.Code // that makes the last arguments, behind the label
	var err error
	if v.fast {
		v.settleSite(s)
	} else if rest, err = v.place(o, s, args); err != nil {
		return err
	}
	v.out = append(v.out, rest...)
	if (o.op == wasm.OpCall || o.op == wasm.OpReturnCall) && v.p.m.Funcs[o.index].Imported() {
		v.op(wasm.OpGlobalGet, v.p.calls)
		v.out = v.out.I32(1)
		v.op(wasm.OpI32Add)
		v.op(wasm.OpGlobalSet, v.p.calls)
	}
	switch o.op { // what comes back is returned, whether the function was left or not
	case wasm.OpReturnCall:
		v.op(wasm.OpCall, o.index)
	case wasm.OpReturnCallIn:
		v.op(wasm.OpCallIndirect, o.index, o.index2)
	default:
		v.raw(o)
	}
	v.pop(args)
	v.push(t.Results...)
	for _, l := range v.saved(s) {
		if l.typ.Kind.IsRef() {
			return fmt.Errorf("a reference (%s) is needed behind a call that waits", l.typ)
		}
	}
	v.op(wasm.OpGlobalGet, v.p.state)
	v.block(wasm.OpIf)
	v.save(v.saved(s), o.site)
	v.op(wasm.OpEnd)
	if ends(o.op) {
		v.op(wasm.OpReturn)
	}
	return nil
}

// place is for the slow version: it ends the label of a site, and decides what is saved there. The
// rest of the arguments is made anew behind it.
func (v *version) place(o *instr, s *site, args int) (rest wasm.Code, err error) {
	base := len(v.stack) - args
	indirect := o.op == wasm.OpCallIndirect || o.op == wasm.OpReturnCallIn
	imported := !indirect && v.p.m.Funcs[o.index].Imported()
	live := s.live.clone()
	// The longest suffix of leaves that ends here.
	leaves := len(v.stack)
	for end := len(v.out); leaves > 0; leaves-- {
		x := &v.stack[leaves-1]
		if x.parked || !x.leaf || x.end != end {
			break
		}
		end = x.start
	}
	if leaves < len(v.stack) {
		cut := v.stack[leaves].start
		rest = append(rest, v.out[cut:]...)
		v.out = v.out[:cut]
	}
	s.slots = s.slots[:0]
	for h := range v.stack {
		if h >= base && !imported && !(indirect && h == len(v.stack)-1) {
			continue // it takes its own arguments from its frame: any value does
		}
		if h < leaves {
			s.slots = append(s.slots, slot{h, v.stack[h].typ})
		} else if l := v.stack[h].local; l >= 0 {
			live.set(uint32(l))
		}
	}
	s.kept = live
	full := v.stack
	v.stack = v.stack[:leaves]
	from := v.onStack()
	v.spill(from)
	r := v.region()
	if o.label != r.closed {
		return nil, fmt.Errorf("label %d of a site, %d are closed", o.label, r.closed)
	}
	v.op(wasm.OpEnd)
	r.closed++
	v.reload(from, leaves)
	v.stack = full
	return rest, nil
}

// settleSite is for the fast version: what is saved of the stack gets into its temporaries.
func (v *version) settleSite(s *site) {
	lowest := v.frames[len(v.frames)-1].height // what is below is there already
	least := len(v.stack)
	for _, x := range s.slots {
		if x.height >= lowest {
			least = min(least, x.height)
		}
	}
	v.spill(least)
	v.reload(least, len(v.stack))
}

// saved is what goes into the frame of a site, by kinds.
func (v *version) saved(s *site) (all []saved) {
	var locals []saved
	for w, word := range s.kept {
		for ; word != 0; word &= word - 1 {
			l := uint32(w*64 + bits.TrailingZeros64(word))
			locals = append(locals, saved{l, v.locals[l]})
		}
	}
	for _, x := range s.slots {
		locals = append(locals, saved{v.temp(x.height, x.typ), x.typ})
	}
	for _, k := range []wasm.Kind{wasm.I32, wasm.I64, wasm.F32, wasm.F64, wasm.V128, wasm.FuncRef,
		wasm.ExternRef, wasm.ExnRef} {
		for _, l := range locals {
			if l.typ.Kind == k {
				all = append(all, l)
			}
		}
	}
	return all
}

// chunk is how many values of a kind one call saves.
const chunk = 8

// runs cuts what is saved into pieces of one kind.
func runs(all []saved) (pieces [][]saved) {
	for len(all) > 0 {
		n := 1
		for n < min(len(all), chunk) && all[n].typ.Kind == all[0].typ.Kind {
			n++
		}
		pieces = append(pieces, all[:n])
		all = all[n:]
	}
	return pieces
}

// save writes a frame and leaves the function.
func (v *version) save(all []saved, number int) {
	for _, run := range runs(all) {
		for _, l := range run {
			v.op(wasm.OpLocalGet, l.local)
		}
		v.op(wasm.OpCall, v.p.helper(run[0].typ.Kind, len(run), true))
	}
	v.out = v.out.I32(int32(number + 1)).I32(int32(v.index))
	v.op(wasm.OpCall, v.p.push)
	for _, t := range v.results {
		v.zero(t)
	}
	v.op(wasm.OpReturn)
}

// restore takes a frame back.
func (v *version) restore(all []saved) {
	pieces := runs(all)
	for i := len(pieces) - 1; i >= 0; i-- {
		run := pieces[i]
		v.op(wasm.OpCall, v.p.helper(run[0].typ.Kind, len(run), false))
		for j := len(run) - 1; j >= 0; j-- {
			v.op(wasm.OpLocalSet, run[j].local)
		}
	}
}

// zero is any value of a type; one that has no null cannot be made, and is never looked at.
func (v *version) zero(t wasm.Type) {
	switch t.Kind {
	case wasm.I32:
		v.out = v.out.I32(0)
	case wasm.I64:
		v.out = append(v.out.Op(wasm.OpI64Const), 0)
	case wasm.F32:
		v.out = append(v.out.Op(wasm.OpF32Const), make([]byte, 4)...)
	case wasm.F64:
		v.out = append(v.out.Op(wasm.OpF64Const), make([]byte, 8)...)
	case wasm.V128:
		v.out = append(v.out.Op(wasm.OpV128Const), make([]byte, 16)...)
	default:
		v.out = v.out.RefNull(t)
		if t.NonNull {
			v.op(wasm.OpRefAsNonNull)
		}
	}
}

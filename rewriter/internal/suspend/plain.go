package suspend

import (
	"fmt"

	"github.com/mmrun/mmrun/rewriter/internal/wasm"
)

// plain writes an instruction that is neither a block nor a site, and follows what it does to the
// stack.
func (v *version) plain(o *instr) error {
	start := len(v.out)
	switch o.op {
	case wasm.OpBr:
		v.op(o.op, v.label(o.index))
		return nil
	case wasm.OpBrIf, wasm.OpBrOnNonNull:
		v.op(o.op, v.label(o.index))
		v.pop(1)
		return nil
	case wasm.OpBrOnNull:
		v.op(o.op, v.label(o.index))
		v.top().typ.NonNull = true
		return nil
	case wasm.OpBrTable:
		labels := v.labels(o)
		v.op(o.op, uint32(len(labels)-1))
		for _, l := range labels {
			v.out = wasm.AppendU32(v.out, v.label(l))
		}
		return nil
	}
	v.raw(o)
	m := v.p.m
	leaf := func(t wasm.Type, local int64) {
		v.stack = append(v.stack, operand{typ: t, leaf: true, start: start, end: len(v.out),
			local: local})
	}
	switch o.op {
	case wasm.OpLocalGet:
		leaf(v.locals[o.index], int64(o.index))
	case wasm.OpI32Const, wasm.OpI64Const, wasm.OpF32Const, wasm.OpF64Const:
		_, pushes, _ := o.op.Stack()
		leaf(typeOf(pushes[0]), -1)
	case wasm.OpLocalSet, wasm.OpGlobalSet, wasm.OpDrop:
		v.pop(1)
	case wasm.OpLocalTee:
		v.top().leaf = false
	case wasm.OpSelect, wasm.OpSelectTyped:
		v.pop(2)
		v.top().leaf = false
	case wasm.OpGlobalGet:
		v.push(m.Globals[o.index].Type)
	case wasm.OpTableGet:
		v.pop(1)
		v.push(m.Tables[o.index].Type)
	case wasm.OpTableSet:
		v.pop(2)
	case wasm.OpTableGrow:
		v.pop(2)
		v.pushKind(wasm.I32)
	case wasm.OpTableFill:
		v.pop(3)
	case wasm.OpRefNull:
		v.push(wasm.NullType(v.code[o.start:o.end]))
	case wasm.OpRefFunc:
		v.push(wasm.Type{Kind: wasm.FuncRef, Concrete: true, NonNull: true,
			Index: m.Funcs[o.index].Type})
	case wasm.OpRefIsNull:
		v.pop(1)
		v.pushKind(wasm.I32)
	case wasm.OpRefAsNonNull:
		v.top().typ.NonNull = true
	case wasm.OpReturn, wasm.OpUnreachable, wasm.OpThrow, wasm.OpThrowRef:
	case wasm.OpCall, wasm.OpReturnCall:
		v.called(m.TypeOf(o.index))
	case wasm.OpCallIndirect, wasm.OpCallRef, wasm.OpReturnCallIn, wasm.OpReturnCallRf:
		v.pop(1)
		v.called(&m.Types[o.index])
	default:
		pops, pushes, ok := o.op.Stack()
		if !ok {
			return fmt.Errorf("it has the instruction %s", o.op)
		}
		v.pop(len(pops))
		for i := range len(pushes) {
			v.push(typeOf(pushes[i]))
		}
	}
	return nil
}

func (v *version) called(t *wasm.FuncType) {
	v.pop(len(t.Params))
	v.push(t.Results...)
}

// typeOf is the type that a letter of wasm.Op.Stack stands for.
func typeOf(letter byte) wasm.Type {
	return wasm.Type{Kind: map[byte]wasm.Kind{'i': wasm.I32, 'l': wasm.I64, 'f': wasm.F32,
		'd': wasm.F64, 'v': wasm.V128}[letter]}
}

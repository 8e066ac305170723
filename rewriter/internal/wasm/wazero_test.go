package wasm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
)

const allFeatures = api.CoreFeaturesV2 | experimental.CoreFeaturesThreads |
	experimental.CoreFeaturesTailCall | experimental.CoreFeaturesExtendedConst |
	experimental.CoreFeaturesExceptionHandling | experimental.CoreFeaturesTypedFunctionReferences

// example writes what follows an opcode in a function of wrapCode's module.
func (o opInfo) example() []byte {
	if o.name == "i32.atomic.load16_u" {
		return []byte{1, 0} // wazero takes no other alignment
	}
	switch o.imm {
	case immLocal, immGlobal, immFunc, immTable, immType, immTag, immElem, immData, immMemory,
		immI32, immI64, immByte:
		return []byte{0}
	case immLabel:
		return []byte{1} // of the block around, which takes an i32
	case immTypeTable, immTableTable, immElemTable, immDataMemory, immMemory2, immMemArg:
		return []byte{0, 0}
	case immMemArgLane:
		return []byte{0, 0, 0}
	case imm4Bytes:
		return make([]byte, 4)
	case imm8Bytes:
		return make([]byte, 8)
	case imm16Bytes:
		return make([]byte, 16)
	case immBlockType:
		return []byte{noValue, 0x00, 0x0b}
	case immHeapType:
		return []byte{0x70}
	case immLabels:
		return []byte{1, 1, 1}
	case immTypes:
		return []byte{1, 0x7f}
	case immCatches:
		return []byte{noValue, 1, 2, 1, 0x00, 0x0b}
	}
	return nil
}

// wrapCode is a module with one of everything, whose only function is code behind an unreachable,
// in a block: there anything can be popped.
func wrapCode(code []byte) []byte {
	vec := func(id byte, entries ...[]byte) []byte {
		return AppendSection(nil, id, append(AppendU32(nil, uint32(len(entries))),
			slices.Concat(entries...)...))
	}
	body := slices.Concat([]byte{1, 1, 0x7f, 0x02, 0x40, 0x02, noValue, 0x00}, code,
		[]byte{0x0b, 0x0b, 0x0b})
	return slices.Concat([]byte(Preamble),
		vec(SecType, []byte{funcForm, 0, 0}), vec(SecFunction, []byte{0}), vec(SecTable,
			[]byte{0x70, 0, 1}),
		vec(SecMemory, []byte{0, 1}), vec(SecTag, []byte{0, 0}),
		vec(SecGlobal, []byte{0x7f, 1, 0x41, 0, 0x0b}), vec(SecElement, []byte{1, 0, 1, 0}),
		AppendSection(nil, SecDataCount, []byte{1}),
		vec(SecCode, append(AppendU32(nil, uint32(len(body))), body...)), vec(SecData,
			[]byte{1, 0}))
}

// What is decoded here must be what wazero runs: it takes exactly the instructions that the table
// has, and finds the next one where the table says that it is.
func TestTableIsWazeros(t *testing.T) {
	ctx := context.Background()
	rt := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter().
		WithCoreFeatures(allFeatures))
	defer rt.Close(ctx)
	takes := func(module []byte) (err error) {
		defer func() {
			if r := recover(); r != nil {
				err = fmt.Errorf("panic: %v", r)
			}
		}()
		_, err = rt.CompileModule(ctx, module)
		return err
	}
	if err := takes(wrapCode(nil)); err != nil {
		t.Fatal(err)
	}
	checked := 0
	check := func(op Op, info opInfo) {
		if op == OpElse || op == OpEnd { // they would close the block
			return
		}
		legacy := op == OpTry || op == OpCatch || op == OpRethrow || op == OpDelegate ||
			op == OpCatchAll
		want := info.imm != immUnknown && info.imm != immRefused && !legacy
		code := append(Code(nil).Op(op), info.example()...)
		for _, rest := range [][]byte{nil, Code(nil).I32(5).Op(OpDrop)} {
			err := takes(wrapCode(append(slices.Clone(code), append([]byte{0x00}, rest...)...)))
			if op == OpBrOnNonNull {
				err = nil // its label would have to take a reference
			}
			if (err == nil) != want {
				t.Errorf("%#x %s: wazero says %v", uint32(op), info.name, err)
			}
			checked++
		}
		if !want {
			return
		}
		// A label that is not there is found by both, at the same place.
		m := wrapCode(append(slices.Clone(code), 0x0c, 99))
		_, err := Decode(m)
		var f *FormatError
		if !errors.As(err, &f) || m[f.Offset-1] != 0x0c || m[f.Offset] != 99 {
			t.Errorf("%s: a wrong label behind it is not found: %v", info.name, err)
		}
		if takes(m) == nil {
			t.Errorf("%s: wazero does not find a wrong label behind it", info.name)
		}
		if _, err := Decode(wrapCode(append(slices.Clone(code), 0x00))); err != nil {
			t.Errorf("%s: %v", info.name, err)
		}
	}
	for b, info := range plainOps {
		if info.imm != immPrefix {
			check(Op(b), info)
		}
	}
	for _, prefix := range []byte{gcPrefix, miscPrefix, vecPrefix, atomicPrefix} {
		for n, info := range prefixedOps[prefix] {
			// wazero takes the first byte of a vector instruction's number for the whole.
			if n < 0x80 || prefix == miscPrefix || info.imm != immUnknown && n < 0x100 {
				check(Op(prefix)<<16|Op(n), info)
			}
		}
	}
	t.Logf("%d modules", checked)
}

// What an instruction pops and pushes is what wazero checks: with its operands on the stack it is
// taken, with one too few or of another type it is not, and what it leaves is of the type it says.
func TestStackEffectsAreWazeros(t *testing.T) {
	ctx := context.Background()
	rt := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter().
		WithCoreFeatures(allFeatures))
	defer rt.Close(ctx)
	push := map[byte]Code{
		'i': Code(nil).I32(0), 'l': {0x42, 0}, 'f': {0x43, 0, 0, 0, 0}, 'd': {0x44, 0, 0, 0, 0, 0,
			0, 0,
			0},
		'v': append(Code(nil).Op(OpV128Const), make([]byte, 16)...),
	}
	kinds := map[byte]Kind{'i': I32, 'l': I64, 'f': F32, 'd': F64, 'v': V128}
	// module runs op on operands in a block whose result is of the type that it should leave.
	takes := func(op Op, info opInfo, operands, results string) bool {
		code := Code(nil)
		if results == "" {
			code = code.Block(OpBlock, NoValue)
		} else {
			code = code.Block(OpBlock, kinds[results[0]])
		}
		for _, c := range []byte(operands) {
			code = code.Add(push[c])
		}
		code = append(code.Op(op), info.example()...).Op(OpEnd)
		if results != "" {
			code = code.Op(OpDrop)
		}
		_, err := rt.CompileModule(ctx, wrapReachable(code))
		return err == nil
	}
	check := func(op Op, info opInfo) {
		pops, pushes, ok := op.Stack()
		if !ok {
			return
		}
		if !takes(op, info, pops, pushes) {
			t.Errorf("%s is not %q", info.name, info.stack)
		}
		other := map[byte]string{'i': "l", 'l': "i", 'f': "d", 'd': "f", 'v': "i"}
		for i := range len(pops) {
			if takes(op, info, pops[:i]+other[pops[i]]+pops[i+1:], pushes) {
				t.Errorf("%s takes more than %q", info.name, info.stack)
			}
		}
		if pops != "" && takes(op, info, pops[1:], pushes) {
			t.Errorf("%s takes less than %q", info.name, info.stack)
		}
	}
	for b, info := range plainOps {
		check(Op(b), info)
	}
	for _, prefix := range []byte{miscPrefix, vecPrefix, atomicPrefix} {
		for n, info := range prefixedOps[prefix] {
			check(Op(prefix)<<16|Op(n), info)
		}
	}
}

// wrapReachable is wrapCode without the unreachable.
func wrapReachable(code []byte) []byte {
	m := wrapCode(code)
	before := []byte{byte(OpBlock), noValue, byte(OpUnreachable)}
	m[bytes.LastIndex(m[:bytes.LastIndex(m, code)], before)+2] = byte(OpNop)
	return m
}

// Names, exports, the start function, segments, constants and code all follow when imports are
// appended.
func TestAppendedImportMovesEveryReference(t *testing.T) {
	vec := func(id byte, entries ...[]byte) []byte {
		return AppendSection(nil, id, append(AppendU32(nil, uint32(len(entries))),
			slices.Concat(entries...)...))
	}
	name := func(s string) []byte { return AppendName(nil, s) }
	body := func(c ...byte) []byte {
		return append(AppendU32(nil, uint32(len(c)+1)),
			append([]byte{0}, c...)...)
	}
	funcNames := AppendSection(nil, namesOfFuncs, slices.Concat([]byte{3}, []byte{0},
		name("imported"),
		[]byte{1}, name("one"), []byte{2}, name("two")))
	localNames := AppendSection(nil, namesOfLocals, slices.Concat([]byte{1, 1, 1, 0}, name("x")))
	module := slices.Concat([]byte(Preamble),
		vec(SecType, []byte{funcForm, 0, 1, 0x7f}, []byte{funcForm, 0, 0}),
		vec(SecImport, slices.Concat(name("env"), name("hundred"), []byte{KindFunc, 0})),
		vec(SecFunction, []byte{0}, []byte{0}, []byte{1}),
		vec(SecTable, []byte{0x40, 0, 0x70, 0, 3, 0xd2, 1, 0x0b}),
		vec(SecGlobal, []byte{0x70, 1, 0xd2, 2, 0x0b}, []byte{0x7f, 1, 0x41, 0, 0x0b}),
		vec(SecExport, append(name("two"), KindFunc, 2), append(name("again"), KindFunc, 0)),
		AppendSection(nil, SecStart, []byte{3}),
		vec(SecElement, []byte{0, 0x41, 0, 0x0b, 2, 1, 0}, []byte{5, 0x70, 1, 0xd2, 2, 0x0b}),
		vec(SecCode,
			body(0x41, 1, 0x0b),
			body(0x10, 1, 0x10, 0, 0x6a, 0xd2, 1, 0x1a, 0x0b), // one + imported
			body(0x41, 7, 0x24, 1, 0x0b)),
		AppendSection(nil, SecCustom, slices.Concat(name("name"), funcNames, localNames)))
	m, err := Decode(module)
	if err != nil {
		t.Fatal(err)
	}
	first := m.ImportFunc("env", "first", nil, Types(I32))
	sum := m.AddFunc(nil, Types(I32), nil, Code(nil).Op(OpCall, first).Op(OpCall, 2).Op(OpI32Add))
	m.AddExport("sum", KindFunc, sum)
	second := m.ImportFunc("env", "second", nil, Types(I32))
	m.AddExport("second", KindFunc, second)
	table := m.AddTable(Type{Kind: FuncRef}, 5)
	m.FillTable(table, []int64{0, 1, 2, int64(first), int64(sum)})
	m.AddExport("call", KindFunc, m.AddFunc(Types(I32), Types(I32), nil,
		Code(nil).Op(OpLocalGet, 0).Op(OpCallIndirect, 0, table)))
	m.AddExport("call0", KindFunc, m.AddFunc(Types(I32), Types(I32), nil,
		Code(nil).Op(OpLocalGet, 0).Op(OpCallIndirect, 0, 0)))
	m.AddExport("started", KindGlobal, 1)
	if first != 4 || sum != 5 || second != 6 {
		t.Errorf("indices %d %d %d, want 4 5 6", first, sum, second)
	}
	out := m.Encode(AppendName(AppendName(nil, "mark"), "x"))

	ctx := context.Background()
	rt := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfig().WithCoreFeatures(allFeatures))
	defer rt.Close(ctx)
	_, err = rt.NewHostModuleBuilder("env").
		NewFunctionBuilder().WithFunc(func() int32 { return 100 }).Export("hundred").
		NewFunctionBuilder().WithFunc(func() int32 { return 10000 }).Export("first").
		NewFunctionBuilder().WithFunc(func() int32 { return 20000 }).Export("second").
		Instantiate(ctx)
	if err != nil {
		t.Fatal(err)
	}
	mod, err := rt.Instantiate(ctx, out)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		args []uint64
		want uint64
	}{
		{"two", nil, 101}, {"again", nil, 100}, {"sum", nil, 10101}, {"second", nil, 20000},
		{"call", []uint64{0}, 100}, {"call", []uint64{1}, 1}, {"call", []uint64{2}, 101},
		{"call", []uint64{3}, 10000}, {"call", []uint64{4}, 10101},
		{"call0", []uint64{0}, 1}, {"call0", []uint64{1}, 100}, {"call0", []uint64{2}, 1},
	} {
		got, err := mod.ExportedFunction(c.name).Call(ctx, c.args...)
		if err != nil || got[0] != c.want {
			t.Errorf("%s%v = %v, %v, want %d", c.name, c.args, got, err, c.want)
		}
	}
	if got := mod.ExportedGlobal("started").Get(); got != 7 {
		t.Errorf("the start function was another one: %d", got)
	}
	if got := mod.ExportedFunction("two").Definition().Name(); got != "two" {
		t.Errorf("two is called %q", got)
	}
	again, err := Decode(out)
	if err != nil {
		t.Fatal(err)
	}
	if again.Funcs[0].From.Name != "hundred" || again.Funcs[1].From.Name != "first" ||
		again.Funcs[2].From.Name != "second" || again.Funcs[3].Imported() {
		t.Errorf("imports: %v", again.Funcs)
	}
}

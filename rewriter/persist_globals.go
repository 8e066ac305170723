package rewriter

import "github.com/mmrun/mmrun/rewriter/internal/wasm"

// globals makes each mutable global reachable.
func (p *persister) globals() error {
	own := make(map[uint32]string) // the module's own exports of globals
	for _, e := range p.m.Exports {
		if _, ok := own[e.Index]; e.Kind == wasm.KindGlobal && !ok {
			own[e.Index] = e.Name
		}
	}
	names := p.m.GlobalNames()
	for i, def := range p.m.Globals {
		if !def.Mutable || def.Imported {
			continue
		}
		g := Global{Index: uint32(i), Type: ValType(def.Type.Kind), Export: own[uint32(i)],
			Name: names[uint32(i)]}
		if g.Name == "" {
			g.Name = g.Export
		}
		if g.Export == "" {
			g.Export = reservedName("global", i, "")
			p.m.AddExport(g.Export, wasm.KindGlobal, g.Index)
		}
		switch g.Type {
		case V128:
			p.vectorAccess(&g)
		case FuncRef:
			p.funcAccess(&g, def.Type)
		case ExternRef, ExnRef:
			if def.Type.NonNull {
				return wasm.Unsupported(0,
					"global %d is a mutable %s: it always refers to something of the "+
						"host, which cannot be kept", i, def.Type)
			}
			g.IsNull = reservedName("global", i, "null")
			p.addFunc(g.IsNull, nil, wasm.Types(wasm.I32), nil,
				wasm.Code(nil).Op(wasm.OpGlobalGet, g.Index).Op(wasm.OpRefIsNull))
		}
		p.info.Globals = append(p.info.Globals, g)
	}
	return nil
}

// vectorAccess gives a v128 global functions: what hosts see of it otherwise is its lower half.
func (p *persister) vectorAccess(g *Global) {
	g.Getter = reservedName("global", int(g.Index), "get")
	p.addFunc(g.Getter, nil, wasm.Types(wasm.I64, wasm.I64), nil, wasm.Code(nil).
		Op(wasm.OpGlobalGet, g.Index).Op(wasm.OpI64x2ExtractLane, 0).
		Op(wasm.OpGlobalGet, g.Index).Op(wasm.OpI64x2ExtractLane, 1))
	g.Setter = reservedName("global", int(g.Index), "set")
	p.addFunc(g.Setter, wasm.Types(wasm.I64, wasm.I64), nil, nil, wasm.Code(nil).
		Op(wasm.OpLocalGet, 0).Op(wasm.OpI64x2Splat).
		Op(wasm.OpLocalGet, 1).Op(wasm.OpI64x2ReplaceLane, 1).
		Op(wasm.OpGlobalSet, g.Index))
}

func (p *persister) funcAccess(g *Global, t wasm.Type) {
	g.Getter = reservedName("global", int(g.Index), "get")
	p.addFunc(g.Getter, nil, wasm.Types(wasm.FuncRef), nil,
		wasm.Code(nil).Op(wasm.OpGlobalGet, g.Index))
	g.Setter = reservedName("global", int(g.Index), "set")
	p.addFunc(g.Setter, wasm.Types(wasm.I32), nil, nil,
		p.withFunc(t, 0, wasm.NoValue, nil, wasm.Code(nil).Op(wasm.OpGlobalSet, g.Index)))
}

// withFunc is code that runs before, pushes the reference of type t to the function whose index is
// in a local, and runs after. Index -1 is null; if t has no null, that traps.
func (p *persister) withFunc(t wasm.Type, local uint32, result wasm.Kind, before,
	after wasm.Code) wasm.Code {
	known := wasm.Code(nil).Add(before).Op(wasm.OpLocalGet, local).Op(wasm.OpTableGet,
		p.funcTable(t))
	if t.NonNull {
		return known.Op(wasm.OpRefAsNonNull).Add(after)
	}
	return wasm.Code(nil).Op(wasm.OpLocalGet, local).I32(-1).Op(wasm.OpI32Eq).
		Block(wasm.OpIf, result).Add(before).RefNull(t).Add(after).
		Op(wasm.OpElse).Add(known).Add(after).
		Op(wasm.OpEnd)
}

// funcTable is the index of an added table that holds the references to all functions at their
// indices, so far as they are of type t. There is one for references to any function, and one for
// each signature in use.
func (p *persister) funcTable(t wasm.Type) uint32 {
	key := wasm.Type{Kind: wasm.FuncRef, Concrete: t.Concrete, Index: t.Index}
	if t.Concrete && p.canonical == nil {
		p.canonical = wasm.CanonicalTypes(p.m.Types)
	}
	if index, ok := p.funcTables[key]; ok {
		return index
	}
	index := p.m.AddTable(key, uint32(p.funcs))
	if p.funcTables == nil {
		p.funcTables = map[wasm.Type]uint32{}
	}
	p.funcTables[key] = index
	all := make([]int64, p.funcs)
	for i := range all {
		all[i] = int64(i)
		if t.Concrete && p.canonical[p.m.Funcs[i].Type] != p.canonical[key.Index] {
			all[i] = -1
		}
	}
	p.m.FillTable(index, all)
	return index
}

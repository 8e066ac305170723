package rewriter

// planGlobals makes each mutable global reachable.
func (b *builder) planGlobals() error {
	own := make(map[uint32]string) // the module's own exports of globals
	for _, e := range b.m.exports {
		if _, ok := own[e.index]; e.kind == kindGlobal && !ok {
			own[e.index] = e.name
		}
	}
	names := b.m.globalNames()
	for i, def := range b.m.globals {
		if !def.mutable || def.imported {
			continue
		}
		g := Global{Index: uint32(i), Type: def.typ.kind, Export: own[uint32(i)], Name: names[uint32(i)]}
		if g.Name == "" {
			g.Name = g.Export
		}
		if g.Export == "" {
			g.Export = b.name("global", i, "")
			b.export(g.Export, kindGlobal, g.Index)
		}
		switch def.typ.kind {
		case V128:
			b.planVector(&g)
		case FuncRef:
			b.planFuncGlobal(&g, def.typ)
		case ExternRef, ExnRef:
			if def.typ.nonNull {
				return unsupported(0, "global %d is a mutable %s: it always refers to something of the host, which cannot be kept", i, def.typ)
			}
			g.IsNull = b.name("global", i, "null")
			b.addFunc(g.IsNull, nil, plain(I32), nil, code(nil).op(opGlobalGet, g.Index).op(opRefIsNull))
		}
		b.info.Globals = append(b.info.Globals, g)
	}
	return nil
}

// planVector gives a v128 global functions: what hosts see of it otherwise is its lower half.
func (b *builder) planVector(g *Global) {
	g.Getter = b.name("global", int(g.Index), "get")
	b.addFunc(g.Getter, nil, plain(I64, I64), nil, code(nil).
		op(opGlobalGet, g.Index).op(opI64x2ExtractLane, 0).
		op(opGlobalGet, g.Index).op(opI64x2ExtractLane, 1))
	g.Setter = b.name("global", int(g.Index), "set")
	b.addFunc(g.Setter, plain(I64, I64), nil, nil, code(nil).
		op(opLocalGet, 0).op(opI64x2Splat).
		op(opLocalGet, 1).op(opI64x2ReplaceLane, 1).
		op(opGlobalSet, g.Index))
}

func (b *builder) planFuncGlobal(g *Global, t valType) {
	g.Getter = b.name("global", int(g.Index), "get")
	b.addFunc(g.Getter, nil, plain(FuncRef), nil, code(nil).op(opGlobalGet, g.Index))
	g.Setter = b.name("global", int(g.Index), "set")
	b.addFunc(g.Setter, plain(I32), nil, nil, b.withFunc(t, 0, noValue, nil, code(nil).op(opGlobalSet, g.Index)))
}

// withFunc is code that runs before, pushes the reference of type t to the function whose index is in a local, and runs
// after. Index -1 is null; if t has no null, that traps.
func (b *builder) withFunc(t valType, local uint32, blockType byte, before, after code) code {
	known := code(nil).add(before).op(opLocalGet, local).op(opTableGet, b.funcTable(t))
	if t.nonNull {
		return known.op(opRefAsNonNull).add(after)
	}
	return code(nil).op(opLocalGet, local).i32(-1).op(opI32Eq).
		block(opIf, blockType).add(before).refNull(t).add(after).
		op(opElse).add(known).add(after).
		op(opEnd)
}

// funcTable is the index of an added table that holds the references to all functions at their indices, so far as they are
// of type t. There is one for references to any function, and one for each signature in use.
func (b *builder) funcTable(t valType) uint32 {
	key := valType{kind: FuncRef, concrete: t.concrete, index: t.index}
	if t.concrete && b.canonical == nil {
		b.canonical = canonicalTypes(b.m.types)
	}
	if index, ok := b.funcTables[key]; ok {
		return index
	}
	index := uint32(len(b.m.tables) + len(b.tables))
	if b.funcTables == nil {
		b.funcTables = map[valType]uint32{}
	}
	b.funcTables[key] = index
	n := uint32(len(b.m.funcs))
	b.tables = append(b.tables, appendU32(appendU32(append(key.append(nil), limitsMax), n), n))
	b.elems = append(b.elems, b.funcSegment(key, index, n))
	return index
}

// funcSegment is the active element segment that fills such a table.
func (b *builder) funcSegment(key valType, table, n uint32) []byte {
	flags := uint32(elemHasTable)
	if key.concrete {
		flags |= elemHasExprs
	}
	entry := code(appendU32(appendU32(nil, flags), table)).i32(0).op(opEnd)
	if !key.concrete {
		entry = appendU32(append(entry, elemKindFuncs), n)
		for i := range n {
			entry = appendU32(entry, i)
		}
		return entry
	}
	entry = appendU32(key.append(entry), n)
	for i, t := range b.m.funcs {
		if b.canonical[t] == b.canonical[key.index] {
			entry = entry.op(opRefFunc, uint32(i)).op(opEnd)
		} else {
			entry = entry.refNull(key).op(opEnd)
		}
	}
	return entry
}

package rewriter

// planTables gives functions to each table that the code can change.
func (b *builder) planTables() error {
	for i, def := range b.m.tables {
		if !b.usage.changesTable[i] {
			continue
		}
		t := Table{Index: uint32(i), Type: def.typ.kind, Min: def.min, Max: def.max, HasMax: def.hasMax}
		t.Size = b.name("table", i, "size")
		b.addFunc(t.Size, nil, plain(I32), nil, code(nil).op(opTableSize, t.Index))
		t.Grow = b.name("table", i, "grow")
		grow := code(nil).op(opLocalGet, 0).op(opTableGrow, t.Index)
		if t.Type == FuncRef {
			b.addFunc(t.Grow, plain(I32, I32), plain(I32), nil, b.withFunc(def.typ, 1, i32Value, nil, grow))
			t.Get = b.name("table", i, "get")
			b.addFunc(t.Get, plain(I32), plain(FuncRef), nil, code(nil).op(opLocalGet, 0).op(opTableGet, t.Index))
			t.Set = b.name("table", i, "set")
			b.addFunc(t.Set, plain(I32, I32), nil, nil,
				b.withFunc(def.typ, 1, noValue, code(nil).op(opLocalGet, 0), code(nil).op(opTableSet, t.Index)))
		} else {
			if def.typ.nonNull {
				return unsupported(0, "table %d, which the code changes, holds %s: its entries always refer to something of the host, which "+
					"cannot be kept", i, def.typ)
			}
			b.addFunc(t.Grow, plain(I32, I32), plain(I32), nil, code(nil).refNull(def.typ).add(grow))
			t.AllNull = b.name("table", i, "null")
			b.addFunc(t.AllNull, nil, plain(I32), plain(I32), allNull(t.Index))
		}
		b.info.Tables = append(b.info.Tables, t)
	}
	return nil
}

// allNull is a function with one local i32 that returns whether all entries of a table are null.
func allNull(table uint32) code {
	const position = 0
	return code(nil).
		block(opLoop, noValue).
		op(opLocalGet, position).op(opTableSize, table).op(opI32Eq).
		block(opIf, noValue).i32(1).op(opReturn).op(opEnd).
		op(opLocalGet, position).op(opTableGet, table).op(opRefIsNull).op(opI32Eqz).
		block(opIf, noValue).i32(0).op(opReturn).op(opEnd).
		op(opLocalGet, position).i32(1).op(opI32Add).op(opLocalSet, position).
		op(opBr, 0).
		op(opEnd).
		op(opUnreachable)
}

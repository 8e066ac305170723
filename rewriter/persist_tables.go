package rewriter

import "github.com/mmrun/mmrun/rewriter/internal/wasm"

// tables gives functions to each table that the code can change.
func (p *persister) tables() error {
	for i, def := range p.m.Tables[:len(p.usage.changesTable)] {
		if !p.usage.changesTable[i] {
			continue
		}
		t := Table{Index: uint32(i), Type: ValType(def.Type.Kind), Min: def.Min, Max: def.Max,
			HasMax: def.HasMax}
		t.Size = reservedName("table", i, "size")
		p.addFunc(t.Size, nil, wasm.Types(wasm.I32), nil,
			wasm.Code(nil).Op(wasm.OpTableSize, t.Index))
		t.Grow = reservedName("table", i, "grow")
		if def.Type.Kind == wasm.FuncRef {
			p.funcTableAccess(&t, def.Type)
		} else if err := p.hostTableAccess(&t, def.Type); err != nil {
			return err
		}
		p.info.Tables = append(p.info.Tables, t)
	}
	return nil
}

func (p *persister) funcTableAccess(t *Table, typ wasm.Type) {
	i := int(t.Index)
	grow := wasm.Code(nil).Op(wasm.OpLocalGet, 0).Op(wasm.OpTableGrow, t.Index)
	p.addFunc(t.Grow, wasm.Types(wasm.I32, wasm.I32), wasm.Types(wasm.I32), nil,
		p.withFunc(typ, 1, wasm.I32Value, nil, grow))
	t.Get = reservedName("table", i, "get")
	p.addFunc(t.Get, wasm.Types(wasm.I32), wasm.Types(wasm.FuncRef), nil,
		wasm.Code(nil).Op(wasm.OpLocalGet, 0).Op(wasm.OpTableGet, t.Index))
	t.Set = reservedName("table", i, "set")
	p.addFunc(t.Set, wasm.Types(wasm.I32, wasm.I32), nil, nil, p.withFunc(typ, 1, wasm.NoValue,
		wasm.Code(nil).Op(wasm.OpLocalGet, 0), wasm.Code(nil).Op(wasm.OpTableSet, t.Index)))
}

func (p *persister) hostTableAccess(t *Table, typ wasm.Type) error {
	if typ.NonNull {
		return wasm.Unsupported(0,
			"table %d, which the code changes, holds %s: its entries always "+
				"refer to something of the host, which cannot be kept", t.Index, typ)
	}
	p.addFunc(t.Grow, wasm.Types(wasm.I32, wasm.I32), wasm.Types(wasm.I32), nil,
		wasm.Code(nil).RefNull(typ).Op(wasm.OpLocalGet, 0).Op(wasm.OpTableGrow, t.Index))
	t.AllNull = reservedName("table", int(t.Index), "null")
	p.addFunc(t.AllNull, nil, wasm.Types(wasm.I32), wasm.Types(wasm.I32), allNull(t.Index))
	return nil
}

// allNull is a function with one local i32 that returns whether all entries of a table are null.
func allNull(table uint32) wasm.Code {
	const position = 0
	return wasm.Code(nil).
		Block(wasm.OpLoop, wasm.NoValue).
		Op(wasm.OpLocalGet, position).Op(wasm.OpTableSize, table).Op(wasm.OpI32Eq).
		Block(wasm.OpIf, wasm.NoValue).I32(1).Op(wasm.OpReturn).Op(wasm.OpEnd).
		Op(wasm.OpLocalGet, position).Op(wasm.OpTableGet,
		table).Op(wasm.OpRefIsNull).Op(wasm.OpI32Eqz).
		Block(wasm.OpIf, wasm.NoValue).I32(0).Op(wasm.OpReturn).Op(wasm.OpEnd).
		Op(wasm.OpLocalGet, position).I32(1).Op(wasm.OpI32Add).Op(wasm.OpLocalSet, position).
		Op(wasm.OpBr, 0).
		Op(wasm.OpEnd).
		Op(wasm.OpUnreachable)
}

package wasm

import "slices"

// What passes append. Each function returns the index of what it has appended.

// TypeIndex is the index of a type of functions, which is appended unless the module has it.
func (m *Module) TypeIndex(params, results []Type) uint32 {
	for i := range m.Types {
		// Not one out of a group: that would be another type than the same one alone.
		if t := &m.Types[i]; t.GroupEnd-t.GroupStart == 1 && t.Is(params, results) {
			return uint32(i)
		}
	}
	n := len(m.Types)
	m.Types = append(m.Types, FuncType{Params: params, Results: results, GroupStart: n,
		GroupEnd: n + 1})
	return uint32(n)
}

// ImportFunc appends an import of a function.
func (m *Module) ImportFunc(from, name string, params, results []Type) uint32 {
	m.Funcs = append(m.Funcs, Func{Type: m.TypeIndex(params, results), From: &Import{from, name}})
	return uint32(len(m.Funcs) - 1)
}

// AddFunc appends a function. code does not have its final end yet.
func (m *Module) AddFunc(params, results, locals []Type, code Code) uint32 {
	b := &Body{Code: code.Op(OpEnd), Params: uint32(len(params)), Locals: uint32(len(params))}
	for _, t := range locals {
		b.AddLocal(t)
	}
	b.SetHas()
	m.Funcs = append(m.Funcs, Func{Type: m.TypeIndex(params, results), Body: b})
	return uint32(len(m.Funcs) - 1)
}

// SetHas looks at the code anew.
func (b *Body) SetHas() {
	b.Has = 0
	err := Walk(b.Code, func(in *Instr) error {
		b.Has |= in.Op.has()
		return nil
	})
	if err != nil {
		panic(err) // a pass has written it
	}
}

// AddTable appends a table of a fixed size, with null in it.
func (m *Module) AddTable(t Type, entries uint32) uint32 {
	m.Tables = append(m.Tables, Table{Type: t, Min: entries, Max: entries, HasMax: true})
	return uint32(len(m.Tables) - 1)
}

// AddGlobal appends a global with an initial value, a constant expression without its end.
func (m *Module) AddGlobal(t Type, mutable bool, value Code) uint32 {
	m.Globals = append(m.Globals, Global{Type: t, Mutable: mutable})
	m.globalValues = append(m.globalValues, value)
	return uint32(len(m.Globals) - 1)
}

// AddExport appends an export.
func (m *Module) AddExport(name string, kind byte, index uint32) {
	m.Exports = append(m.Exports, Export{name, kind, index})
}

// AddData appends a passive data segment.
func (m *Module) AddData(bytes []byte) uint32 {
	m.Data = append(m.Data, DataSegment{Bytes: bytes, changed: true})
	return uint32(len(m.Data) - 1)
}

// addedElem is an element segment that fills a table from its start.
type addedElem struct {
	typ   Type
	funcs []int64 // -1 for null, which typ must allow then
}

// FillTable appends an active element segment that writes references to functions to a table, from
// its first entry on; -1 stands for null.
func (m *Module) FillTable(table uint32, funcs []int64) uint32 {
	m.Elems = append(m.Elems, ElemSegment{Mode: ElemActive, Table: table, Offset: Code(nil).I32(0),
		Count: len(funcs), added: &addedElem{m.Tables[table].Type, slices.Clone(funcs)}})
	return uint32(len(m.Elems) - 1)
}

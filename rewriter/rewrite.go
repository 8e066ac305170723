package rewriter

import (
	"fmt"
	"strings"
)

// Reserved is how the names of all exports begin that the rewrite adds.
const Reserved = "mmrun:"

// Rewrite returns the rewritten module and what a host must know about it. The input is not modified. A module that has
// been rewritten already comes back as it is, with the same Info. Errors are *FormatError and *UnsupportedError.
// Rewrite is a pure function and safe for concurrent use.
func Rewrite(wasm []byte) ([]byte, Info, error) {
	m, err := parse(wasm)
	if err != nil {
		return nil, Info{}, err
	}
	u, err := m.scan()
	if err != nil {
		return nil, Info{}, err
	}
	if err := m.refuseForeignTables(u); err != nil {
		return nil, Info{}, err
	}
	marked, err := m.findMarker()
	if err != nil {
		return nil, Info{}, err
	}
	if marked != nil {
		info, err := m.readMarker(marked, u)
		if err != nil {
			return nil, Info{}, err
		}
		return wasm, info, nil
	}
	for _, e := range m.exports {
		if strings.HasPrefix(e.name, Reserved) {
			return nil, Info{}, unsupported(0, "the module exports %q: names that start with %s are reserved for what a rewrite "+
				"adds, and the module does not carry the mark of one", e.name, Reserved)
		}
	}
	b := &builder{m: m, usage: u}
	if err := b.plan(); err != nil {
		return nil, Info{}, err
	}
	return b.assemble(), b.info, nil
}

// refuseForeignTables refuses modules that change a table of another module, by code or at instantiation.
func (m *module) refuseForeignTables(u *usage) error {
	for i, e := range m.elems {
		if e.mode == elemActive && m.tables[e.table].imported {
			return unsupported(0, "element segment %d initialises table %d, which is imported: each resume would overwrite what has "+
				"become of a table that is not the module's own", i, e.table)
		}
	}
	for _, s := range u.sites {
		if t, ok := s.changedTable(); ok && m.tables[t].imported {
			return unsupported(s.offset, "%s changes table %d, which is imported: its content is not the module's own, so it cannot "+
				"be kept", s.op, t)
		}
	}
	return nil
}

func (s *site) changedTable() (uint32, bool) {
	return s.index, s.op != opDataDrop && s.op != opElemDrop
}

// builder collects what the rewrite adds.
type builder struct {
	m     *module
	usage *usage
	info  Info

	// Entries to append to each section, encoded.
	types, funcs, tables, globals, exports, elems, bodies [][]byte

	signatures []signature        // of the functions added so far, each once
	funcTables map[valType]uint32 // the tables of all functions, by type of reference
	canonical  []int              // canonicalTypes, once needed

	segments   map[segmentKey]*droppable
	insertions []insertion
	data       [][]byte // the entries of the data section, if some have become passive
}

type signature struct {
	params, results []valType
	index           uint32
}

func (b *builder) plan() error {
	m := b.m
	b.info.Memory = m.memory
	b.info.Initialize = m.exportsFunc("_initialize", nil, nil)
	if err := b.planGlobals(); err != nil {
		return err
	}
	if err := b.planTables(); err != nil {
		return err
	}
	b.planSegments()
	b.planInit()
	if m.start >= 0 {
		b.planStart()
	}
	if b.needsFuncs() {
		b.info.Func, b.info.FuncCount = Reserved+"func", uint32(len(m.funcs))
		b.addFunc(b.info.Func, plain(I32), plain(FuncRef), nil, code(nil).op(opLocalGet, 0).op(opTableGet, b.funcTable(valType{kind: FuncRef})))
	}
	b.planInsertions()
	return nil
}

// needsFuncs says whether a reference to a function can be part of the state.
func (b *builder) needsFuncs() bool {
	for _, g := range b.info.Globals {
		if g.Type == FuncRef {
			return true
		}
	}
	for _, t := range b.info.Tables {
		if t.Type == FuncRef {
			return true
		}
	}
	return false
}

func (b *builder) planStart() {
	b.info.Start = Reserved + "start"
	if b.m.start >= b.m.importedFuncs {
		b.export(b.info.Start, kindFunc, uint32(b.m.start))
		return
	}
	// An imported function that is exported again is not everywhere callable; a function that calls it is.
	b.addFunc(b.info.Start, nil, nil, nil, code(nil).op(opCall, uint32(b.m.start)))
}

// planInsertions sets a flag before each instruction that changes a table or drops a segment of Info.
func (b *builder) planInsertions() {
	var changed uint32
	if len(b.info.Tables) > 0 {
		b.info.TablesChanged = Reserved + "tables:changed"
		changed = b.addFlag(b.info.TablesChanged)
	}
	for _, s := range b.usage.sites {
		flag := changed
		switch s.op {
		case opDataDrop, opElemDrop:
			kind := DataSegment
			if s.op == opElemDrop {
				kind = ElemSegment
			}
			segment := b.segment(kind, s.index)
			if segment == nil {
				continue
			}
			flag = segment.flag
		}
		b.insertions = append(b.insertions, insertion{body: s.body, offset: s.offset, code: setFlag(nil, flag)})
	}
}

func setFlag(c code, flag uint32) code { return c.i32(1).op(opGlobalSet, flag) }

// addFlag adds a mutable i32 global that is 0 at first.
func (b *builder) addFlag(name string) uint32 {
	index := uint32(len(b.m.globals) + len(b.globals))
	b.globals = append(b.globals, code{byte(I32), 1}.i32(0).op(opEnd))
	b.export(name, kindGlobal, index)
	return index
}

func (b *builder) export(name string, kind byte, index uint32) {
	b.exports = append(b.exports, appendU32(append(appendName(nil, name), kind), index))
}

// addFunc adds a function, and exports it if name is not empty. c does not have its final end yet.
func (b *builder) addFunc(name string, params, results []valType, locals []valType, c code) uint32 {
	index := uint32(len(b.m.funcs) + len(b.funcs))
	b.funcs = append(b.funcs, appendU32(nil, b.typeIndex(params, results)))
	body := appendU32(nil, uint32(len(locals)))
	for _, t := range locals {
		body = t.append(append(body, 1))
	}
	body = code(append(body, c...)).op(opEnd)
	b.bodies = append(b.bodies, append(appendU32(nil, uint32(len(body))), body...))
	if name != "" {
		b.export(name, kindFunc, index)
	}
	return index
}

func (b *builder) typeIndex(params, results []valType) uint32 {
	for _, s := range b.signatures {
		if (&funcType{params: params, results: results}).is(s.params, s.results) {
			return s.index
		}
	}
	index := uint32(len(b.m.types) + len(b.types))
	reuse := false
	for i := range b.m.types {
		// Not one out of a group: that would be another type than the same one alone.
		if t := &b.m.types[i]; t.groupEnd-t.groupStart == 1 && t.is(params, results) {
			index, reuse = uint32(i), true
			break
		}
	}
	if !reuse {
		entry := []byte{funcForm}
		for _, types := range [][]valType{params, results} {
			entry = appendU32(entry, uint32(len(types)))
			for _, t := range types {
				entry = t.append(entry)
			}
		}
		b.types = append(b.types, entry)
	}
	b.signatures = append(b.signatures, signature{params, results, index})
	return index
}

// assemble writes the module.
func (b *builder) assemble() []byte {
	out := &output{m: b.m, replace: map[byte][]byte{}, omit: map[byte]bool{secStart: true}}
	for id, added := range map[byte][][]byte{
		secType: b.types, secFunction: b.funcs, secTable: b.tables, secGlobal: b.globals, secExport: b.exports, secElement: b.elems,
	} {
		if len(added) > 0 {
			out.vector(id, nil, added)
		}
	}
	if len(b.bodies) > 0 || len(b.insertions) > 0 {
		out.vector(secCode, b.m.codeEntries(b.insertions), b.bodies)
	}
	if b.data != nil {
		out.replaceVector(secData, b.data)
		out.replace[secDataCount] = appendU32(nil, uint32(len(b.data)))
	}
	return out.bytes(marker(b.info))
}

func (b *builder) name(kind string, index int, what string) string {
	name := fmt.Sprintf("%s%s:%d", Reserved, kind, index)
	if what != "" {
		name += ":" + what
	}
	return name
}

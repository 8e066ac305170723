package wasm

import "slices"

// Encode writes the module, with a last custom section of that content. The module can be encoded
// any number of times.
func (m *Module) Encode(last []byte) []byte {
	e := &encoder{m: m, final: m.finalFuncs(), content: map[byte][]byte{}}
	e.types()
	e.imports()
	e.functions()
	e.tables()
	e.globals()
	e.exports()
	e.elements()
	e.data()
	e.code()
	return e.bytes(last)
}

// encoder holds what becomes of the sections.
type encoder struct {
	m     *Module
	final []uint32 // of each function: its index as it is written; nil if that stays

	// content is what sections hold now that differ from what they held, or that are new.
	content map[byte][]byte
}

// entries gives a section its own entries, renumbered, and those that were appended.
func (e *encoder) entries(id byte, read func(*Reader) error, added [][]byte) {
	s := e.m.section(id)
	switch {
	case len(added) == 0 && (s == nil || e.final == nil || read == nil):
		return
	case s == nil:
		e.content[id] = vector(len(added), nil, added)
		return
	}
	own := e.m.raw[s.first:s.end]
	if e.final != nil && read != nil {
		p := patch{from: e.m.raw, copied: s.first}
		r := &Reader{buf: e.m.raw, pos: s.first, end: s.end, refs: e.refs(&p)}
		for range s.count {
			if err := read(r); err != nil {
				panic(err) // it has been read before
			}
		}
		own = p.upTo(s.end)
	}
	e.content[id] = vector(s.count+len(added), own, added)
}

// vector is the content of a section: a count, entries that are one piece already, and others.
func vector(count int, first []byte, others [][]byte) []byte {
	size := 5 + len(first)
	for _, e := range others {
		size += len(e)
	}
	content := append(AppendU32(make([]byte, 0, size), uint32(count)), first...)
	for _, e := range others {
		content = append(content, e...)
	}
	return content
}

func (e *encoder) types() {
	var added [][]byte
	for _, t := range e.m.Types[e.m.original.types:] {
		entry := []byte{funcForm}
		for _, types := range [][]Type{t.Params, t.Results} {
			entry = AppendU32(entry, uint32(len(types)))
			for _, t := range types {
				entry = t.Append(entry)
			}
		}
		added = append(added, entry)
	}
	if len(added) == 0 {
		return
	}
	if s := e.m.section(SecType); s != nil { // groups count as one
		e.content[SecType] = vector(s.count+len(added), e.m.raw[s.first:s.end], added)
	} else {
		e.content[SecType] = vector(len(added), nil, added)
	}
}

func (e *encoder) imports() {
	var added [][]byte
	for _, f := range e.m.Funcs[e.m.original.funcs:] {
		if f.Imported() {
			entry := AppendName(AppendName(nil, f.From.Module), f.From.Name)
			added = append(added, AppendU32(append(entry, KindFunc), f.Type))
		}
	}
	e.entries(SecImport, nil, added)
}

func (e *encoder) functions() {
	var added [][]byte
	for _, f := range e.m.Funcs[e.m.original.funcs:] {
		if !f.Imported() {
			added = append(added, AppendU32(nil, f.Type))
		}
	}
	e.entries(SecFunction, nil, added)
}

func (e *encoder) tables() {
	var added [][]byte
	for _, t := range e.m.Tables[e.m.original.tables:] {
		entry := append(t.Type.Append(nil), 0)
		if t.HasMax {
			entry[len(entry)-1] = limitsMax
		}
		if entry = AppendU32(entry, t.Min); t.HasMax {
			entry = AppendU32(entry, t.Max)
		}
		added = append(added, entry)
	}
	e.entries(SecTable, new(Module).readTable, added)
}

func (e *encoder) globals() {
	var added [][]byte
	for i, g := range e.m.Globals[e.m.original.globals:] {
		entry := append(g.Type.Append(nil), 0)
		if g.Mutable {
			entry[len(entry)-1] = 1
		}
		added = append(added, append(entry, e.expr(e.m.globalValues[i].Op(OpEnd))...))
	}
	e.entries(SecGlobal, new(Module).readGlobal, added)
}

func (e *encoder) exports() {
	var added [][]byte
	for _, x := range e.m.Exports[e.m.original.exports:] {
		index := x.Index
		if x.Kind == KindFunc {
			index = e.function(index)
		}
		added = append(added, AppendU32(append(AppendName(nil, x.Name), x.Kind), index))
	}
	e.entries(SecExport, new(Module).readExport, added)
	if e.m.Start >= 0 && e.final != nil {
		e.content[SecStart] = AppendU32(nil, e.function(uint32(e.m.Start)))
	}
}

func (e *encoder) elements() {
	var added [][]byte
	for _, s := range e.m.Elems[e.m.original.elems:] {
		added = append(added, e.element(&s))
	}
	e.entries(SecElement, new(Module).readElem, added)
}

func (e *encoder) element(s *ElemSegment) []byte {
	flags := uint32(elemHasTable)
	if s.added.typ.Concrete {
		flags |= elemHasExprs
	}
	entry := Code(AppendU32(AppendU32(nil, flags), s.Table)).Add(s.Offset).Op(OpEnd)
	if !s.added.typ.Concrete {
		entry = AppendU32(append(entry, elemKindFuncs), uint32(len(s.added.funcs)))
		for _, f := range s.added.funcs {
			entry = AppendU32(entry, e.function(uint32(f)))
		}
		return entry
	}
	entry = AppendU32(s.added.typ.Append(entry), uint32(len(s.added.funcs)))
	for _, f := range s.added.funcs {
		if f >= 0 {
			entry = entry.Op(OpRefFunc, e.function(uint32(f))).Op(OpEnd)
		} else {
			entry = entry.RefNull(s.added.typ).Op(OpEnd)
		}
	}
	return entry
}

func (e *encoder) data() {
	if !slices.ContainsFunc(e.m.Data, func(d DataSegment) bool { return d.changed }) {
		return
	}
	entries := make([][]byte, len(e.m.Data))
	for i := range e.m.Data {
		d := &e.m.Data[i]
		if d.changed {
			head := AppendU32([]byte{dataPassive}, uint32(len(d.Bytes)))
			entries[i] = append(head, d.Bytes...)
		} else {
			entries[i] = e.m.raw[d.raw.start:d.raw.end]
		}
	}
	e.content[SecData] = vector(len(entries), nil, entries)
	e.content[SecDataCount] = AppendU32(nil, uint32(len(entries)))
}

// code writes the bodies. Neighbours that stay are copied in one piece.
func (e *encoder) code() {
	m := e.m
	count, size, same := 0, 0, true
	for i := range m.Funcs {
		if b := m.Funcs[i].Body; b != nil {
			count++
			size += len(b.Code) + len(b.runList) + 15
			same = same && e.stays(b)
		}
	}
	if same {
		return
	}
	out := AppendU32(make([]byte, 0, size), uint32(count))
	var copying span
	for i := range m.Funcs {
		b := m.Funcs[i].Body
		switch {
		case b == nil:
			continue
		case e.stays(b) && copying.end == b.raw.start && copying.start > 0:
			copying.end = b.raw.end
			continue
		}
		out = append(out, m.raw[copying.start:copying.end]...)
		copying = span{}
		if e.stays(b) {
			copying = b.raw
			continue
		}
		body := append(AppendU32(nil, b.runs), b.runList...)
		code := e.expr(b.Code)
		out = AppendU32(out, uint32(len(body)+len(code)))
		out = append(append(out, body...), code...)
	}
	e.content[SecCode] = append(out, m.raw[copying.start:copying.end]...)
}

// stays says whether a function is written as it lies in the original.
func (e *encoder) stays(b *Body) bool {
	return !b.edited && b.raw.end > 0 && (e.final == nil || b.Has&HasFunc == 0)
}

// bytes writes the module. A new section goes right behind the last one that must come before it,
// so that custom sections keep their neighbours.
func (e *encoder) bytes(last []byte) []byte {
	size := len(e.m.raw) + len(last) + 200 // headers of sections are less
	for _, content := range e.content {
		size += len(content)
	}
	out := append(make([]byte, 0, size), Preamble...)
	written := 0 // rank up to which all sections are written
	newSections := func(below int) {
		for written++; written < below; written++ {
			id := idOfRank(written)
			if content, ok := e.content[id]; ok && e.m.section(id) == nil {
				out = AppendSection(out, id, content)
			}
		}
	}
	for i := range e.m.sections {
		s := &e.m.sections[i]
		if s.id == SecCustom {
			out = e.custom(out, s)
			continue
		}
		if written == 0 {
			newSections(sectionRank[s.id]) // those before the first one
		}
		switch content, ok := e.content[s.id]; {
		case s.id == SecStart && e.m.Start < 0:
		case ok:
			out = AppendSection(out, s.id, content)
		default:
			out = append(out, e.m.raw[s.start:s.end]...)
		}
		written = sectionRank[s.id]
		newSections(e.nextRank(i + 1))
	}
	if written == 0 {
		newSections(len(sectionRank))
	}
	return AppendSection(out, SecCustom, last)
}

func (e *encoder) custom(out []byte, s *section) []byte {
	if s.custom == nameSection && e.final != nil {
		return AppendSection(out, SecCustom, e.m.renumberNames(s, e.final))
	}
	return append(out, e.m.raw[s.start:s.end]...)
}

// nextRank is the rank of the first section from index i on that is not custom.
func (e *encoder) nextRank(i int) int {
	for _, s := range e.m.sections[i:] {
		if s.id != SecCustom {
			return sectionRank[s.id]
		}
	}
	return len(sectionRank)
}

func idOfRank(rank int) byte {
	for id, r := range sectionRank {
		if r == rank {
			return byte(id)
		}
	}
	return SecCustom
}

package wasm

// finalFuncs is the index that each function gets when the module is written, where imports come
// first. It is nil if all keep theirs.
func (m *Module) finalFuncs() []uint32 {
	appended := 0
	for _, f := range m.Funcs[m.original.funcs:] {
		if f.Imported() {
			appended++
		}
	}
	if appended == 0 {
		return nil
	}
	final := make([]uint32, len(m.Funcs))
	imports, own := uint32(0), uint32(m.original.imports+appended)
	for i := range m.Funcs {
		if m.Funcs[i].Imported() {
			final[i] = imports
			imports++
		} else {
			final[i] = own
			own++
		}
	}
	return final
}

// function is the index with which a function is written.
func (e *encoder) function(index uint32) uint32 {
	if e.final == nil {
		return index
	}
	return e.final[index]
}

// expr is code, with its end, as it is written.
func (e *encoder) expr(code Code) Code {
	if e.final == nil {
		return code
	}
	p := patch{from: code}
	r := NewReader(code)
	r.refs = e.refs(&p)
	if err := r.walk(func(*Instr) error { return nil }); err != nil {
		panic(err) // it has been read before, or a pass has written it
	}
	return p.upTo(len(code))
}

// refs patches each index of a function that is read.
func (e *encoder) refs(p *patch) func(*indexRef) {
	return func(ref *indexRef) {
		if ref.space == SpaceFunc {
			p.index(ref.start, ref.end, ref.index, e.final)
		}
	}
}

// patch copies bytes and replaces some of them on the way.
type patch struct {
	from   []byte
	copied int // up to here
	out    []byte
}

// index replaces an index by the one it is written with, unless that is the same.
func (p *patch) index(start, end int, index uint32, final []uint32) {
	if uint64(index) >= uint64(len(final)) || final[index] == index {
		return
	}
	p.out = AppendU32(append(p.out, p.from[p.copied:start]...), final[index])
	p.copied = end
}

// upTo gives the copy of everything before end.
func (p *patch) upTo(end int) []byte {
	if p.out == nil {
		return p.from[p.copied:end:end]
	}
	return append(p.out, p.from[p.copied:end]...)
}

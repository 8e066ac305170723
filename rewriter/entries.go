package rewriter

// The entries of each section but the type section.

func (m *module) readImport(r *reader) error {
	start := r.pos
	from, err := r.name()
	if err != nil {
		return err
	}
	name, err := r.name()
	if err != nil {
		return err
	}
	kind, err := r.byte()
	if err != nil {
		return err
	}
	switch kind {
	case kindFunc:
		m.importedFuncs++
		return m.readFunction(r)
	case kindTable:
		err = m.readTable(r)
		if err == nil {
			m.tables[len(m.tables)-1].imported = true
		}
		return err
	case kindMemory:
		return unsupported(start, "the memory is imported (from %q, as %q): its content is not the module's own, so it "+
			"cannot be kept; link the module with a memory of its own", from, name)
	case kindGlobal:
		g, err := r.globalType()
		if err != nil {
			return err
		}
		if g.mutable {
			return unsupported(start, "a mutable global is imported (from %q, as %q): its value is not the module's own, so "+
				"it cannot be kept", from, name)
		}
		g.imported = true
		m.globals = append(m.globals, g)
		return nil
	case kindTag:
		return m.readTag(r)
	}
	return malformed(r.pos-1, "unknown kind of import %#x", kind)
}

func (m *module) readFunction(r *reader) error {
	t, err := r.u32()
	m.funcs = append(m.funcs, t)
	return err
}

func (m *module) readTable(r *reader) error {
	start := r.pos
	withInit := r.pos < r.end && r.buf[r.pos] == 0x40
	if withInit {
		r.pos++
		if b, err := r.byte(); err != nil || b != 0 {
			return malformed(r.pos, "a table with an initial value must start with 0x40 0x00")
		}
	}
	var t table
	var err error
	if t.typ, err = r.valType(); err != nil {
		return err
	}
	if !t.typ.kind.IsRef() {
		return malformed(start, "a table holds references, not %s", t.typ)
	}
	l, err := r.limits("table")
	if err != nil {
		return err
	}
	t.min, t.max, t.hasMax = l.Min, l.Max, l.HasMax
	if withInit {
		if _, err = r.constExpr(); err != nil {
			return err
		}
	}
	m.tables = append(m.tables, t)
	return nil
}

// Bits of the byte before limits.
const (
	limitsMax      = 1
	limitsShared   = 2
	limits64       = 4
	limitsPageSize = 8
)

func (r *reader) limits(what string) (l Memory, err error) {
	start := r.pos
	flags, err := r.byte()
	if err != nil {
		return l, err
	}
	switch {
	case flags&^(limitsMax|limitsShared|limits64|limitsPageSize) != 0:
		return l, malformed(start, "unknown flags %#x of a %s's limits", flags, what)
	case flags&limitsShared != 0:
		return l, unsupported(start, "the %s is shared: threads that write it at any moment leave no moment at which it could "+
			"be kept", what)
	case flags&limits64 != 0:
		return l, unsupported(start, "the %s has 64-bit addresses, which are not supported", what)
	case flags&limitsPageSize != 0:
		return l, unsupported(start, "the %s has pages of its own size, which is not supported", what)
	}
	if l.Min, err = r.u32(); err != nil {
		return l, err
	}
	if l.HasMax = flags&limitsMax != 0; l.HasMax {
		if l.Max, err = r.u32(); err == nil && l.Max < l.Min {
			err = malformed(start, "a %s's maximum %d is less than its minimum %d", what, l.Max, l.Min)
		}
	}
	return l, err
}

// maxPages is the largest size of a memory, in wasm pages: one less than the format allows.
const maxPages = 65535

func (m *module) readMemory(r *reader) error {
	start := r.pos
	l, err := r.limits("memory")
	if err != nil {
		return err
	}
	if l.Min > maxPages {
		return unsupported(start, "the memory has at least %d wasm pages, at most %d are supported", l.Min, maxPages)
	}
	if l.Max > maxPages+1 {
		return malformed(start, "a memory's maximum of %d wasm pages is more than 4 GiB", l.Max)
	}
	m.memory = &l
	return nil
}

func (m *module) readTag(r *reader) error {
	if err := r.skip(1); err != nil {
		return err
	}
	_, err := r.u32()
	return err
}

func (r *reader) globalType() (g global, err error) {
	if g.typ, err = r.valType(); err != nil {
		return g, err
	}
	b, err := r.byte()
	switch {
	case err != nil:
		return g, err
	case b == 2 || b == 3:
		return g, unsupported(r.pos-1, "a global is shared between threads, which is not supported")
	case b > 1:
		return g, malformed(r.pos-1, "a global is mutable (1) or not (0), never %d", b)
	}
	g.mutable = b == 1
	return g, nil
}

func (m *module) readGlobal(r *reader) error {
	g, err := r.globalType()
	if err != nil {
		return err
	}
	m.globals = append(m.globals, g)
	_, err = r.constExpr()
	return err
}

func (m *module) readExport(r *reader) (err error) {
	var e export
	if e.name, err = r.name(); err != nil {
		return err
	}
	if e.kind, err = r.byte(); err != nil {
		return err
	}
	if e.kind > kindTag {
		return malformed(r.pos-1, "unknown kind of export %#x", e.kind)
	}
	e.index, err = r.u32()
	m.exports = append(m.exports, e)
	return err
}

func (m *module) readBody(r *reader) error {
	size, err := r.u32()
	if err != nil {
		return err
	}
	start := r.pos
	if err := r.skip(size); err != nil {
		return err
	}
	m.bodies = append(m.bodies, span{start, r.pos})
	return nil
}

type elemMode byte

const (
	elemPassive elemMode = iota
	elemActive
	elemDeclared
)

type elemSegment struct {
	mode  elemMode
	table uint32 // if active
}

// Bits of the number before an element segment. Without elemHasExprs its entries are function indices.
const (
	elemNotActive    = 1
	elemHasTable     = 2 // if active; otherwise: it is declared, not passive
	elemHasExprs     = 4
	elemFlags        = elemNotActive | elemHasTable | elemHasExprs
	elemKindOrType   = elemNotActive | elemHasTable // one of these: a kind or a type is written out
	elemKindFuncs    = 0
	dataPassive      = 1
	dataActiveMemory = 2
)

func (m *module) readElem(r *reader) error {
	start := r.pos
	flags, err := r.u32()
	if err != nil {
		return err
	}
	if flags&^elemFlags != 0 {
		return malformed(start, "unknown flags %#x of an element segment", flags)
	}
	var e elemSegment
	switch {
	case flags&elemNotActive == 0:
		e.mode = elemActive
		if flags&elemHasTable != 0 {
			if e.table, err = r.u32(); err != nil {
				return err
			}
		}
		if _, err = r.constExpr(); err != nil {
			return err
		}
	case flags&elemHasTable != 0:
		e.mode = elemDeclared
	}
	withExprs := flags&elemHasExprs != 0
	if flags&elemKindOrType != 0 {
		if withExprs {
			_, err = r.valType()
		} else if kind, readErr := r.byte(); readErr != nil || kind != elemKindFuncs {
			err = malformed(r.pos, "an element segment must be of functions (0)")
		}
		if err != nil {
			return err
		}
	}
	n, err := r.count("entries of an element segment")
	if err != nil {
		return err
	}
	for range n {
		if withExprs {
			_, err = r.constExpr()
		} else {
			_, err = r.u32()
		}
		if err != nil {
			return err
		}
	}
	m.elems = append(m.elems, e)
	return nil
}

type dataSegment struct {
	active bool
	offset span // its expression, if active, without the end
	bytes  span // with the length in front
	length int
}

func (m *module) readData(r *reader) error {
	start := r.pos
	flags, err := r.u32()
	if err != nil {
		return err
	}
	d := dataSegment{active: flags != dataPassive}
	switch flags {
	case 0, dataPassive:
	case dataActiveMemory:
		memory, err := r.u32()
		if err != nil {
			return err
		}
		if memory != 0 {
			return unsupported(start, "several memories are not supported (a data segment is for memory %d)", memory)
		}
	default:
		return malformed(start, "unknown flags %#x of a data segment", flags)
	}
	if d.active {
		if d.offset, err = r.constExpr(); err != nil {
			return err
		}
	}
	d.bytes.start = r.pos
	n, err := r.u32()
	if err == nil {
		err = r.skip(n)
	}
	d.bytes.end, d.length = r.pos, int(n)
	m.data = append(m.data, d)
	return err
}

// constExpr reads a constant expression with its end, and says where it is without it.
func (r *reader) constExpr() (span, error) {
	s := span{start: r.pos}
	var in instr
	for {
		if err := r.instr(&in); err != nil {
			return s, err
		}
		switch in.op {
		case opEnd:
			s.end = in.start
			return s, nil
		case opI32Const, opI64Const, opF32Const, opF64Const, opV128Const, opGlobalGet, opRefNull, opRefFunc,
			opI32Add, opI32Sub, opI32Mul, opI64Add, opI64Sub, opI64Mul:
		default:
			return s, malformed(in.start, "%s in a constant expression", in.op)
		}
	}
}

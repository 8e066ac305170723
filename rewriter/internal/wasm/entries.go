package wasm

// The entries of all sections but those of types, of segments and of code.

// Kinds of imports and exports.
const (
	KindFunc   = 0
	KindTable  = 1
	KindMemory = 2
	KindGlobal = 3
	KindTag    = 4
)

var kindSpaces = [...]Space{SpaceFunc, SpaceTable, SpaceMemory, SpaceGlobal, SpaceTag}

// Func is a function.
type Func struct {
	Type uint32
	From *Import // nil unless it is imported
	Body *Body   // nil if it is imported
}

// Imported says whether the function is imported.
func (f *Func) Imported() bool { return f.From != nil }

// Import is where an imported function comes from.
type Import struct{ Module, Name string }

// Table is a table.
type Table struct {
	Type     Type
	Min, Max uint32 // entries
	HasMax   bool
	Imported bool
}

// Memory is the limits of a memory, in wasm pages.
type Memory struct {
	Min, Max uint32
	HasMax   bool
}

// Global is a global.
type Global struct {
	Type     Type
	Mutable  bool
	Imported bool
}

// Export is an export.
type Export struct {
	Name  string
	Kind  byte
	Index uint32
}

func (m *Module) readImport(r *Reader) error {
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
	case KindFunc:
		t, err := r.index(SpaceType)
		m.Funcs = append(m.Funcs, Func{Type: t, From: &Import{from, name}})
		return err
	case KindTable:
		if err = m.readTable(r); err == nil {
			m.Tables[len(m.Tables)-1].Imported = true
		}
		return err
	case KindMemory:
		return Unsupported(start,
			"the memory is imported (from %q, as %q): its content is not the "+
				"module's own, so it cannot be kept; link the module with a memory of its "+
				"own", from, name)
	case KindGlobal:
		g, err := r.globalType()
		if err != nil {
			return err
		}
		if g.Mutable {
			return Unsupported(start,
				"a mutable global is imported (from %q, as %q): its value is not "+
					"the module's own, so it cannot be kept", from, name)
		}
		g.Imported = true
		m.Globals = append(m.Globals, g)
		return nil
	case KindTag:
		return m.readTag(r)
	}
	return Malformed(r.pos-1, "unknown kind of import %#x", kind)
}

func (m *Module) readFunction(r *Reader) error {
	t, err := r.index(SpaceType)
	m.Funcs = append(m.Funcs, Func{Type: t})
	return err
}

func (m *Module) readTable(r *Reader) error {
	start := r.pos
	withInit := r.pos < r.end && r.buf[r.pos] == 0x40
	if withInit {
		r.pos++
		if b, err := r.byte(); err != nil || b != 0 {
			return Malformed(r.pos, "a table with an initial value must start with 0x40 0x00")
		}
	}
	var t Table
	var err error
	if t.Type, err = r.valueType(); err != nil {
		return err
	}
	if !t.Type.Kind.IsRef() {
		return Malformed(start, "a table holds references, not %s", t.Type)
	}
	l, err := r.limits("table")
	if err != nil {
		return err
	}
	t.Min, t.Max, t.HasMax = l.Min, l.Max, l.HasMax
	if withInit {
		if _, err = r.constExpr(nil); err != nil {
			return err
		}
	}
	m.Tables = append(m.Tables, t)
	return nil
}

// Bits of the byte before limits.
const (
	limitsMax      = 1
	limitsShared   = 2
	limits64       = 4
	limitsPageSize = 8
)

func (r *Reader) limits(what string) (l Memory, err error) {
	start := r.pos
	flags, err := r.byte()
	if err != nil {
		return l, err
	}
	switch {
	case flags&^(limitsMax|limitsShared|limits64|limitsPageSize) != 0:
		return l, Malformed(start, "unknown flags %#x of a %s's limits", flags, what)
	case flags&limitsShared != 0:
		return l, Unsupported(start,
			"the %s is shared: threads that write it at any moment leave no "+
				"moment at which it could be kept", what)
	case flags&limits64 != 0:
		return l, Unsupported(start, "the %s has 64-bit addresses, which are not supported", what)
	case flags&limitsPageSize != 0:
		return l, Unsupported(start, "the %s has pages of its own size, which is not supported",
			what)
	}
	if l.Min, err = r.u32(); err != nil {
		return l, err
	}
	if l.HasMax = flags&limitsMax != 0; l.HasMax {
		if l.Max, err = r.u32(); err == nil && l.Max < l.Min {
			err = Malformed(start, "a %s's maximum %d is less than its minimum %d", what, l.Max,
				l.Min)
		}
	}
	return l, err
}

// maxPages is the largest size of a memory, in wasm pages: one less than the format allows.
const maxPages = 65535

func (m *Module) readMemory(r *Reader) error {
	start := r.pos
	l, err := r.limits("memory")
	if err != nil {
		return err
	}
	if l.Min > maxPages {
		return Unsupported(start, "the memory has at least %d wasm pages, at most %d are supported",
			l.Min, maxPages)
	}
	if l.Max > maxPages+1 {
		return Malformed(start, "a memory's maximum of %d wasm pages is more than 4 GiB", l.Max)
	}
	m.Memory = &l
	return nil
}

func (m *Module) readTag(r *Reader) error {
	if err := r.skip(1); err != nil {
		return err
	}
	t, err := r.index(SpaceType)
	m.Tags = append(m.Tags, t)
	return err
}

func (r *Reader) globalType() (g Global, err error) {
	if g.Type, err = r.valueType(); err != nil {
		return g, err
	}
	b, err := r.byte()
	switch {
	case err != nil:
		return g, err
	case b == 2 || b == 3:
		return g, Unsupported(r.pos-1, "a global is shared between threads, which is not supported")
	case b > 1:
		return g, Malformed(r.pos-1, "a global is mutable (1) or not (0), never %d", b)
	}
	g.Mutable = b == 1
	return g, nil
}

func (m *Module) readGlobal(r *Reader) error {
	g, err := r.globalType()
	if err != nil {
		return err
	}
	// A constant may name the globals before it, so far as the runtime allows it.
	if r.bounds != nil {
		r.bounds[SpaceGlobal] = uint32(len(m.Globals))
	}
	m.Globals = append(m.Globals, g)
	_, err = r.constExpr(m.declare)
	return err
}

func (m *Module) readExport(r *Reader) (err error) {
	var e Export
	if e.Name, err = r.name(); err != nil {
		return err
	}
	if e.Kind, err = r.byte(); err != nil {
		return err
	}
	if e.Kind > KindTag {
		return Malformed(r.pos-1, "unknown kind of export %#x", e.Kind)
	}
	if e.Index, err = r.index(kindSpaces[e.Kind]); err != nil {
		return err
	}
	if e.Kind == KindFunc {
		m.declare(e.Index)
	}
	m.Exports = append(m.Exports, e)
	return nil
}

// declare notes that a function is named outside of code, so that ref.func may refer to it. What
// counts is what wazero counts: exports, initial values of globals, and segments of elements, but
// not the initial value of a table.
func (m *Module) declare(function uint32) {
	if m.declared != nil {
		m.declared[function] = true
	}
}

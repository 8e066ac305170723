package rewriter

import "encoding/binary"

// module is a decoded module: what the rewrite needs to know of it. Offsets are offsets in wasm.
type module struct {
	wasm     []byte
	sections []section

	types       []funcType
	typeEntries int // entries of the type section: types and groups of types

	funcs   []uint32 // type of each function, imported ones first, as in all of these
	tables  []table
	memory  *Memory
	globals []global

	importedFuncs int

	exports []export
	start   int // function index, -1 if there is none
	elems   []elemSegment
	data    []dataSegment
	bodies  []span // of the functions that are not imported: locals and code

	declaredData int // what the data count section says, -1 if there is none
}

type span struct{ start, end int }

// section is a section as it lies in the module.
type section struct {
	id     byte
	start  int // of its header
	body   int // of what follows the header
	end    int
	count  int // entries, if it is a vector
	first  int // of its first entry, if it is a vector
	custom string
}

const (
	secCustom    = 0
	secType      = 1
	secImport    = 2
	secFunction  = 3
	secTable     = 4
	secMemory    = 5
	secGlobal    = 6
	secExport    = 7
	secStart     = 8
	secElement   = 9
	secCode      = 10
	secData      = 11
	secDataCount = 12
	secTag       = 13
)

// sectionRank is the order in which sections come. It is not the order of their ids.
var sectionRank = [...]int{
	secType: 1, secImport: 2, secFunction: 3, secTable: 4, secMemory: 5, secTag: 6, secGlobal: 7,
	secExport: 8, secStart: 9, secElement: 10, secDataCount: 11, secCode: 12, secData: 13,
}

var sectionNames = [...]string{
	"custom", "type", "import", "function", "table", "memory", "global",
	"export", "start", "element", "code", "data", "data count", "tag",
}

// Kinds of imports and exports.
const (
	kindFunc   = 0
	kindTable  = 1
	kindMemory = 2
	kindGlobal = 3
	kindTag    = 4
)

type table struct {
	typ      valType
	min, max uint32
	hasMax   bool
	imported bool
}

type global struct {
	typ      valType
	mutable  bool
	imported bool
}

type export struct {
	name  string
	kind  byte
	index uint32
}

const preamble = "\x00asm\x01\x00\x00\x00"

func parse(wasm []byte) (*module, error) {
	if len(wasm) < 8 || string(wasm[:4]) != preamble[:4] {
		return nil, malformed(0, "not a wasm module: it does not start with \\0asm and a version")
	}
	if version := binary.LittleEndian.Uint32(wasm[4:]); version != 1 {
		if version>>16 == 1 {
			return nil, unsupported(4, "this is a component, not a core module")
		}
		return nil, unsupported(4, "version %d of the binary format is not known", version)
	}
	m := &module{wasm: wasm, start: -1, declaredData: -1}
	r := &reader{buf: wasm, pos: 8, end: len(wasm)}
	rank := 0
	for r.left() > 0 {
		s, err := r.section()
		if err != nil {
			return nil, err
		}
		if s.id != secCustom {
			if sectionRank[s.id] <= rank {
				return nil, malformed(s.start, "the %s section comes twice or too late", sectionNames[s.id])
			}
			rank = sectionRank[s.id]
		}
		body := &reader{buf: wasm, pos: s.body, end: s.end}
		if err := m.readSection(&s, body); err != nil {
			return nil, err
		}
		if body.left() != 0 {
			return nil, malformed(body.pos, "%d bytes after the last entry of the %s section", body.left(), sectionNames[s.id])
		}
		m.sections = append(m.sections, s)
		r.pos = s.end
	}
	return m, m.check(r.end)
}

func (r *reader) section() (s section, err error) {
	s.start = r.pos
	if s.id, err = r.byte(); err != nil {
		return s, err
	}
	if int(s.id) >= len(sectionNames) {
		return s, malformed(s.start, "unknown section %d", s.id)
	}
	size, err := r.u32()
	if err != nil {
		return s, err
	}
	s.body = r.pos
	if uint64(size) > uint64(r.left()) {
		return s, malformed(s.start, "the %s section announces %d bytes, %d are left", sectionNames[s.id], size, r.left())
	}
	s.end = s.body + int(size)
	return s, nil
}

func (m *module) readSection(s *section, r *reader) (err error) {
	switch s.id {
	case secCustom:
		s.custom, err = r.name()
		r.pos = r.end
		return err
	case secStart:
		index, err := r.u32()
		m.start = int(index)
		return err
	case secDataCount:
		n, err := r.u32()
		m.declaredData = int(n)
		return err
	case secType: // counts by itself, for entries can be groups
		err = m.readTypes(r)
		counter := reader{buf: m.wasm, pos: s.body, end: s.end}
		_, _ = counter.u32()
		s.count, s.first = m.typeEntries, counter.pos
		return err
	}
	if s.count, err = r.count("entries of the " + sectionNames[s.id] + " section"); err != nil {
		return err
	}
	s.first = r.pos
	if s.id == secMemory && s.count > 1 {
		return unsupported(s.start, "several memories are not supported (the module has %d)", s.count)
	}
	readEntry := map[byte]func(*reader) error{
		secImport: m.readImport, secFunction: m.readFunction, secTable: m.readTable, secMemory: m.readMemory,
		secTag: m.readTag, secGlobal: m.readGlobal, secExport: m.readExport, secElement: m.readElem,
		secCode: m.readBody, secData: m.readData,
	}[s.id]
	for range s.count {
		if err := readEntry(r); err != nil {
			return err
		}
	}
	return nil
}

// check looks at what can be told only when all sections are known. It keeps to what the rewrite relies on.
func (m *module) check(end int) error {
	if n := len(m.funcs) - m.importedFuncs; n != len(m.bodies) {
		return malformed(end, "%d functions are declared, %d have a body", n, len(m.bodies))
	}
	if m.declaredData >= 0 && m.declaredData != len(m.data) {
		return malformed(end, "%d data segments are announced, there are %d", m.declaredData, len(m.data))
	}
	for i, t := range m.funcs {
		if uint64(t) >= uint64(len(m.types)) {
			return malformed(end, "function %d has type %d, there are %d types", i, t, len(m.types))
		}
	}
	for i, g := range m.globals {
		if !g.imported && g.typ.concrete && uint64(g.typ.index) >= uint64(len(m.types)) {
			return malformed(end, "global %d has a type with index %d, there are %d types", i, g.typ.index, len(m.types))
		}
	}
	for i, t := range m.tables {
		if !t.imported && t.typ.concrete && uint64(t.typ.index) >= uint64(len(m.types)) {
			return malformed(end, "table %d has a type with index %d, there are %d types", i, t.typ.index, len(m.types))
		}
	}
	for i, e := range m.elems {
		if e.mode == elemActive && uint64(e.table) >= uint64(len(m.tables)) {
			return malformed(end, "element segment %d is for table %d, there are %d tables", i, e.table, len(m.tables))
		}
	}
	for i, d := range m.data {
		if d.active && m.memory == nil {
			return malformed(end, "data segment %d is for a memory, there is none", i)
		}
	}
	if m.start >= 0 && (m.start >= len(m.funcs) || !m.types[m.funcs[m.start]].is(nil, nil)) {
		return malformed(end, "the start function %d does not exist or is not of type () -> ()", m.start)
	}
	for _, e := range m.exports {
		if n, ok := m.space(e.kind); ok && uint64(e.index) >= uint64(n) {
			return malformed(end, "export %q has index %d, there are %d", e.name, e.index, n)
		}
	}
	return nil
}

// space is how many functions, tables and so on there are; tags are not counted.
func (m *module) space(kind byte) (int, bool) {
	switch kind {
	case kindFunc:
		return len(m.funcs), true
	case kindTable:
		return len(m.tables), true
	case kindGlobal:
		return len(m.globals), true
	case kindMemory:
		if m.memory == nil {
			return 0, true
		}
		return 1, true
	}
	return 0, false
}

// exportsFunc says whether name is exported as a function of type params -> results.
func (m *module) exportsFunc(name string, params, results []valType) bool {
	for i := range m.exports {
		if e := &m.exports[i]; e.name == name {
			return e.kind == kindFunc && m.types[m.funcs[e.index]].is(params, results)
		}
	}
	return false
}

func (m *module) section(id byte) *section {
	for i := range m.sections {
		if m.sections[i].id == id {
			return &m.sections[i]
		}
	}
	return nil
}

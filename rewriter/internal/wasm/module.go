package wasm

import (
	"encoding/binary"
	"slices"
)

// Module is a decoded module, and what passes have made of it. Its slices hold imported entries
// first, then the module's own, then what passes have appended, as the package comment says.
type Module struct {
	raw      []byte
	sections []section

	Types   []FuncType
	Funcs   []Func
	Tables  []Table
	Memory  *Memory // nil if there is none
	Globals []Global
	Tags    []uint32 // the type of each
	Exports []Export
	Start   int // function index, -1 if there is none; a pass may set it to -1
	Elems   []ElemSegment
	Data    []DataSegment

	typeEntries  int   // entries of the type section: types and groups of types
	declaredData int64 // what the data count section says, -1 if there is none
	declared     map[uint32]bool
	globalValues []Code // of the globals that passes have appended
	original     counts // how many of each the module had
}

// counts are lengths of the slices of a Module.
type counts struct{ types, funcs, imports, tables, globals, exports, elems, data int }

// span is a part of the module's bytes.
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

// Numbers of the sections.
const (
	SecCustom    = 0
	SecType      = 1
	SecImport    = 2
	SecFunction  = 3
	SecTable     = 4
	SecMemory    = 5
	SecGlobal    = 6
	SecExport    = 7
	SecStart     = 8
	SecElement   = 9
	SecCode      = 10
	SecData      = 11
	SecDataCount = 12
	SecTag       = 13
)

// sectionRank is the order in which sections come. It is not the order of their ids.
var sectionRank = [...]int{
	SecType: 1, SecImport: 2, SecFunction: 3, SecTable: 4, SecMemory: 5, SecTag: 6, SecGlobal: 7,
	SecExport: 8, SecStart: 9, SecElement: 10, SecDataCount: 11, SecCode: 12, SecData: 13,
}

var sectionNames = [...]string{
	"custom", "type", "import", "function", "table", "memory", "global",
	"export", "start", "element", "code", "data", "data count", "tag",
}

// Preamble is how every module starts.
const Preamble = "\x00asm\x01\x00\x00\x00"

// Decode reads a module and checks each index in it. It keeps wasm, which must not change. Errors
// are *FormatError and *UnsupportedError.
func Decode(wasm []byte) (*Module, error) {
	if len(wasm) < 8 || string(wasm[:4]) != Preamble[:4] {
		return nil, Malformed(0, "not a wasm module: it does not start with \\0asm and a version")
	}
	if version := binary.LittleEndian.Uint32(wasm[4:]); version != 1 {
		if version>>16 == 1 {
			return nil, Unsupported(4, "this is a component, not a core module")
		}
		return nil, Unsupported(4, "version %d of the binary format is not known", version)
	}
	m := &Module{raw: wasm, Start: -1, declaredData: -1, declared: map[uint32]bool{}}
	r := &Reader{buf: wasm, pos: 8, end: len(wasm), bounds: &bounds{}}
	if err := m.readSections(r); err != nil {
		return nil, err
	}
	if err := m.check(r.end); err != nil {
		return nil, err
	}
	m.original = counts{len(m.Types), len(m.Funcs), m.importedFuncs(), len(m.Tables),
		len(m.Globals), len(m.Exports), len(m.Elems), len(m.Data)}
	return m, nil
}

func (m *Module) readSections(r *Reader) error {
	rank := 0
	for r.left() > 0 {
		s, err := r.section()
		if err != nil {
			return err
		}
		if s.id != SecCustom {
			if sectionRank[s.id] <= rank {
				return Malformed(s.start, "the %s section comes twice or too late",
					sectionNames[s.id])
			}
			rank = sectionRank[s.id]
		}
		if s.id == SecCode { // data segments come later, so what announces them has to do
			r.bounds[SpaceData] = uint32(max(m.declaredData, 0))
		}
		body := r.part(s.body, s.end)
		if err := m.readSection(&s, body); err != nil {
			return err
		}
		if body.left() != 0 {
			return Malformed(body.pos, "%d bytes after the last entry of the %s section",
				body.left(),
				sectionNames[s.id])
		}
		m.sections = append(m.sections, s)
		m.setBounds(r.bounds)
		r.pos = s.end
	}
	return nil
}

// setBounds says how many there are of each space so far.
func (m *Module) setBounds(b *bounds) {
	b[SpaceType] = uint32(len(m.Types))
	b[SpaceFunc] = uint32(len(m.Funcs))
	b[SpaceTable] = uint32(len(m.Tables))
	b[SpaceGlobal] = uint32(len(m.Globals))
	b[SpaceTag] = uint32(len(m.Tags))
	b[SpaceElem] = uint32(len(m.Elems))
	b[SpaceMemory] = 0
	if m.Memory != nil {
		b[SpaceMemory] = 1
	}
}

func (r *Reader) section() (s section, err error) {
	s.start = r.pos
	if s.id, err = r.byte(); err != nil {
		return s, err
	}
	if int(s.id) >= len(sectionNames) {
		return s, Malformed(s.start, "unknown section %d", s.id)
	}
	size, err := r.u32()
	if err != nil {
		return s, err
	}
	s.body = r.pos
	if uint64(size) > uint64(r.left()) {
		return s, Malformed(s.start, "the %s section announces %d bytes, %d are left",
			sectionNames[s.id], size, r.left())
	}
	s.end = s.body + int(size)
	return s, nil
}

func (m *Module) readSection(s *section, r *Reader) (err error) {
	switch s.id {
	case SecCustom:
		if s.custom, err = r.name(); err != nil {
			return err
		}
		if s.custom == nameSection {
			err = checkNames(r)
		}
		r.pos = r.end
		return err
	case SecStart:
		index, err := r.index(SpaceFunc)
		if err == nil && !m.Types[m.Funcs[index].Type].Is(nil, nil) {
			err = Malformed(s.body, "the start function %d is not of type () -> ()", index)
		}
		m.Start = int(index)
		return err
	case SecDataCount:
		n, err := r.u32()
		m.declaredData = int64(n)
		return err
	case SecType: // counts by itself, for entries can be groups
		counter := r.part(s.body, s.end)
		_, _ = counter.u32()
		r.bounds = nil // types may refer to themselves and to those behind them
		err = m.readTypes(r)
		s.count, s.first = m.typeEntries, counter.pos
		return err
	}
	if s.count, err = r.count("entries of the " + sectionNames[s.id] + " section"); err != nil {
		return err
	}
	s.first = r.pos
	if s.id == SecMemory && s.count > 1 {
		return Unsupported(s.start, "several memories are not supported (the module has %d)",
			s.count)
	}
	readEntry := map[byte]func(*Reader) error{
		SecImport: m.readImport, SecFunction: m.readFunction, SecTable: m.readTable,
		SecMemory: m.readMemory, SecTag: m.readTag, SecGlobal: m.readGlobal,
		SecExport:  m.readExport,
		SecElement: m.readElem, SecCode: m.bodyReader(), SecData: m.readData,
	}[s.id]
	for range s.count {
		if err := readEntry(r); err != nil {
			return err
		}
	}
	return nil
}

// check looks at what can be told only when all sections are known.
func (m *Module) check(end int) error {
	bodies := 0
	for i := range m.Funcs {
		if m.Funcs[i].Body != nil {
			bodies++
		}
	}
	if n := len(m.Funcs) - m.importedFuncs(); n != bodies {
		return Malformed(end, "%d functions are declared, %d have a body", n, bodies)
	}
	if m.declaredData >= 0 && m.declaredData != int64(len(m.Data)) {
		return Malformed(end, "%d data segments are announced, there are %d", m.declaredData,
			len(m.Data))
	}
	return nil
}

func (m *Module) importedFuncs() int {
	for i := range m.Funcs {
		if !m.Funcs[i].Imported() {
			return i
		}
	}
	return len(m.Funcs)
}

// ImportedFuncs is how many functions the module imported before passes came.
func (m *Module) ImportedFuncs() int { return m.original.imports }

// Declared says whether something outside of code refers to a function of the original module: an
// export, an element segment, the value of a global. Only such functions can be reached by
// reference.
func (m *Module) Declared(function uint32) bool { return m.declared[function] }

func (m *Module) section(id byte) *section {
	for i := range m.sections {
		if m.sections[i].id == id {
			return &m.sections[i]
		}
	}
	return nil
}

// Custom says whether there is a custom section of a name.
func (m *Module) Custom(name string) bool {
	return slices.ContainsFunc(m.sections, func(s section) bool {
		return s.id == SecCustom && s.custom == name
	})
}

// ExportsFunc says whether name is exported as a function of type params -> results.
func (m *Module) ExportsFunc(name string, params, results []Type) bool {
	for i := range m.Exports {
		if e := &m.Exports[i]; e.Name == name {
			return e.Kind == KindFunc && m.TypeOf(e.Index).Is(params, results)
		}
	}
	return false
}

// TypeOf is the type of a function.
func (m *Module) TypeOf(function uint32) *FuncType { return &m.Types[m.Funcs[function].Type] }

// LastCustom gives the content of a module's last section, behind the name, if it is a custom
// section of that name; else nil. It looks at no other section than to step over it.
func LastCustom(wasm []byte, name string) ([]byte, error) {
	if len(wasm) < len(Preamble) || string(wasm[:len(Preamble)]) != Preamble {
		return nil, Malformed(0, "not a wasm module")
	}
	r := &Reader{buf: wasm, pos: len(Preamble), end: len(wasm)}
	var last section
	for r.left() > 0 {
		s, err := r.section()
		if err != nil {
			return nil, err
		}
		last, r.pos = s, s.end
	}
	if last.id != SecCustom || last.end == 0 {
		return nil, nil
	}
	content := r.part(last.body, last.end)
	if got, err := content.name(); err != nil || got != name {
		return nil, err
	}
	return wasm[content.pos:content.end], nil
}

// CutU32 reads a number, and returns what is behind it.
func CutU32(b []byte) (uint32, []byte, error) {
	r := NewReader(b)
	v, err := r.u32()
	return v, b[r.pos:], err
}

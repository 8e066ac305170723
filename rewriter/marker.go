package rewriter

import (
	"bytes"
	"encoding/json"
)

// The marker is the last section of a rewritten module, a custom section:
//
//	name "mmrun" | format version, LEB128 | Info as JSON
//
// Info is written down because it tells apart what the module had and what the rewrite added, which the module itself does
// not say. A marker may be forged. So nothing in it is believed that the module contradicts: each export must be there,
// with the type that a host relies on; no state may be left out; and nothing may happen at instantiation that
// the rewrite would have removed.
const (
	markerName    = "mmrun"
	markerVersion = 2
)

// marker is the content of the section, name included.
func marker(info Info) []byte {
	text, err := json.Marshal(info)
	if err != nil {
		panic(err) // no type in Info can fail
	}
	return append(appendU32(appendName(nil, markerName), markerVersion), text...)
}

// findMarker returns the marker's section, nil if there is none.
func (m *module) findMarker() (*section, error) {
	for i := range m.sections {
		s := &m.sections[i]
		if s.id != secCustom || s.custom != markerName {
			continue
		}
		if i != len(m.sections)-1 {
			return nil, malformed(s.start, "the custom section %q is not the last one: the module was changed after it was rewritten", markerName)
		}
		return s, nil
	}
	return nil, nil
}

func (m *module) readMarker(s *section, u *usage) (info Info, err error) {
	r := &reader{buf: m.wasm, pos: s.body, end: s.end}
	if _, err = r.name(); err != nil {
		return Info{}, err
	}
	version, err := r.u32()
	if err != nil {
		return Info{}, err
	}
	if version != markerVersion {
		return Info{}, unsupported(s.start, "the module was rewritten in version %d of the format, this is version %d: take the module as it "+
			"was before", version, markerVersion)
	}
	text := m.wasm[r.pos:r.end]
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&info); err != nil {
		return Info{}, malformed(r.pos, "the custom section %q cannot be read: %v", markerName, err)
	}
	// Only what marker writes: no second value, no other spelling of the same.
	if !bytes.Equal(marker(info), m.wasm[s.body:s.end]) {
		return Info{}, malformed(r.pos, "the custom section %q is not as a rewrite writes it", markerName)
	}
	v := verifier{m: m, usage: u, exports: make(map[string]*export, len(m.exports))}
	for i := range m.exports {
		v.exports[m.exports[i].name] = &m.exports[i]
	}
	if what := v.contradiction(&info); what != "" {
		return Info{}, malformed(s.start, "the custom section %q does not belong to this module: %s", markerName, what)
	}
	return info, nil
}

// verifier holds an Info from a marker against the module.
type verifier struct {
	m       *module
	usage   *usage
	exports map[string]*export
	wrong   string // the first contradiction
}

func (v *verifier) contradiction(info *Info) string {
	m := v.m
	v.check(m.start < 0, "it has a start section")
	for _, d := range m.data {
		v.check(!d.active, "it has active data segments")
	}
	v.check((info.Memory == nil) == (m.memory == nil) && (m.memory == nil || *info.Memory == *m.memory), "its memory is another one")
	v.check(info.Initialize == m.exportsFunc("_initialize", nil, nil), "_initialize")
	v.function(info.Init, true, nil, nil)
	v.function(info.Start, true, nil, nil)
	kept := v.globals(info)
	needsFuncs := v.tables(info)
	for _, g := range info.Globals {
		needsFuncs = needsFuncs || g.Type == FuncRef
	}
	v.check(needsFuncs == (info.Func != ""), "the table of all functions")
	v.function(info.Func, !needsFuncs, plain(I32), plain(FuncRef))
	v.check(uint64(info.FuncCount) <= uint64(len(m.funcs)), "the number of functions")
	for _, s := range info.Segments {
		n := len(m.data)
		if s.Kind == ElemSegment {
			n = len(m.elems)
		}
		v.check(uint64(s.Index) < uint64(n), "a segment")
		v.function(s.Drop, false, nil, nil)
		v.flag(s.Dropped, kept)
	}
	for i, g := range m.globals {
		v.check(!g.mutable || kept[uint32(i)], "a mutable global is not part of the state")
	}
	return v.wrong
}

// globals checks info.Globals and the flag of tables; it returns the indices of globals that are accounted for.
func (v *verifier) globals(info *Info) map[uint32]bool {
	kept := map[uint32]bool{}
	for _, g := range info.Globals {
		ok := uint64(g.Index) < uint64(len(v.m.globals)) && !kept[g.Index]
		v.check(ok, "a global")
		if !ok {
			continue
		}
		kept[g.Index] = true
		def := v.m.globals[g.Index]
		e := v.exports[g.Export]
		v.check(def.mutable && def.typ.kind == g.Type && e != nil && e.kind == kindGlobal && e.index == g.Index, "a global")
		switch g.Type {
		case V128:
			v.function(g.Getter, false, nil, plain(I64, I64))
			v.function(g.Setter, false, plain(I64, I64), nil)
		case FuncRef:
			v.function(g.Getter, false, nil, plain(FuncRef))
			v.function(g.Setter, false, plain(I32), nil)
		default:
			v.check(g.Getter == "" && g.Setter == "", "a global")
		}
		null := g.Type == ExternRef || g.Type == ExnRef
		v.check(null == (g.IsNull != ""), "a global")
		v.function(g.IsNull, !null, nil, plain(I32))
	}
	v.check((info.TablesChanged != "") == (len(info.Tables) > 0), "the flag of changed tables")
	if info.TablesChanged != "" {
		v.flag(info.TablesChanged, kept)
	}
	return kept
}

// tables checks info.Tables, and says whether one of them holds references to functions.
func (v *verifier) tables(info *Info) (needsFuncs bool) {
	kept := map[uint32]bool{}
	for _, t := range info.Tables {
		ok := uint64(t.Index) < uint64(len(v.m.tables)) && !kept[t.Index]
		v.check(ok, "a table")
		if !ok {
			continue
		}
		kept[t.Index] = true
		def := v.m.tables[t.Index]
		v.check(!def.imported && def.typ.kind == t.Type && def.min == t.Min && def.max == t.Max && def.hasMax == t.HasMax, "a table")
		v.function(t.Size, false, nil, plain(I32))
		v.function(t.Grow, false, plain(I32, I32), plain(I32))
		isFunc := t.Type == FuncRef
		needsFuncs = needsFuncs || isFunc
		v.check(isFunc == (t.Get != "") && isFunc == (t.Set != "") && isFunc == (t.AllNull == ""), "a table")
		v.function(t.Get, true, plain(I32), plain(FuncRef))
		v.function(t.Set, true, plain(I32, I32), nil)
		v.function(t.AllNull, true, nil, plain(I32))
	}
	for i, changed := range v.usage.changesTable {
		v.check(!changed || kept[uint32(i)], "a table that the code changes is not part of the state")
	}
	return needsFuncs
}

func (v *verifier) check(ok bool, what string) {
	if !ok && v.wrong == "" {
		v.wrong = what
	}
}

func (v *verifier) function(name string, mayLack bool, params, results []valType) {
	if name == "" {
		v.check(mayLack, "a function has no name")
		return
	}
	e := v.exports[name]
	v.check(e != nil && e.kind == kindFunc && v.m.types[v.m.funcs[e.index]].is(params, results), "function "+name)
}

// flag checks an i32 global that a host reads and writes as a flag.
func (v *verifier) flag(name string, kept map[uint32]bool) {
	e := v.exports[name]
	ok := e != nil && e.kind == kindGlobal && !kept[e.index]
	v.check(ok, "flag "+name)
	if ok {
		g := v.m.globals[e.index]
		v.check(g.mutable && !g.imported && g.typ == valType{kind: I32}, "flag "+name)
		kept[e.index] = true
	}
}

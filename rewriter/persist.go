package rewriter

import (
	"fmt"

	"github.com/mmrun/mmrun/rewriter/internal/wasm"
)

// persist is the pass that makes the state reachable: it exports globals, gives functions to tables
// and segments, and takes out of instantiation what must happen only once in the life of a state.
func persist(m *wasm.Module, info *Info) error {
	u, err := usageOf(m)
	if err != nil {
		return err
	}
	if err := refuseForeignTables(m, u); err != nil {
		return err
	}
	p := &persister{m: m, usage: u, info: info, funcs: len(m.Funcs)}
	if memory := m.Memory; memory != nil {
		info.Memory = &Memory{Min: memory.Min, Max: memory.Max, HasMax: memory.HasMax}
	}
	info.Initialize = m.ExportsFunc("_initialize", nil, nil)
	if err := p.globals(); err != nil {
		return err
	}
	if err := p.tables(); err != nil {
		return err
	}
	p.markSegments()
	p.init()
	p.start()
	p.allFuncs()
	return p.markChanges()
}

// refuseForeignTables refuses modules that change a table of another module, by code or at
// instantiation.
func refuseForeignTables(m *wasm.Module, u *usage) error {
	for i, e := range m.Elems {
		if e.Mode == wasm.ElemActive && m.Tables[e.Table].Imported {
			return wasm.Unsupported(0,
				"element segment %d initialises table %d, which is imported: each "+
					"resume would overwrite what has become of a table that is not the module's "+
					"own", i, e.Table)
		}
	}
	for _, s := range u.sites {
		if t, ok := s.changedTable(); ok && m.Tables[t].Imported {
			return wasm.Unsupported(m.Funcs[s.function].Body.Offset+s.offset,
				"%s changes table %d, which "+
					"is imported: its content is not the module's own, so it cannot be "+
					"kept", s.op, t)
		}
	}
	return nil
}

// persister collects what the pass knows.
type persister struct {
	m     *wasm.Module
	usage *usage
	info  *Info
	funcs int // of the module, before anything was appended

	funcTables map[wasm.Type]uint32 // the tables of all functions, by type of reference
	canonical  []int                // CanonicalTypes, once needed
	segments   map[segmentKey]uint32
}

func (p *persister) start() {
	if p.m.Start < 0 {
		return
	}
	function := uint32(p.m.Start)
	p.m.Start = -1
	p.info.Start = Reserved + "start"
	if p.m.Funcs[function].Imported() {
		// An imported function that is exported again is not everywhere callable; a function that
		// calls it is.
		function = p.m.AddFunc(nil, nil, nil, wasm.Code(nil).Op(wasm.OpCall, function))
	}
	p.m.AddExport(p.info.Start, wasm.KindFunc, function)
}

// allFuncs adds the function that gives all references, if one can be part of the state.
func (p *persister) allFuncs() {
	needed := false
	for _, g := range p.info.Globals {
		needed = needed || g.Type == FuncRef
	}
	for _, t := range p.info.Tables {
		needed = needed || t.Type == FuncRef
	}
	if !needed {
		return
	}
	p.info.Func, p.info.FuncCount = Reserved+"func", uint32(p.funcs)
	p.info.FuncImports = uint32(p.m.ImportedFuncs())
	table := p.funcTable(wasm.Type{Kind: wasm.FuncRef})
	get := wasm.Code(nil).Op(wasm.OpLocalGet, 0).Op(wasm.OpTableGet, table)
	// The table is full, unless instantiation has skipped its segment: where one before it did not
	// fit, wazero leaves out the rest without a word.
	p.addFunc(p.info.Func, wasm.Types(wasm.I32), wasm.Types(wasm.FuncRef), nil, wasm.Code(nil).
		Add(get).Op(wasm.OpRefIsNull).
		Block(wasm.OpIf, wasm.NoValue).Op(wasm.OpUnreachable).Op(wasm.OpEnd).
		Add(get))
}

// markChanges sets a flag before each instruction that changes a table or drops a segment of the
// Info.
func (p *persister) markChanges() error {
	var tablesChanged uint32
	if len(p.info.Tables) > 0 {
		p.info.TablesChanged = Reserved + "tables:changed"
		tablesChanged = p.addFlag(p.info.TablesChanged)
	}
	for sites := p.usage.sites; len(sites) > 0; {
		function, n := sites[0].function, 0
		for n < len(sites) && sites[n].function == function {
			n++
		}
		p.markIn(p.m.Funcs[function].Body, sites[:n], tablesChanged)
		sites = sites[n:]
	}
	return nil
}

func (p *persister) markIn(body *wasm.Body, sites []site, tablesChanged uint32) {
	var out wasm.Code
	copied := 0
	for _, s := range sites {
		flag := tablesChanged
		switch s.op {
		case wasm.OpDataDrop, wasm.OpElemDrop:
			var ok bool
			if flag, ok = p.segments[keyOf(s.op, s.index)]; !ok {
				continue
			}
		}
		out = setFlag(append(out, body.Code[copied:s.offset]...), flag)
		copied = s.offset
	}
	if out != nil {
		body.Edit(append(out, body.Code[copied:]...))
	}
}

func setFlag(c wasm.Code, flag uint32) wasm.Code { return c.I32(1).Op(wasm.OpGlobalSet, flag) }

// addFlag adds a mutable i32 global that is 0 at first.
func (p *persister) addFlag(name string) uint32 {
	index := p.m.AddGlobal(wasm.Type{Kind: wasm.I32}, true, wasm.Code(nil).I32(0))
	p.m.AddExport(name, wasm.KindGlobal, index)
	return index
}

// addFunc adds and exports a function. code does not have its final end yet.
func (p *persister) addFunc(name string, params, results, locals []wasm.Type, code wasm.Code) {
	p.m.AddExport(name, wasm.KindFunc, p.m.AddFunc(params, results, locals, code))
}

func reservedName(kind string, index int, what string) string {
	name := fmt.Sprintf("%s%s:%d", Reserved, kind, index)
	if what != "" {
		name += ":" + what
	}
	return name
}

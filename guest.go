package mmrun

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/mmrun/mmrun/globalsfile"
	"github.com/mmrun/mmrun/internal/delta"
	"github.com/mmrun/mmrun/mmapmem"
	"github.com/mmrun/mmrun/rewriter"
)

// guest is the wasm side of an instance: the compiled module, the present wazero instance of it,
// and access to its small state. It does not know how anything is kept.
type guest struct {
	runtime  wazero.Runtime
	compiled wazero.CompiledModule
	info     rewriter.Info
	config   wazero.ModuleConfig
	mem      *mmapmem.Memory // nil without a memory

	base context.Context // the values of the context given to Open, without its end
	mod  api.Module
	life uint64 // counts instantiations; what was resolved in an earlier life is void

	globals       []globalAccess
	numeric       bool // all of them can be read directly
	numbers       bool // and they are all that can ever change beside the memory
	dropped       []api.Global
	drop          []api.Function
	tables        []tableAccess
	tablesChanged api.MutableGlobal // nil if no table can change
	refs          *functionRefs     // of this life, nil until one is needed
	scratch       []int32
}

// globalAccess reads and writes one mutable global.
type globalAccess struct {
	name   string // for messages
	typ    rewriter.ValType
	mask   uint64            // bits of the value that mean something
	direct api.MutableGlobal // numeric types
	getter api.Function      // v128, funcref
	setter api.Function      // v128, funcref
	isNull api.Function      // externref, exnref
}

type tableAccess struct {
	typ                          rewriter.ValType
	size, grow, get, set, isNull api.Function
}

// newGuest rewrites and compiles a module.
func newGuest(ctx context.Context, rt wazero.Runtime, wasm []byte, config wazero.ModuleConfig) (*guest, error) {
	rewritten, info, err := rewriter.Rewrite(wasm)
	var unsupported *rewriter.UnsupportedError
	switch {
	case errors.As(err, &unsupported):
		return nil, asKind(ErrUnsupported, fmt.Errorf("module: %w", err))
	case err != nil:
		return nil, fmt.Errorf("module: %w", err)
	}
	compiled, err := rt.CompileModule(ctx, rewritten)
	if err != nil {
		return nil, fmt.Errorf("module: compile: %w", err)
	}
	// Start functions run once in the life of a state, and then under our control. Without a
	// name, one runtime can hold many instances of a module.
	config = config.WithStartFunctions().WithName("")
	return &guest{base: context.WithoutCancel(ctx), runtime: rt, compiled: compiled, info: info, config: config}, nil
}

// maxPages is how large the memory may become, in wasm pages.
func (g *guest) maxPages() uint32 {
	if m := g.info.Memory; m.HasMax {
		return min(m.Max, mmapmem.MaxWasmPages)
	}
	return mmapmem.MaxWasmPages
}

// instantiate makes a fresh wazero instance over the memory; an earlier one must have been closed.
// Nothing of the module's own code runs.
func (g *guest) instantiate() (err error) {
	ctx := g.base
	if g.mem != nil {
		ctx = experimental.WithMemoryAllocator(ctx, g.mem)
	}
	defer func() {
		// wazero panics when the allocator refuses the module's minimum.
		if r := recover(); r != nil {
			cause := fmt.Errorf("%v", r)
			if g.mem != nil && g.mem.GrowError() != nil {
				cause = g.mem.GrowError()
			}
			err = fmt.Errorf("module: instantiate: %w", cause)
		}
	}()
	mod, err := g.runtime.InstantiateModule(ctx, g.compiled, g.config)
	if err != nil {
		return fmt.Errorf("module: instantiate: %w", err)
	}
	g.mod = mod
	g.life++
	g.refs = nil
	g.resolve()
	return nil
}

// resolve looks up the accessors, once in a life: a look-up costs microseconds.
func (g *guest) resolve() {
	function := func(name string) api.Function {
		if name == "" {
			return nil
		}
		return g.mod.ExportedFunction(name)
	}
	global := func(name string) api.MutableGlobal {
		return g.mod.ExportedGlobal(name).(api.MutableGlobal)
	}
	g.globals = g.globals[:0]
	g.numeric = true // as far as has been seen
	for _, x := range g.info.Globals {
		a := globalAccess{name: x.Name, typ: x.Type, mask: ^uint64(0),
			getter: function(x.Getter), setter: function(x.Setter), isNull: function(x.IsNull)}
		if a.name == "" {
			a.name = fmt.Sprintf("global %d", x.Index)
		}
		if a.getter == nil && a.isNull == nil {
			a.direct = global(x.Export)
		}
		g.numeric = g.numeric && a.direct != nil
		if x.Type == rewriter.I32 || x.Type == rewriter.F32 {
			a.mask = 1<<32 - 1
		}
		g.globals = append(g.globals, a)
	}
	g.dropped, g.drop = g.dropped[:0], g.drop[:0]
	for _, s := range g.info.Segments {
		g.dropped = append(g.dropped, g.mod.ExportedGlobal(s.Dropped))
		g.drop = append(g.drop, function(s.Drop))
	}
	g.tables = g.tables[:0]
	for _, t := range g.info.Tables {
		g.tables = append(g.tables, tableAccess{typ: t.Type, size: function(t.Size), grow: function(t.Grow),
			get: function(t.Get), set: function(t.Set), isNull: function(t.AllNull)})
	}
	g.tablesChanged = nil
	if name := g.info.TablesChanged; name != "" {
		g.tablesChanged = global(name)
	}
	g.numbers = g.numeric && g.tablesChanged == nil && len(g.dropped) == 0
}

// close ends the wazero instance. Its memory stays mapped.
func (g *guest) close() error {
	if g.mod == nil {
		return nil
	}
	return g.mod.Close(g.base)
}

// closed tells whether the guest has ended itself (proc_exit) or was ended by its context.
func (g *guest) closed() bool { return g.mod.IsClosed() }

// pages is the size of the memory in wasm pages.
func (g *guest) pages() uint32 {
	if g.mem == nil {
		return 0
	}
	return uint32(g.mem.Size() / mmapmem.WasmPageSize)
}

// firstRun runs what a module runs once in its life: data segments, start function, _initialize.
func (g *guest) firstRun(ctx context.Context) error {
	names := []string{g.info.Init, g.info.Start}
	if g.info.Initialize {
		names = append(names, "_initialize")
	}
	for _, name := range names {
		if name == "" {
			continue
		}
		if _, err := g.mod.ExportedFunction(name).Call(ctx); err != nil {
			return fmt.Errorf("module: first run: %s: %w", name, err)
		}
	}
	return nil
}

// shape is what the module allows its small state to be.
func (g *guest) shape() *delta.Shape {
	sh := &delta.Shape{Segments: len(g.info.Segments), Functions: g.info.FuncCount}
	for _, x := range g.info.Globals {
		sh.Globals = append(sh.Globals,
			delta.GlobalShape{Type: byte(x.Type), Function: x.Type == rewriter.FuncRef})
	}
	for _, t := range g.info.Tables {
		most := uint32(math.MaxUint32)
		if t.HasMax {
			most = t.Max
		}
		sh.Tables = append(sh.Tables,
			delta.TableShape{Min: t.Min, Max: most, Function: t.Type == rewriter.FuncRef})
	}
	if m := g.info.Memory; m != nil {
		sh.MinPages, sh.MaxPages = m.Min, g.maxPages()
	}
	return sh
}

// blankState is the shape of the module's small state, with nothing in it.
func (g *guest) blankState() *globalsfile.State { return g.shape().Blank() }

// checkShape tells whether a state read from a file is one of this module.
func (g *guest) checkShape(s *globalsfile.State) error {
	if err := g.shape().Check(s); err != nil {
		return asKind(ErrCorrupt, fmt.Errorf("the globals file does not go with the module: %w", err))
	}
	return nil
}

// call runs one of the rewriter's helper functions, which have at most two parameters and two
// results and never call the host. The context of an event may have ended by then, and a call
// under an ended context may close the module; so it is not used.
func (g *guest) call(f api.Function, stack ...uint64) (uint64, uint64, error) {
	room := [2]uint64{}
	copy(room[:], stack)
	err := f.CallWithStack(g.base, room[:])
	return room[0], room[1], err
}

// capture notes how the small state differs from s.
func (g *guest) capture(s *globalsfile.State, e *delta.Encoder) error {
	e.Reset()
	for i := range g.globals {
		a := &g.globals[i]
		if a.direct != nil {
			if v := a.direct.Get() & a.mask; v != s.Globals[i].Lo {
				e.Global(i, v)
			}
			continue
		}
		lo, hi, err := g.readSlow(a)
		if err != nil {
			return err
		}
		switch old := s.Globals[i]; {
		case lo == old.Lo && hi == old.Hi:
		case a.typ == rewriter.V128:
			e.Wide(i, lo, hi)
		default:
			e.Global(i, lo)
		}
	}
	for i, d := range g.dropped {
		if d.Get() != 0 && !s.Dropped[i] {
			e.Dropped(i)
		}
	}
	if g.tablesChanged == nil || uint32(g.tablesChanged.Get()) == 0 {
		return nil
	}
	for i := range g.tables {
		entries, err := g.readTable(i)
		if err != nil {
			return err
		}
		e.Table(i, s.Tables[i], entries)
	}
	return nil
}

// numbersOnly tells that nothing of the small state can differ from s but the values of numeric globals.
func (g *guest) numbersOnly(s *globalsfile.State) bool {
	if !g.numeric || g.tablesChanged != nil && uint32(g.tablesChanged.Get()) != 0 {
		return false
	}
	for i, d := range g.dropped {
		if d.Get() != 0 && !s.Dropped[i] {
			return false
		}
	}
	return true
}

// update is capture and its application at once, for a state that numbersOnly is true of. It tells whether any
// global has changed.
func (g *guest) update(s *globalsfile.State) (changed bool) {
	for i := range g.globals {
		a := &g.globals[i]
		if v := a.direct.Get() & a.mask; v != s.Globals[i].Lo {
			s.Globals[i].Lo = v
			changed = true
		}
	}
	return changed
}

// settled notes that what capture saw has been kept.
func (g *guest) settled() {
	if g.tablesChanged != nil {
		g.tablesChanged.Set(0)
	}
}

// readSlow reads a global that the host API does not show whole. A function reference is given as
// its index, -1 for null.
func (g *guest) readSlow(a *globalAccess) (lo, hi uint64, err error) {
	if a.isNull != nil {
		null, _, err := g.call(a.isNull)
		if err == nil && uint32(null) == 0 {
			err = asKind(ErrUnsupported, fmt.Errorf("%s holds an %s from the host, which cannot be kept", a.name, a.typ))
		}
		return 0, 0, err
	}
	lo, hi, err = g.call(a.getter)
	if err != nil || a.typ == rewriter.V128 {
		return lo, hi, err
	}
	index, err := g.indexOf(lo)
	return uint64(int64(index)), 0, err
}

// readTable returns the function indices of a table, valid until the next call.
func (g *guest) readTable(i int) ([]int32, error) {
	t := &g.tables[i]
	n, _, err := g.call(t.size)
	if err != nil {
		return nil, err
	}
	g.scratch = g.scratch[:0]
	if t.isNull != nil {
		null, _, err := g.call(t.isNull)
		if err == nil && uint32(null) == 0 {
			err = asKind(ErrUnsupported, fmt.Errorf("table %d holds an %s from the host, which cannot be kept",
				g.info.Tables[i].Index, t.typ))
		}
		if err != nil {
			return nil, err
		}
		for range uint32(n) {
			g.scratch = append(g.scratch, -1)
		}
		return g.scratch, nil
	}
	for at := range uint32(n) {
		ref, _, err := g.call(t.get, uint64(at))
		if err != nil {
			return nil, err
		}
		index, err := g.indexOf(ref)
		if err != nil {
			return nil, fmt.Errorf("table %d, entry %d: %w", g.info.Tables[i].Index, at, err)
		}
		g.scratch = append(g.scratch, index)
	}
	return g.scratch, nil
}

// restoreGlobals sets the mutable globals to those of s.
func (g *guest) restoreGlobals(s *globalsfile.State) error {
	for i := range g.globals {
		a, v := &g.globals[i], s.Globals[i]
		var err error
		switch {
		case a.direct != nil:
			a.direct.Set(v.Lo)
		case a.typ == rewriter.V128:
			_, _, err = g.call(a.setter, v.Lo, v.Hi)
		case a.setter != nil:
			_, _, err = g.call(a.setter, uint64(uint32(v.Lo)))
		}
		if err != nil {
			return fmt.Errorf("restore %s: %w", a.name, err)
		}
	}
	return nil
}

// restore brings a freshly instantiated guest to the state s; the bytes of the memory are there
// already.
func (g *guest) restore(s *globalsfile.State) error {
	if g.mem != nil {
		now := g.pages()
		if s.MemoryPages < now {
			return asKind(ErrCorrupt, fmt.Errorf("memory of %d wasm pages, the module starts with %d", s.MemoryPages, now))
		}
		if _, ok := g.mod.Memory().Grow(s.MemoryPages - now); !ok {
			return fmt.Errorf("memory of %d wasm pages: %w", s.MemoryPages,
				errors.Join(errors.New("it cannot be grown to that"), g.mem.GrowError()))
		}
	}
	if err := g.restoreGlobals(s); err != nil {
		return err
	}
	for i, d := range s.Dropped {
		if !d {
			continue
		}
		if _, _, err := g.call(g.drop[i]); err != nil {
			return fmt.Errorf("restore dropped segment %d: %w", g.info.Segments[i].Index, err)
		}
	}
	for i, entries := range s.Tables {
		if err := g.restoreTable(i, entries); err != nil {
			return fmt.Errorf("restore table %d: %w", g.info.Tables[i].Index, err)
		}
	}
	g.settled()
	return nil
}

// restoreTable writes the entries of a table. None means that it never changed and is what the
// instantiation made it.
func (g *guest) restoreTable(i int, entries []int32) error {
	if len(entries) == 0 {
		return nil
	}
	t := &g.tables[i]
	n, _, err := g.call(t.size)
	if err != nil {
		return err
	}
	size := int(uint32(n))
	if len(entries) < size {
		return asKind(ErrCorrupt, fmt.Errorf("%d entries, the module starts with %d", len(entries), size))
	}
	if more := len(entries) - size; more > 0 {
		was, _, err := g.call(t.grow, uint64(more), uint64(^uint32(0)))
		if err != nil {
			return err
		}
		if uint32(was) == ^uint32(0) {
			return fmt.Errorf("it cannot be grown to %d entries", len(entries))
		}
	}
	if t.set == nil {
		return nil // all null, as a table of this type must be
	}
	for at, index := range entries {
		if _, _, err := g.call(t.set, uint64(at), uint64(uint32(index))); err != nil {
			return fmt.Errorf("entry %d: %w", at, err)
		}
	}
	return nil
}

// restorable tells whether restoreGlobals is all it takes to go back to s: the guest has changed
// no table, has dropped no segment that s has, and holds no reference from the host.
func (g *guest) restorable(s *globalsfile.State) bool {
	if g.tablesChanged != nil && uint32(g.tablesChanged.Get()) != 0 {
		return false
	}
	for i, d := range g.dropped {
		if (d.Get() != 0) != s.Dropped[i] {
			return false
		}
	}
	for i := range g.globals {
		if isNull := g.globals[i].isNull; isNull != nil {
			if null, _, err := g.call(isNull); err != nil || uint32(null) == 0 {
				return false
			}
		}
	}
	return true
}

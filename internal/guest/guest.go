package guest

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/mmrun/mmrun/globalsfile"
	"github.com/mmrun/mmrun/mmapmem"
	"github.com/mmrun/mmrun/rewriter"
)

// Guest is one running instance of a module. It is not safe for concurrent use, but for Closed.
type Guest struct {
	code   *Code
	form   *variant
	config wazero.ModuleConfig
	mem    Memory // nil without a memory

	base context.Context // the values of the context given to Open, without its end
	mod  api.Module
	// generation counts instantiations; what was resolved in an earlier one is void.
	generation uint64

	globals       []globalAccess
	numeric       bool // all of them can be read directly
	numbers       bool // and they are all that can ever change beside the memory
	dropped       []api.Global
	drop          []helper
	tables        []tableAccess
	tablesChanged api.MutableGlobal // nil if no table can change
	refs          *functionRefs     // of this generation, nil until one is needed
	scratch       []int32
	marks         marks
}

// Memory is the linear memory that a guest is given.
type Memory interface {
	experimental.MemoryAllocator
	Size() uint64     // bytes
	GrowError() error // why the last growth was refused, nil if it was not
}

// globalAccess reads and writes one mutable global.
type globalAccess struct {
	name   string // for messages
	typ    rewriter.ValType
	mask   uint64            // bits of the value that mean something
	direct api.MutableGlobal // numeric types
	getter helper            // v128, funcref
	setter helper            // v128, funcref
	isNull helper            // externref, exnref
}

type tableAccess struct {
	typ                          rewriter.ValType
	size, grow, get, set, isNull helper
}

// helper is a function that the rewriter has added, or none. It is looked up when it is first
// needed: each look-up makes wazero allocate a stack of 10 KiB.
type helper struct {
	name string
	fn   api.Function
}

func (h *helper) exists() bool { return h.name != "" }

// New prepares a guest that runs the code in one variant; Instantiate makes it run. It takes over
// one use of the code, also when it fails.
func New(ctx context.Context, code *Code, options rewriter.Options, config wazero.ModuleConfig) (
	*Guest, error) {
	form, err := code.variant(ctx, options)
	if err != nil {
		return nil, errors.Join(err, code.Release(context.WithoutCancel(ctx)))
	}
	// Start functions run once in the life of a state, and then under our control. Without a
	// name, one runtime can hold many instances of a module.
	config = config.WithStartFunctions().WithName("")
	g := &Guest{base: context.WithoutCancel(ctx), code: code, form: form, config: config}
	g.marks.g = g
	return g, nil
}

// Code is what the guest runs.
func (g *Guest) Code() *Code { return g.code }

// Suspend is what it takes to leave the guest in its calls, nil if its code does not allow that.
func (g *Guest) Suspend() *rewriter.Suspend { return g.form.info.Suspend }

// SetMemory gives the guest its linear memory before Instantiate, nil takes it away.
func (g *Guest) SetMemory(m Memory) { g.mem = m }

// Module is the present wazero instance. Another one replaces it when Generation has changed.
func (g *Guest) Module() api.Module { return g.mod }

// Generation counts instantiations.
func (g *Guest) Generation() uint64 { return g.generation }

// Instantiate makes a fresh wazero instance over the memory; an earlier one must have been closed.
// Nothing of the module's own code runs.
func (g *Guest) Instantiate() (err error) {
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
	mod, err := g.code.runtime.InstantiateModule(ctx, g.form.compiled, g.config)
	if err != nil {
		return fmt.Errorf("module: instantiate: %w", err)
	}
	g.mod = mod
	g.generation++
	g.refs = nil
	g.resolve()
	if b := g.form.info.Barrier; b != nil && foreignWASI(g.code.runtime, g.form.compiled) {
		g.mod.ExportedGlobal(b.Foreign).(api.MutableGlobal).Set(1)
	}
	return nil
}

// resolve looks up the globals and names the helpers of this generation.
func (g *Guest) resolve() {
	info := &g.code.Info
	global := func(name string) api.MutableGlobal {
		return g.mod.ExportedGlobal(name).(api.MutableGlobal)
	}
	g.globals = slices.Grow(g.globals[:0], len(info.Globals))
	g.numeric = true // as far as has been seen
	for _, x := range info.Globals {
		a := globalAccess{name: x.Name, typ: x.Type, mask: ^uint64(0),
			getter: helper{name: x.Getter}, setter: helper{name: x.Setter},
			isNull: helper{name: x.IsNull}}
		if a.name == "" {
			a.name = fmt.Sprintf("global %d", x.Index)
		}
		if !a.getter.exists() && !a.isNull.exists() {
			a.direct = global(x.Export)
		}
		g.numeric = g.numeric && a.direct != nil
		if x.Type == rewriter.I32 || x.Type == rewriter.F32 {
			a.mask = 1<<32 - 1
		}
		g.globals = append(g.globals, a)
	}
	g.dropped = slices.Grow(g.dropped[:0], len(info.Segments))
	g.drop = slices.Grow(g.drop[:0], len(info.Segments))
	for _, s := range info.Segments {
		g.dropped = append(g.dropped, g.mod.ExportedGlobal(s.Dropped))
		g.drop = append(g.drop, helper{name: s.Drop})
	}
	g.tables = slices.Grow(g.tables[:0], len(info.Tables))
	for _, t := range info.Tables {
		g.tables = append(g.tables, tableAccess{typ: t.Type,
			size: helper{name: t.Size}, grow: helper{name: t.Grow}, get: helper{name: t.Get},
			set: helper{name: t.Set}, isNull: helper{name: t.AllNull}})
	}
	g.tablesChanged = nil
	if info.TablesChanged != "" {
		g.tablesChanged = global(info.TablesChanged)
	}
	g.numbers = g.numeric && g.tablesChanged == nil && len(g.dropped) == 0
}

// Renew ends the wazero instance, if it has not ended itself, and goes on in a fresh one that has
// the small state s. What has grown cannot shrink in wazero, what was closed cannot be opened
// again, and what was dropped cannot be brought back: a new instance over the same memory has none
// of that behind it.
func (g *Guest) Renew(s *globalsfile.State) error {
	if err := g.Close(); err != nil {
		return err
	}
	if err := g.Instantiate(); err != nil {
		return err
	}
	return g.Restore(s)
}

// NumbersAlone tells that numeric globals are all of the small state that can ever change.
func (g *Guest) NumbersAlone() bool { return g.numbers }

// Close ends the wazero instance. Its memory stays mapped: a call on a closed module still runs
// compiled code over it.
func (g *Guest) Close() error {
	if g.mod == nil {
		return nil
	}
	return g.mod.Close(g.base)
}

// Closed tells whether the guest has ended itself (proc_exit) or was ended by its context, by a
// host function or with its runtime.
func (g *Guest) Closed() bool { return g.mod.IsClosed() }

// Pages is the size of the memory in wasm pages.
func (g *Guest) Pages() uint32 {
	if g.mem == nil {
		return 0
	}
	return uint32(g.mem.Size() / mmapmem.WasmPageSize)
}

// InitializeName is the export that runs a reactor's constructors.
const InitializeName = "_initialize"

// FirstRun runs what a module runs once in its life: data segments, start function, _initialize.
func (g *Guest) FirstRun(ctx context.Context) error {
	names := []string{g.code.Info.Init, g.code.Info.Start}
	if g.code.Info.Initialize {
		names = append(names, InitializeName)
	}
	for _, name := range names {
		if name == "" {
			continue
		}
		if _, err := g.mod.ExportedFunction(name).Call(ctx); err != nil {
			if name == g.code.Info.Init { // which does nothing else that could trap
				name = "an active data or element segment is out of bounds"
			}
			return fmt.Errorf("module: first run: %s: %w", name, err)
		}
	}
	return nil
}

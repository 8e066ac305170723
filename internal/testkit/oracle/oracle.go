// Package oracle keeps and resumes rewritten modules without package mmrun: it copies the state out
// of one wazero instance and into another. It is the second opinion of the tests, and it can leave
// out a part of the state, which shows whether a test would notice.
package oracle

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"unsafe"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/mmrun/mmrun/rewriter"
)

// Module is a rewritten and compiled module. It belongs to one runtime.
type Module struct {
	Info rewriter.Info

	runtime  wazero.Runtime
	compiled wazero.CompiledModule
}

// Compile rewrites and compiles a module.
func Compile(ctx context.Context, rt wazero.Runtime, wasm []byte) (*Module, error) {
	return CompileWith(ctx, rt, wasm, rewriter.Options{})
}

// CompileWith is Compile with options of the rewrite.
func CompileWith(ctx context.Context, rt wazero.Runtime, wasm []byte, options rewriter.Options) (
	*Module, error) {
	rewritten, info, err := rewriter.Rewrite(wasm, options)
	if err != nil {
		return nil, err
	}
	compiled, err := rt.CompileModule(ctx, rewritten)
	if err != nil {
		return nil, fmt.Errorf("rewritten: %w", err)
	}
	return &Module{Info: info, runtime: rt, compiled: compiled}, nil
}

// Start is the first run.
func (m *Module) Start(ctx context.Context, config wazero.ModuleConfig) (api.Module, error) {
	mod, err := m.runtime.InstantiateModule(ctx, m.compiled, config.WithStartFunctions())
	if err != nil {
		return nil, err
	}
	names := []string{m.Info.Init, m.Info.Start}
	if m.Info.Initialize {
		names = append(names, "_initialize")
	}
	for _, name := range names {
		if err := run(ctx, mod, name); err != nil {
			return nil, errors.Join(err, mod.Close(ctx))
		}
	}
	return mod, nil
}

func run(ctx context.Context, mod api.Module, name string) error {
	if name == "" {
		return nil
	}
	_, err := mod.ExportedFunction(name).Call(ctx)
	return err
}

// State is all of a module's state, by value.
type State struct {
	Memory  []byte
	Globals [][2]uint64 // in the order of Info.Globals; function references as indices, -1 for null
	Tables  [][]int32   // function indices, -1 for null
	Dropped []bool      // in the order of Info.Segments
}

// Sum is the SHA-256 of the whole state.
func (s *State) Sum() string {
	h := sha256.New()
	write := func(v any) { _ = binary.Write(h, binary.LittleEndian, v) } // a hash takes everything
	write(uint64(len(s.Memory)))
	h.Write(s.Memory)
	for _, g := range s.Globals {
		write(g[:])
	}
	for _, t := range s.Tables {
		write(uint64(len(t)))
		write(t)
	}
	write(s.Dropped)
	return hex.EncodeToString(h.Sum(nil))
}

// Save copies the state of an instance of a rewritten module.
func Save(ctx context.Context, mod api.Module, info rewriter.Info) (*State, error) {
	s := &State{}
	c := &caller{ctx: ctx, mod: mod, info: info}
	if info.Memory != nil {
		view, ok := mod.Memory().Read(0, mod.Memory().Size())
		if !ok {
			return nil, errors.New("memory cannot be read")
		}
		s.Memory = append([]byte(nil), view...)
	}
	for _, g := range info.Globals {
		s.Globals = append(s.Globals, c.global(g))
	}
	for _, t := range info.Tables {
		entries := make([]int32, uint32(c.call(t.Size)))
		for i := range entries {
			if t.Get == "" {
				entries[i] = -1
			} else {
				entries[i] = c.indexOf(c.call(t.Get, uint64(i)))
			}
		}
		if t.AllNull != "" && uint32(c.call(t.AllNull)) == 0 {
			c.fail(fmt.Errorf("table %d: %w", t.Index, ErrForeign))
		}
		s.Tables = append(s.Tables, entries)
	}
	for _, d := range info.Segments {
		s.Dropped = append(s.Dropped, mod.ExportedGlobal(d.Dropped).Get() != 0)
	}
	return s, c.err
}

// ErrForeign means that the state holds a reference to something outside of the module.
var ErrForeign = errors.New("a reference to what is not the module's own")

// Omission is a part of a resume that is left out or done wrong.
type Omission int

const (
	Nothing         Omission = iota
	Globals                  // globals are what the module's code makes them
	Tables                   // so are tables
	Segments                 // segments that were dropped are there again
	DataIsActive             // data segments are written again, as wasm does at each instantiation
	StartsAgain              // the start function runs again, as wasm does at each instantiation
	InitializeTwice          // _initialize runs again
)

// Resume makes a fresh instance with the state s.
func (m *Module) Resume(ctx context.Context, config wazero.ModuleConfig, s *State,
	omit Omission) (api.Module, error) {
	mod, err := m.runtime.InstantiateModule(ctx, m.compiled, config.WithStartFunctions())
	if err != nil {
		return nil, err
	}
	c := &caller{ctx: ctx, mod: mod, info: m.Info}
	if m.Info.Memory != nil {
		memory := mod.Memory()
		if _, ok := memory.Grow((uint32(len(s.Memory)) - memory.Size()) >> 16); !ok {
			return nil, errors.New("memory cannot be grown")
		}
		memory.Write(0, s.Memory)
	}
	if omit != Globals {
		for i, g := range m.Info.Globals {
			c.setGlobal(g, s.Globals[i])
		}
	}
	if omit != Tables {
		for i, t := range m.Info.Tables {
			c.setTable(t, s.Tables[i])
		}
	}
	// Before segments are dropped: init reads them.
	if omit == DataIsActive {
		c.try(m.Info.Init)
	}
	if omit != Segments {
		for i, d := range m.Info.Segments {
			if s.Dropped[i] {
				c.try(d.Drop)
			}
		}
	}
	if omit == StartsAgain {
		c.try(m.Info.Start)
	}
	if omit == InitializeTwice && m.Info.Initialize {
		c.try("_initialize")
	}
	if c.err != nil {
		return nil, errors.Join(c.err, mod.Close(ctx))
	}
	return mod, nil
}

// caller calls the helpers that the rewrite added and keeps the first error.
type caller struct {
	ctx     context.Context
	mod     api.Module
	info    rewriter.Info
	indices map[[2]uintptr]int32
	err     error
}

func (c *caller) fail(err error) {
	if c.err == nil {
		c.err = err
	}
}

func (c *caller) try(name string) { c.fail(run(c.ctx, c.mod, name)) }

// call returns the first result. (Of a v128 getter the caller asks for both, with results.)
func (c *caller) call(name string, params ...uint64) uint64 {
	if r := c.results(name, params...); len(r) > 0 {
		return r[0]
	}
	return 0
}

func (c *caller) results(name string, params ...uint64) []uint64 {
	if c.err != nil {
		return nil
	}
	results, err := c.mod.ExportedFunction(name).Call(c.ctx, params...)
	if err != nil {
		c.fail(fmt.Errorf("%s: %w", name, err))
	}
	return results
}

// indexOf looks a raw reference up among those of all functions.
func (c *caller) indexOf(ref uint64) int32 {
	if ref == 0 || c.err != nil {
		return -1
	}
	if c.indices == nil {
		c.indices = map[[2]uintptr]int32{}
		for i := range c.info.FuncCount {
			r := target(c.call(c.info.Func, uint64(i)))
			if _, there := c.indices[r]; !there {
				c.indices[r] = int32(i)
			}
		}
	}
	i, ok := c.indices[target(ref)]
	if !ok {
		c.fail(ErrForeign)
	}
	return i
}

// target is what a reference of wazero's compiler points to: machine code and the instance it
// belongs to. References themselves cannot be compared, since each evaluation of ref.func makes
// another one.
func target(ref uint64) [2]uintptr {
	if ref == 0 {
		return [2]uintptr{}
	}
	return **(**[2]uintptr)(unsafe.Pointer(&ref))
}

func (c *caller) global(g rewriter.Global) [2]uint64 {
	switch {
	case g.IsNull != "":
		if uint32(c.call(g.IsNull)) == 0 {
			c.fail(fmt.Errorf("global %d: %w", g.Index, ErrForeign))
		}
		return [2]uint64{}
	case g.Type == rewriter.V128:
		if r := c.results(g.Getter); len(r) == 2 {
			return [2]uint64(r)
		}
		return [2]uint64{}
	case g.Type == rewriter.FuncRef:
		return [2]uint64{uint64(uint32(c.indexOf(c.call(g.Getter))))}
	}
	v := c.mod.ExportedGlobal(g.Export).Get()
	if g.Type == rewriter.I32 || g.Type == rewriter.F32 {
		v = uint64(uint32(v)) // what is above is not part of it
	}
	return [2]uint64{v}
}

func (c *caller) setGlobal(g rewriter.Global, v [2]uint64) {
	switch {
	case g.IsNull != "": // as it is
	case g.Type == rewriter.V128:
		c.call(g.Setter, v[0], v[1])
	case g.Setter != "":
		c.call(g.Setter, v[0])
	default:
		c.mod.ExportedGlobal(g.Export).(api.MutableGlobal).Set(v[0])
	}
}

func (c *caller) setTable(t rewriter.Table, entries []int32) {
	null := uint64(^uint32(0))
	if more := len(entries) - int(uint32(c.call(t.Size))); more > 0 {
		if uint32(c.call(t.Grow, uint64(more), null)) == ^uint32(0) {
			c.fail(fmt.Errorf("table %d cannot be grown to %d entries", t.Index, len(entries)))
		}
	}
	if t.Set == "" {
		return
	}
	for i, f := range entries {
		c.call(t.Set, uint64(i), uint64(uint32(f)))
	}
}

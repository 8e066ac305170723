package guest

import (
	"errors"
	"fmt"
	"math"

	"github.com/mmrun/mmrun/globalsfile"
	"github.com/mmrun/mmrun/internal/delta"
	"github.com/mmrun/mmrun/internal/errs"
	"github.com/mmrun/mmrun/rewriter"
)

// ShapeOf is what a module allows its small state to be.
func ShapeOf(info *rewriter.Info) *delta.Shape {
	shape := &delta.Shape{Segments: len(info.Segments), Functions: info.FuncCount}
	for _, x := range info.Globals {
		shape.Globals = append(shape.Globals,
			delta.GlobalShape{Type: byte(x.Type), Function: x.Type == rewriter.FuncRef})
	}
	for _, t := range info.Tables {
		most := uint32(math.MaxUint32)
		if t.HasMax {
			most = t.Max
		}
		shape.Tables = append(shape.Tables,
			delta.TableShape{Min: t.Min, Max: most, Function: t.Type == rewriter.FuncRef})
	}
	if m := info.Memory; m != nil {
		shape.MinPages, shape.MaxPages = m.Min, MaxPages(info)
	}
	return shape
}

// CheckShape tells whether a small state that was read from files is one of the module.
func CheckShape(info *rewriter.Info, s *globalsfile.State) error {
	if err := ShapeOf(info).Check(s); err != nil {
		return errs.As(errs.ErrCorrupt, fmt.Errorf(
			"the small state does not go with the module: %w", err))
	}
	return nil
}

// call runs one of the rewriter's helper functions, which have at most two parameters and two
// results and never call the host. The context of an event may have ended by then, and a call
// under an ended context may close the module; so it is not used.
func (g *Guest) call(h *helper, stack ...uint64) (uint64, uint64, error) {
	if h.fn == nil {
		h.fn = g.mod.ExportedFunction(h.name)
	}
	room := [2]uint64{}
	copy(room[:], stack)
	err := h.fn.CallWithStack(g.base, room[:])
	return room[0], room[1], err
}

// Capture notes in e how the small state differs from s.
func (g *Guest) Capture(s *globalsfile.State, e *delta.Encoder) error {
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

// NumbersOnly tells that nothing of the small state can differ from s but the values of numeric
// globals.
func (g *Guest) NumbersOnly(s *globalsfile.State) bool {
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

// Update is Capture and its application at once, for a state that NumbersOnly is true of. It tells
// whether any global has changed.
func (g *Guest) Update(s *globalsfile.State) (changed bool) {
	for i := range g.globals {
		a := &g.globals[i]
		if v := a.direct.Get() & a.mask; v != s.Globals[i].Lo {
			s.Globals[i].Lo = v
			changed = true
		}
	}
	return changed
}

// Settled notes that what capture saw has been kept.
func (g *Guest) Settled() {
	if g.tablesChanged != nil {
		g.tablesChanged.Set(0)
	}
}

// readSlow reads a global that the host API does not show whole. A function reference is given as
// its index, -1 for null.
func (g *Guest) readSlow(a *globalAccess) (lo, hi uint64, err error) {
	if a.isNull.exists() {
		null, _, err := g.call(&a.isNull)
		if err == nil && uint32(null) == 0 {
			err = errs.As(errs.ErrUnsupported,
				fmt.Errorf("%s holds an %s from the host, which cannot be kept", a.name, a.typ))
		}
		return 0, 0, err
	}
	lo, hi, err = g.call(&a.getter)
	if err != nil || a.typ == rewriter.V128 {
		return lo, hi, err
	}
	index, err := g.indexOf(lo)
	return uint64(int64(index)), 0, err
}

// readTable returns the function indices of a table, valid until the next call.
func (g *Guest) readTable(i int) ([]int32, error) {
	t := &g.tables[i]
	n, _, err := g.call(&t.size)
	if err != nil {
		return nil, err
	}
	g.scratch = g.scratch[:0]
	if t.isNull.exists() {
		null, _, err := g.call(&t.isNull)
		if err == nil && uint32(null) == 0 {
			err = errs.As(errs.ErrUnsupported,
				fmt.Errorf("table %d holds an %s from the host, which cannot be kept",
					g.code.Info.Tables[i].Index, t.typ))
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
		ref, _, err := g.call(&t.get, uint64(at))
		if err != nil {
			return nil, err
		}
		index, err := g.indexOf(ref)
		if err != nil {
			return nil, fmt.Errorf("table %d, entry %d: %w", g.code.Info.Tables[i].Index, at, err)
		}
		g.scratch = append(g.scratch, index)
	}
	return g.scratch, nil
}

// RestoreGlobals sets the mutable globals to those of s.
func (g *Guest) RestoreGlobals(s *globalsfile.State) error {
	for i := range g.globals {
		a, v := &g.globals[i], s.Globals[i]
		var err error
		switch {
		case a.direct != nil:
			a.direct.Set(v.Lo)
		case a.typ == rewriter.V128:
			_, _, err = g.call(&a.setter, v.Lo, v.Hi)
		case a.setter.exists():
			_, _, err = g.call(&a.setter, uint64(uint32(v.Lo)))
		}
		if err != nil {
			return fmt.Errorf("restore %s: %w", a.name, err)
		}
	}
	return nil
}

// Restore brings a freshly instantiated guest to the state s; the bytes of the memory are there
// already.
func (g *Guest) Restore(s *globalsfile.State) error {
	if g.mem != nil {
		now := g.Pages()
		if s.MemoryPages < now {
			return errs.As(errs.ErrCorrupt,
				fmt.Errorf("memory of %d wasm pages, the module starts with %d", s.MemoryPages,
					now))
		}
		if err := g.growTo(s.MemoryPages); err != nil {
			return err
		}
	}
	if err := g.RestoreGlobals(s); err != nil {
		return err
	}
	for i, d := range s.Dropped {
		if !d {
			continue
		}
		if _, _, err := g.call(&g.drop[i]); err != nil {
			return fmt.Errorf("restore dropped segment %d: %w", g.code.Info.Segments[i].Index, err)
		}
	}
	for i, entries := range s.Tables {
		if err := g.restoreTable(i, entries); err != nil {
			return fmt.Errorf("restore table %d: %w", g.code.Info.Tables[i].Index, err)
		}
	}
	g.Settled()
	return nil
}

// growTo makes the memory of a fresh instance as large as that of the state.
func (g *Guest) growTo(wasmPages uint32) error {
	mem := g.mod.Memory()
	if _, ok := mem.Grow(wasmPages - g.Pages()); ok {
		return nil
	}
	if most, _ := mem.Definition().Max(); most < wasmPages && most < MaxPages(&g.code.Info) {
		return fmt.Errorf("the runtime allows a memory of %d wasm pages, the state has %d wasm "+
			"pages (make the runtime with a larger WithMemoryLimitPages)", most, wasmPages)
	}
	return fmt.Errorf("memory of %d wasm pages: %w", wasmPages,
		errors.Join(errors.New("it cannot be grown to that"), g.mem.GrowError()))
}

// restoreTable writes the entries of a table. None means that it never changed and is what the
// instantiation made it.
func (g *Guest) restoreTable(i int, entries []int32) error {
	if len(entries) == 0 {
		return nil
	}
	t := &g.tables[i]
	n, _, err := g.call(&t.size)
	if err != nil {
		return err
	}
	size := int(uint32(n))
	if len(entries) < size {
		return errs.As(errs.ErrCorrupt, fmt.Errorf("%d entries, the module starts with %d",
			len(entries), size))
	}
	if more := len(entries) - size; more > 0 {
		was, _, err := g.call(&t.grow, uint64(more), uint64(^uint32(0)))
		if err != nil {
			return err
		}
		if uint32(was) == ^uint32(0) {
			return fmt.Errorf("it cannot be grown to %d entries", len(entries))
		}
	}
	if !t.set.exists() {
		return nil // all null, as a table of this type must be
	}
	for at, index := range entries {
		if _, _, err := g.call(&t.set, uint64(at), uint64(uint32(index))); err != nil {
			return fmt.Errorf("entry %d: %w", at, err)
		}
	}
	return nil
}

// Restorable tells whether restoreGlobals is all it takes to go back to s: the guest has changed
// no table, has dropped no segment that s has, and holds no reference from the host.
func (g *Guest) Restorable(s *globalsfile.State) bool {
	if g.tablesChanged != nil && uint32(g.tablesChanged.Get()) != 0 {
		return false
	}
	for i, d := range g.dropped {
		if (d.Get() != 0) != s.Dropped[i] {
			return false
		}
	}
	for i := range g.globals {
		if isNull := &g.globals[i].isNull; isNull.exists() {
			if null, _, err := g.call(isNull); err != nil || uint32(null) == 0 {
				return false
			}
		}
	}
	return true
}

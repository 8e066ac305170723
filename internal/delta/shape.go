package delta

import (
	"fmt"

	"github.com/mmrun/mmrun/globalsfile"
)

// Shape is what a module allows its small state to be.
type Shape struct {
	Globals            []GlobalShape
	Tables             []TableShape
	Segments           int
	Functions          uint32 // function indices are below
	MinPages, MaxPages uint32 // wasm pages; both 0 without a memory
}

// GlobalShape is that of one global.
type GlobalShape struct {
	Type byte // the type in globalsfile.Value
	// Function says that its value is a function index or -1.
	Function bool
}

// TableShape is that of one table. A table without elements in the state is as instantiation made
// it.
type TableShape struct {
	Min, Max uint32 // elements
	// Function says that the elements are function indices or -1; otherwise they all are -1.
	Function bool
}

// Blank is a state of this shape with nothing in it.
func (sh *Shape) Blank() *globalsfile.State {
	s := &globalsfile.State{
		Globals: make([]globalsfile.Value, len(sh.Globals)),
		Tables:  make([][]int32, len(sh.Tables)),
		Dropped: make([]bool, sh.Segments),
	}
	for i, g := range sh.Globals {
		s.Globals[i].Type = g.Type
	}
	return s
}

// Check tells whether s is a state of this shape. The error wraps ErrMalformed. It takes time for
// each element of each table.
func (sh *Shape) Check(s *globalsfile.State) error {
	switch {
	case len(s.Globals) != len(sh.Globals):
		return malformed("%d globals, the module has %d", len(s.Globals), len(sh.Globals))
	case len(s.Tables) != len(sh.Tables):
		return malformed("%d tables, the module has %d", len(s.Tables), len(sh.Tables))
	case len(s.Dropped) != sh.Segments:
		return malformed("%d segments, the module has %d", len(s.Dropped), sh.Segments)
	case s.MemoryPages < sh.MinPages || s.MemoryPages > sh.MaxPages:
		return malformed("a memory of %d wasm pages, the module can have %d to %d", s.MemoryPages,
			sh.MinPages, sh.MaxPages)
	}
	for i, g := range sh.Globals {
		v := s.Globals[i]
		if v.Type != g.Type {
			return malformed("global %d has type %#x, in the module it has %#x", i, v.Type, g.Type)
		}
		if g.Function {
			if err := sh.checkFunction(int64(v.Lo)); err != nil {
				return malformed("global %d: %w", i, err)
			}
		}
	}
	for i, t := range sh.Tables {
		if err := sh.checkTable(t, s.Tables[i]); err != nil {
			return malformed("table %d: %w", i, err)
		}
	}
	return nil
}

func (sh *Shape) checkTable(t TableShape, elements []int32) error {
	n := uint64(len(elements))
	if n > 0 && n < uint64(t.Min) || n > uint64(t.Max) {
		return fmt.Errorf("%d elements, the module can have %d to %d", n, t.Min, t.Max)
	}
	for at, e := range elements {
		if !t.Function && e != -1 {
			return fmt.Errorf("element %d is not null, and not one that can be kept", at)
		}
		if err := sh.checkFunction(int64(e)); err != nil {
			return fmt.Errorf("element %d: %w", at, err)
		}
	}
	return nil
}

func (sh *Shape) checkFunction(index int64) error {
	if index == -1 || index >= 0 && index < int64(sh.Functions) {
		return nil
	}
	return fmt.Errorf("it refers to function %d, the module has %d", index, sh.Functions)
}

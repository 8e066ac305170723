package engine

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/mmrun/mmrun/globalsfile"
	"github.com/mmrun/mmrun/internal/delta"
	"github.com/mmrun/mmrun/internal/guest"
	"github.com/mmrun/mmrun/mmapmem"
	"github.com/mmrun/mmrun/rewriter"
	"github.com/mmrun/mmrun/vfs"
)

// Mismatch is something of an old state that has no place in a new module.
type Mismatch struct {
	Name string `json:"name"` // what to name to have it left out, such as "global:counter"
	Why  string `json:"why"`
}

// Carry makes of the image of a state one of another module: memory, globals and metadata carry
// over where the new module has a place for them. Nothing of the new module runs; what is new in it
// begins as instantiation makes it. Tables are the new module's: the function indices of the old
// one mean nothing there. The pages of the image are the old one's, to be read once.
func Carry(ctx context.Context, old *Image, code *guest.Code, o *Options) (*Image, []Mismatch,
	error) {
	fresh, err := instantiated(ctx, code, o)
	if err != nil {
		return nil, nil, err
	}
	_, was, err := rewriter.Rewrite(old.Module, rewriter.Options{})
	if err != nil {
		return nil, nil, err
	}
	c := &carry{old: old.State, was: &was, now: &code.Info, state: fresh}
	c.memory()
	c.globals()
	c.tables()
	s := c.state
	s.Seq = old.State.Seq + 1
	s.Meta, s.Kept = old.State.Meta, old.State.Kept
	size := uint64(s.MemoryPages) * mmapmem.WasmPageSize
	return &Image{State: s, Mode: old.Mode, Module: code.Wasm, Hash: code.Hash, Size: size,
		next: old.next}, c.mismatches, nil
}

// instantiated is the small state of a module as instantiation makes it: no data segment and no
// start function has run.
func instantiated(ctx context.Context, code *guest.Code, o *Options) (_ *globalsfile.State,
	err error) {
	if !code.Retain() {
		return nil, errors.New("the module has been closed")
	}
	g, err := guest.New(ctx, code, rewriter.Options{}, o.Config)
	if err != nil {
		return nil, err
	}
	var files closers
	files.add(func() error { return code.Release(context.WithoutCancel(ctx)) })
	defer func() { err = errors.Join(err, files.close()) }()
	if code.Info.Memory != nil {
		f, err := os.CreateTemp("", "mmrun-*.memory")
		if err != nil {
			return nil, err
		}
		files.add(func() error { return os.Remove(f.Name()) })
		if err := f.Close(); err != nil {
			return nil, err
		}
		file, err := vfs.OS.OpenFile(f.Name(), os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		files.add(file.Close)
		mem, err := mmapmem.Open(file, mmapmem.Private, guest.MaxPages(&code.Info))
		if err != nil {
			return nil, err
		}
		files.add(mem.Close)
		g.SetMemory(mem)
	}
	if err := g.Instantiate(); err != nil {
		return nil, err
	}
	files.add(g.Close)
	state := guest.ShapeOf(&code.Info).Blank()
	var e delta.Encoder
	if err := captureSmall(g, state, Extras{}, &e); err != nil {
		return nil, err
	}
	if err := e.Apply(state); err != nil {
		return nil, err
	}
	state.MemoryPages = g.Pages()
	return state, nil
}

type carry struct {
	old        *globalsfile.State
	was, now   *rewriter.Info
	state      *globalsfile.State
	mismatches []Mismatch
}

func (c *carry) mismatch(name, format string, args ...any) {
	c.mismatches = append(c.mismatches, Mismatch{name, fmt.Sprintf(format, args...)})
}

func (c *carry) memory() {
	switch {
	case c.was.Memory == nil:
	case c.now.Memory == nil:
		c.mismatch("memory", "the new module has no memory")
	case c.old.MemoryPages > guest.MaxPages(c.now):
		c.mismatch("memory", "the memory has %d wasm pages, the new module allows %d",
			c.old.MemoryPages,
			guest.MaxPages(c.now))
	default:
		c.state.MemoryPages = max(c.state.MemoryPages, c.old.MemoryPages)
	}
}

// globals matches by name, then, for those without one, by index.
func (c *carry) globals() {
	place := make(map[string]int)
	for i, g := range c.now.Globals {
		if g.Name != "" {
			place[g.Name] = i
		}
	}
	for i, g := range c.was.Globals {
		name := "global:" + g.Name
		to, ok := place[g.Name]
		if g.Name == "" {
			name = fmt.Sprint("global:", g.Index)
			to = i
			ok = i < len(c.now.Globals) && c.now.Globals[i].Name == ""
		}
		v := c.old.Globals[i]
		switch {
		case !ok:
			c.mismatch(name, "the new module has no such mutable global (its value is %#x)", v.Lo)
		case c.now.Globals[to].Type != g.Type:
			c.mismatch(name, "it is %s, in the new module it is %s", g.Type, c.now.Globals[to].Type)
		case g.Type == rewriter.FuncRef && int64(v.Lo) != -1:
			c.mismatch(name, "it refers to function %d of the old module", int64(v.Lo))
		default:
			c.state.Globals[to] = v
		}
	}
}

func (c *carry) tables() {
	for i, t := range c.old.Tables {
		if len(t) > 0 {
			c.mismatch(fmt.Sprint("table:", c.was.Tables[i].Index),
				"the code has changed it: what it refers "+
					"to are functions of the old module")
		}
	}
}

package crash

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental/table"

	"github.com/mmrun/mmrun/rewriter"
)

// Image is the whole state of a guest at a quiescent point.
type Image struct {
	Memory []byte // the guest's own bytes, valid until it runs again
	// each mutable global, private ones too; low and high half; 0 or 1 for a function
	Globals [][2]uint64
	Tables  [][]int64 // function indices, -1 for null, of tables that can change
	Dropped []bool
}

// Observe reads the state of an instance of a rewritten module, past whatever runs it.
func Observe(ctx context.Context, mod api.Module, info rewriter.Info) (Image, error) {
	var img Image
	call := func(name string, params ...uint64) ([]uint64, error) {
		f := mod.ExportedFunction(name)
		results, err := f.Call(ctx, params...)
		return Mask(results, f.Definition().ResultTypes()), err
	}
	img.Memory = memoryOf(mod, info)
	for _, g := range info.Globals {
		var v [2]uint64
		switch {
		case g.Type == rewriter.V128:
			halves, err := call(g.Getter)
			if err != nil {
				return img, err
			}
			v = [2]uint64(halves)
		case g.Getter != "":
			ref, err := call(g.Getter)
			if err != nil {
				return img, err
			}
			// an address that says nothing; which function it is shows when it is called
			if ref[0] != 0 {
				v[0] = 1
			}
		default:
			v[0] = mod.ExportedGlobal(g.Export).Get()
			if g.Type == rewriter.I32 || g.Type == rewriter.F32 {
				v[0] = uint64(uint32(v[0]))
			}
		}
		img.Globals = append(img.Globals, v)
	}
	for _, t := range info.Tables {
		n, err := call(t.Size)
		if err != nil {
			return img, err
		}
		entries := make([]int64, n[0])
		for i := range entries {
			ref, err := call(t.Get, uint64(i))
			if err != nil {
				return img, err
			}
			entries[i] = -1
			if ref[0] != 0 {
				// All guests that change tables have functions of this type in them.
				i32 := []api.ValueType{api.ValueTypeI32}
				f := table.LookupFunction(mod, t.Index, uint32(i), i32, i32)
				entries[i] = int64(f.Definition().Index())
			}
		}
		img.Tables = append(img.Tables, entries)
	}
	for _, s := range info.Segments {
		img.Dropped = append(img.Dropped, mod.ExportedGlobal(s.Dropped).Get() != 0)
	}
	return img, nil
}

// memoryOf is the guest's own bytes. Without a memory wazero's Module.Memory gives something, and
// that panics.
func memoryOf(mod api.Module, info rewriter.Info) []byte {
	if info.Memory == nil {
		return nil
	}
	b, _ := mod.Memory().Read(0, mod.Memory().Size())
	return b
}

// Diff tells how img differs from want; empty if it does not.
func (img Image) Diff(want Image) string {
	switch {
	case len(img.Memory) != len(want.Memory):
		return fmt.Sprintf("memory has %d bytes, want %d", len(img.Memory), len(want.Memory))
	case !bytes.Equal(img.Memory, want.Memory):
		var pages []int
		first := -1
		for p := 0; p < len(want.Memory); p += 4096 {
			if got, want := img.Memory[p:p+4096], want.Memory[p:p+4096]; !bytes.Equal(got, want) {
				pages = append(pages, p/4096)
				for i := 0; first < 0; i++ {
					if got[i] != want[i] {
						first = p + i
					}
				}
			}
		}
		return fmt.Sprintf("memory differs in %d pages (%d), first at %#x: % x, want % x",
			len(pages), pages[:min(len(pages), 8)], first,
			img.Memory[first&^7:first&^7+8], want.Memory[first&^7:first&^7+8])
	case !slices.Equal(img.Globals, want.Globals):
		return fmt.Sprintf("globals are %#x, want %#x", img.Globals, want.Globals)
	case !slices.EqualFunc(img.Tables, want.Tables, slices.Equal):
		return fmt.Sprintf("tables are %d, want %d", img.Tables, want.Tables)
	case !slices.Equal(img.Dropped, want.Dropped):
		return fmt.Sprintf("dropped segments are %t, want %t", img.Dropped, want.Dropped)
	}
	return ""
}

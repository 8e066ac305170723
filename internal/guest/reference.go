package guest

import (
	"errors"
	"fmt"
	"unsafe"

	"github.com/mmrun/mmrun/internal/errs"
)

// functionRefs tells which function of the module a raw reference is. Raw references are addresses
// of this process and mean nothing beyond one life of the guest.
type functionRefs struct {
	// byRef has one reference to each function, and on wazero's interpreter there are no others.
	byRef map[uint64]int32
	// byTarget is for wazero's compiler, where each evaluation of ref.func and of a segment's entry
	// makes another reference. What they point to begins with the same two words: the function's
	// machine code and the instance it belongs to. Nil if those words do not tell the module's
	// functions apart, as on the interpreter.
	byTarget map[refTarget]int32
}

type refTarget [2]uintptr

// targetOf reads where a reference leads.
func targetOf(ref uint64) refTarget {
	// Sound because a reference that the guest holds is the address of a structure of wazero's,
	// longer than two words, which lives as long as its instance. By way of a pointer to the
	// address, as wazero does it: an address alone must not be converted.
	return **(**refTarget)(unsafe.Pointer(&ref))
}

// indexOf turns a raw function reference into the index of the function in the module, -1 for null.
func (g *Guest) indexOf(ref uint64) (int32, error) {
	if ref == 0 {
		return -1, nil
	}
	if g.refs == nil {
		refs, err := g.resolveRefs()
		if err != nil {
			return 0, err
		}
		g.refs = refs
	}
	if i, ok := g.refs.byRef[ref]; ok {
		return i, nil
	}
	if g.refs.byTarget != nil {
		if i, ok := g.refs.byTarget[targetOf(ref)]; ok {
			return i, nil
		}
	}
	return 0, errs.As(errs.ErrUnsupported,
		errors.New("a reference to a function of another module cannot be kept"))
}

func (g *Guest) resolveRefs() (*functionRefs, error) {
	refs := &functionRefs{byRef: make(map[uint64]int32), byTarget: make(map[refTarget]int32)}
	imported := int32(g.code.Info.FuncImports)
	get := &helper{name: g.code.Info.Func}
	for i := range int32(g.code.Info.FuncCount) {
		ref, _, err := g.call(get, uint64(i))
		if err != nil {
			return nil, fmt.Errorf("reference of function %d: %w", i, err)
		}
		if _, there := refs.byRef[ref]; !there {
			refs.byRef[ref] = i
		}
		if refs.byTarget == nil {
			continue
		}
		switch _, there := refs.byTarget[targetOf(ref)]; {
		case !there:
			refs.byTarget[targetOf(ref)] = i
		// two imports may be the same function, two functions of the module's own not
		case i >= imported:
			refs.byTarget = nil
		}
	}
	return refs, nil
}

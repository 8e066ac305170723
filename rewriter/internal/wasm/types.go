package wasm

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// Kind is the first byte of a value type, with the numbers of the binary format. A reference to
// functions of one signature is a FuncRef.
type Kind byte

const (
	I32       Kind = 0x7f
	I64       Kind = 0x7e
	F32       Kind = 0x7d
	F64       Kind = 0x7c
	V128      Kind = 0x7b
	FuncRef   Kind = 0x70
	ExternRef Kind = 0x6f
	ExnRef    Kind = 0x69
)

// IsRef says whether k is a reference.
func (k Kind) IsRef() bool { return k == FuncRef || k == ExternRef || k == ExnRef }

func (k Kind) String() string {
	switch k {
	case I32:
		return "i32"
	case I64:
		return "i64"
	case F32:
		return "f32"
	case F64:
		return "f64"
	case V128:
		return "v128"
	case FuncRef:
		return "funcref"
	case ExternRef:
		return "externref"
	case ExnRef:
		return "exnref"
	}
	return fmt.Sprintf("Kind(%#x)", byte(k))
}

// Type is a value type in full: its kind, and for references what that leaves out.
type Type struct {
	Kind     Kind
	NonNull  bool
	Concrete bool   // a reference to functions of the type Index
	Index    uint32 // only if Concrete
}

// Types makes types that are no more than their kinds.
func Types(kinds ...Kind) []Type {
	types := make([]Type, len(kinds))
	for i, k := range kinds {
		types[i].Kind = k
	}
	return types
}

func (t Type) String() string {
	switch {
	case t.Concrete && t.NonNull:
		return fmt.Sprintf("(ref %d)", t.Index)
	case t.Concrete:
		return fmt.Sprintf("(ref null %d)", t.Index)
	case t.NonNull:
		return fmt.Sprintf("non-null %s", t.Kind)
	}
	return t.Kind.String()
}

// Prefixes of reference types that are written out.
const (
	refNullPrefix = 0x63
	refPrefix     = 0x64
)

// Append appends the type as the format writes it.
func (t Type) Append(b []byte) []byte {
	if !t.NonNull && !t.Concrete {
		return append(b, byte(t.Kind))
	}
	prefix := byte(refNullPrefix)
	if t.NonNull {
		prefix = refPrefix
	}
	return t.appendHeap(append(b, prefix))
}

// appendHeap writes what ref.null takes.
func (t Type) appendHeap(b []byte) []byte {
	if !t.Concrete {
		return append(b, byte(t.Kind))
	}
	return AppendS64(b, int64(t.Index))
}

// gcTypes are the type bytes of the garbage collection proposal, and of its kin.
var gcTypes = map[byte]string{
	0x6e: "anyref", 0x6d: "eqref", 0x6c: "i31ref", 0x6b: "structref", 0x6a: "arrayref",
	0x71: "nullref", 0x72: "nullexternref", 0x73: "nullfuncref", 0x74: "nullexnref",
	0x68: "contref", 0x75: "nullcontref",
}

func (r *Reader) valueType() (Type, error) {
	start := r.pos
	b, err := r.byte()
	if err != nil {
		return Type{}, err
	}
	switch Kind(b) {
	case I32, I64, F32, F64, V128, FuncRef, ExternRef, ExnRef:
		return Type{Kind: Kind(b)}, nil
	case refNullPrefix, refPrefix:
		t, err := r.heapType()
		t.NonNull = b == refPrefix
		return t, err
	}
	if name, ok := gcTypes[b]; ok {
		return Type{}, Unsupported(start, "the type %s is not supported", name)
	}
	return Type{}, Malformed(start, "unknown value type %#x", b)
}

func (r *Reader) heapType() (Type, error) {
	start := r.pos
	v, err := r.signed(33)
	if err != nil {
		return Type{}, err
	}
	if v >= 0 {
		if r.bounds != nil && v >= int64(r.bounds[SpaceType]) {
			return Type{}, r.beyond(start, SpaceType, uint64(v))
		}
		return Type{Kind: FuncRef, Concrete: true, Index: uint32(v)}, nil
	}
	if v >= -64 {
		b := byte(v & 0x7f)
		if k := Kind(b); k.IsRef() {
			return Type{Kind: k}, nil
		}
		if name, ok := gcTypes[b]; ok {
			return Type{}, Unsupported(start, "the type %s is not supported", name)
		}
	}
	return Type{}, Malformed(start, "unknown heap type %d", v)
}

// FuncType is the type of a function.
type FuncType struct {
	Params, Results []Type

	// GroupStart is the first type of its recursion group, GroupEnd the one behind its last. Types
	// that are written without a group are each a group of one.
	GroupStart, GroupEnd int
}

// Is says whether the type is params -> results.
func (t *FuncType) Is(params, results []Type) bool {
	return slices.Equal(t.Params, params) && slices.Equal(t.Results, results)
}

func (t *FuncType) String() string { return fmt.Sprintf("%v -> %v", t.Params, t.Results) }

// What an entry of the type section starts with: a recursion group, or a type of a function.
const (
	groupForm = 0x4e
	funcForm  = 0x60
)

var gcForms = map[byte]string{
	0x50: "a subtype", 0x4f: "a final subtype", 0x5f: "a struct", 0x5e: "an array",
	0x5d: "a continuation",
}

func (m *Module) readTypes(r *Reader) error {
	n, err := r.count("types")
	if err != nil {
		return err
	}
	m.typeEntries = n
	m.Types = make([]FuncType, 0, n)
	for range n {
		members := 1
		if r.pos < r.end && r.buf[r.pos] == groupForm {
			r.pos++
			if members, err = r.count("types of a group"); err != nil {
				return err
			}
		}
		start := len(m.Types)
		for range members {
			offset := r.pos
			t, err := r.funcType()
			if err != nil {
				return err
			}
			t.GroupStart, t.GroupEnd = start, start+members
			for _, v := range slices.Concat(t.Params, t.Results) {
				if v.Concrete && uint64(v.Index) >= uint64(t.GroupEnd) {
					return Malformed(offset, "type %d refers to type %d, which comes later",
						len(m.Types), v.Index)
				}
			}
			m.Types = append(m.Types, t)
		}
	}
	return nil
}

func (r *Reader) funcType() (t FuncType, err error) {
	start := r.pos
	form, err := r.byte()
	if err != nil {
		return t, err
	}
	if form != funcForm {
		if name, ok := gcForms[form]; ok {
			return t, Unsupported(start,
				"a type of the module is %s (garbage collection and its kin "+
					"are not supported)", name)
		}
		return t, Malformed(start, "unknown form of type %#x", form)
	}
	if t.Params, err = r.valueTypes("parameters"); err != nil {
		return t, err
	}
	t.Results, err = r.valueTypes("results")
	return t, err
}

func (r *Reader) valueTypes(what string) ([]Type, error) {
	n, err := r.count(what)
	if err != nil || n == 0 {
		return nil, err
	}
	types := make([]Type, n)
	for i := range types {
		if types[i], err = r.valueType(); err != nil {
			return nil, err
		}
	}
	return types, nil
}

// CanonicalTypes gives each type a number that it shares with exactly the types that are the same
// to a runtime: those at the same place of groups that are equal up to the indices of their own
// members.
func CanonicalTypes(types []FuncType) []int {
	ids := make([]int, len(types))
	groups := map[string]int{} // a group, written down -> number of its first type
	var key []byte
	for start := 0; start < len(types); start = types[start].GroupEnd {
		end := types[start].GroupEnd
		key = key[:0]
		for _, t := range types[start:end] {
			key = binary.AppendUvarint(key, uint64(len(t.Params)))
			key = binary.AppendUvarint(key, uint64(len(t.Results)))
			for _, v := range slices.Concat(t.Params, t.Results) {
				flags := byte(0)
				if v.NonNull {
					flags |= 1
				}
				target := 0
				if v.Concrete && int(v.Index) >= start {
					flags, target = flags|2, int(v.Index)-start
				} else if v.Concrete {
					flags, target = flags|4, ids[v.Index]
				}
				key = append(key, byte(v.Kind), flags)
				key = binary.AppendUvarint(key, uint64(target))
			}
		}
		first, ok := groups[string(key)]
		if !ok {
			first = start
			groups[string(key)] = start
		}
		for i := start; i < end; i++ {
			ids[i] = first + i - start
		}
	}
	return ids
}

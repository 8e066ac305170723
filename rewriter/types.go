package rewriter

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// valType is a value type in full: ValType, and for references what it leaves out.
type valType struct {
	kind     ValType
	nonNull  bool
	concrete bool   // a reference to functions of the type index
	index    uint32 // only if concrete
}

func plain(kinds ...ValType) []valType {
	types := make([]valType, len(kinds))
	for i, k := range kinds {
		types[i].kind = k
	}
	return types
}

func (t valType) String() string {
	switch {
	case t.concrete && t.nonNull:
		return fmt.Sprintf("(ref %d)", t.index)
	case t.concrete:
		return fmt.Sprintf("(ref null %d)", t.index)
	case t.nonNull:
		return fmt.Sprintf("non-null %s", t.kind)
	}
	return t.kind.String()
}

// Prefixes of reference types that are written out.
const (
	refNullPrefix = 0x63
	refPrefix     = 0x64
)

func (t valType) append(b []byte) []byte {
	if !t.nonNull && !t.concrete {
		return append(b, byte(t.kind))
	}
	prefix := byte(refNullPrefix)
	if t.nonNull {
		prefix = refPrefix
	}
	return t.appendHeap(append(b, prefix))
}

// appendHeap writes what ref.null takes.
func (t valType) appendHeap(b []byte) []byte {
	if !t.concrete {
		return append(b, byte(t.kind))
	}
	if t.index < 64 {
		return append(b, byte(t.index))
	}
	v := t.index
	for v > 63 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v))
}

// gcTypes are the type bytes of the garbage collection proposal, and of its kin.
var gcTypes = map[byte]string{
	0x6e: "anyref", 0x6d: "eqref", 0x6c: "i31ref", 0x6b: "structref", 0x6a: "arrayref",
	0x71: "nullref", 0x72: "nullexternref", 0x73: "nullfuncref", 0x74: "nullexnref", 0x68: "contref", 0x75: "nullcontref",
}

func (r *reader) valType() (valType, error) {
	start := r.pos
	b, err := r.byte()
	if err != nil {
		return valType{}, err
	}
	switch ValType(b) {
	case I32, I64, F32, F64, V128, FuncRef, ExternRef, ExnRef:
		return valType{kind: ValType(b)}, nil
	case refNullPrefix, refPrefix:
		t, err := r.heapType()
		t.nonNull = b == refPrefix
		return t, err
	}
	if name, ok := gcTypes[b]; ok {
		return valType{}, unsupported(start, "the type %s is not supported", name)
	}
	return valType{}, malformed(start, "unknown value type %#x", b)
}

func (r *reader) heapType() (valType, error) {
	start := r.pos
	v, err := r.signed(33)
	if err != nil {
		return valType{}, err
	}
	if v >= 0 {
		return valType{kind: FuncRef, concrete: true, index: uint32(v)}, nil
	}
	if v >= -64 {
		b := byte(v & 0x7f)
		if t := ValType(b); t.IsRef() {
			return valType{kind: t}, nil
		}
		if name, ok := gcTypes[b]; ok {
			return valType{}, unsupported(start, "the type %s is not supported", name)
		}
	}
	return valType{}, malformed(start, "unknown heap type %d", v)
}

// funcType is an entry of the type section.
type funcType struct {
	params, results []valType

	// first and last of its recursion group, which is of one type unless it is written out
	groupStart, groupEnd int
}

func (t *funcType) is(params, results []valType) bool {
	return slices.Equal(t.params, params) && slices.Equal(t.results, results)
}

func (t *funcType) String() string { return fmt.Sprintf("%v -> %v", t.params, t.results) }

// groupedType is the form byte of a recursion group, the others are forms of types.
const (
	groupForm = 0x4e
	funcForm  = 0x60
)

var gcForms = map[byte]string{0x50: "a subtype", 0x4f: "a final subtype", 0x5f: "a struct", 0x5e: "an array", 0x5d: "a continuation"}

func (m *module) readTypes(r *reader) error {
	n, err := r.count("types")
	if err != nil {
		return err
	}
	m.typeEntries = n
	for range n {
		members := 1
		if r.pos < r.end && r.buf[r.pos] == groupForm {
			r.pos++
			if members, err = r.count("types of a group"); err != nil {
				return err
			}
		}
		start := len(m.types)
		for range members {
			offset := r.pos
			t, err := r.funcType()
			if err != nil {
				return err
			}
			t.groupStart, t.groupEnd = start, start+members
			for _, v := range slices.Concat(t.params, t.results) {
				if v.concrete && uint64(v.index) >= uint64(t.groupEnd) {
					return malformed(offset, "type %d refers to type %d, which comes later", len(m.types), v.index)
				}
			}
			m.types = append(m.types, t)
		}
	}
	return nil
}

func (r *reader) funcType() (t funcType, err error) {
	start := r.pos
	form, err := r.byte()
	if err != nil {
		return t, err
	}
	if form != funcForm {
		if name, ok := gcForms[form]; ok {
			return t, unsupported(start, "a type of the module is %s (garbage collection and its kin are not supported)", name)
		}
		return t, malformed(start, "unknown form of type %#x", form)
	}
	if t.params, err = r.valTypes("parameters"); err != nil {
		return t, err
	}
	t.results, err = r.valTypes("results")
	return t, err
}

func (r *reader) valTypes(what string) ([]valType, error) {
	n, err := r.count(what)
	if err != nil || n == 0 {
		return nil, err
	}
	types := make([]valType, n)
	for i := range types {
		if types[i], err = r.valType(); err != nil {
			return nil, err
		}
	}
	return types, nil
}

// canonicalTypes gives each type a number that it shares with exactly the types that are the same to a runtime: those
// at the same place of groups that are equal up to the indices of their own members.
func canonicalTypes(types []funcType) []int {
	ids := make([]int, len(types))
	groups := map[string]int{} // a group, written down -> number of its first type
	var key []byte
	for start := 0; start < len(types); start = types[start].groupEnd {
		end := types[start].groupEnd
		key = key[:0]
		for _, t := range types[start:end] {
			key = binary.AppendUvarint(key, uint64(len(t.params)))
			key = binary.AppendUvarint(key, uint64(len(t.results)))
			for _, v := range slices.Concat(t.params, t.results) {
				flags := byte(0)
				if v.nonNull {
					flags |= 1
				}
				target := 0
				if v.concrete && int(v.index) >= start {
					flags, target = flags|2, int(v.index)-start
				} else if v.concrete {
					flags, target = flags|4, ids[v.index]
				}
				key = append(key, byte(v.kind), flags)
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

package wasm

import "slices"

// Body is the locals and the code of a function.
type Body struct {
	Code   Code   // with the end that closes it
	Offset int    // of the code in the original module, for messages
	Params uint32 // of the function's type
	Locals uint32 // parameters included
	Has    Has

	raw     span   // as it lies in the module, with its size; empty if a pass has appended it
	runs    uint32 // of locals
	runList []byte // encoded
	edited  bool
}

// Has says which kinds of instructions a function contains.
type Has byte

const (
	HasTableWrite Has = 1 << iota // changes a table
	HasSegment                    // memory.init, data.drop, table.init, elem.drop
	HasStore                      // writes memory
	HasFunc                       // refers to a function by its index
)

// Edit gives the function other code. It must be valid where the old one was.
func (b *Body) Edit(code Code) { b.Code, b.edited = code, true }

// AddLocal appends a local, and returns its index.
func (b *Body) AddLocal(t Type) uint32 {
	b.edited = true
	b.runs++
	b.runList = t.Append(append(b.runList[:len(b.runList):len(b.runList)], 1))
	b.Locals++
	return b.Locals - 1
}

// maxLocals is how many locals a function may have; wazero's compiler needs memory for each.
const maxLocals = 1 << 27

// bodyReader returns a function that reads the bodies of the code section, one with each call.
func (m *Module) bodyReader() func(*Reader) error {
	next := m.importedFuncs()
	return func(r *Reader) error {
		if next >= len(m.Funcs) {
			return Malformed(r.pos, "there are more bodies than functions, which are %d",
				len(m.Funcs))
		}
		b, err := m.readBody(r, m.TypeOf(uint32(next)))
		m.Funcs[next].Body = b
		next++
		return err
	}
}

func (m *Module) readBody(r *Reader, t *FuncType) (*Body, error) {
	b := &Body{Params: uint32(len(t.Params))}
	b.raw.start = r.pos
	size, err := r.u32()
	if err != nil {
		return nil, err
	}
	start := r.pos
	if err := r.skip(size); err != nil {
		return nil, err
	}
	b.raw.end = r.pos
	body := r.part(start, r.pos)
	if err := b.readLocals(body); err != nil {
		return nil, err
	}
	b.Offset = body.pos
	b.Code = r.buf[body.pos:body.end:body.end]
	if r.bounds != nil {
		r.bounds[SpaceLocal] = b.Locals
	}
	return b, body.walk(func(in *Instr) error {
		b.Has |= in.Op.has()
		if in.Op == OpRefFunc && m.declared != nil && !m.declared[in.Index] {
			return Malformed(in.Start,
				"ref.func of function %d, which nothing outside of code refers to",
				in.Index)
		}
		return nil
	})
}

func (b *Body) readLocals(r *Reader) error {
	n, err := r.count("runs of locals")
	if err != nil {
		return err
	}
	first, total := r.pos, uint64(b.Params)
	for range n {
		start := r.pos
		k, err := r.u32()
		if err != nil {
			return err
		}
		if total += uint64(k); total > maxLocals {
			return Unsupported(start, "a function has more than %d locals", maxLocals)
		}
		if _, err := r.valueType(); err != nil {
			return err
		}
	}
	b.Locals, b.runs, b.runList = uint32(total), uint32(n), r.buf[first:r.pos:r.pos]
	return nil
}

func (op Op) has() Has {
	switch op {
	case OpTableSet, OpTableGrow, OpTableFill, OpTableCopy:
		return HasTableWrite
	case OpTableInit:
		return HasTableWrite | HasSegment
	case OpDataDrop, OpElemDrop:
		return HasSegment
	case OpMemoryInit:
		return HasSegment | HasStore
	case OpCall, OpReturnCall, OpRefFunc:
		return HasFunc
	}
	if op.Writes() != NoWrite {
		return HasStore
	}
	return 0
}

// Write is how an instruction writes memory.
type Write byte

const (
	NoWrite    Write = iota
	Store            // of some bytes at an address with an offset
	AtomicRMW        // likewise, behind reading them; cmpxchg may write nothing
	BulkMemory       // memory.fill, memory.copy, memory.init
)

// Writes says how the instruction writes memory.
func (op Op) Writes() Write {
	switch {
	case OpI32Store <= op && op <= OpI64Store32, op == OpV128Store,
		opStore8Lane <= op && op <= opStore64Lane, opAtomicStore <= op && op < opAtomicRMW:
		return Store
	case opAtomicRMW <= op && op <= opAtomicLast:
		return AtomicRMW
	case op == OpMemoryInit, op == OpMemoryCopy, op == OpMemoryFill:
		return BulkMemory
	}
	return NoWrite
}

const (
	opStore8Lane  Op = vecPrefix<<16 | 0x58
	opStore64Lane Op = vecPrefix<<16 | 0x5b
	opAtomicStore Op = atomicPrefix<<16 | 0x17
	opAtomicRMW   Op = atomicPrefix<<16 | 0x1e
	opAtomicLast  Op = atomicPrefix<<16 | 0x4e
)

// LocalTypes are the types of a function's parameters and locals.
func (b *Body) LocalTypes(params []Type) ([]Type, error) {
	types := slices.Clone(params)
	r := NewReader(b.runList)
	for range b.runs {
		k, err := r.u32()
		if err != nil {
			return nil, err
		}
		t, err := r.valueType()
		if err != nil {
			return nil, err
		}
		for range k {
			types = append(types, t)
		}
	}
	return types, nil
}

// SetLocals gives a function other locals behind its parameters.
func (b *Body) SetLocals(types []Type) {
	b.edited = true
	b.runs, b.runList, b.Locals = 0, nil, b.Params+uint32(len(types))
	for i := 0; i < len(types); {
		n := 1
		for i+n < len(types) && types[i+n] == types[i] {
			n++
		}
		b.runList = types[i].Append(AppendU32(b.runList, uint32(n)))
		b.runs++
		i += n
	}
}

package wasm

// ElemMode says what becomes of an element segment at instantiation.
type ElemMode byte

const (
	ElemPassive ElemMode = iota
	ElemActive
	ElemDeclared
)

// ElemSegment is an element segment.
type ElemSegment struct {
	Mode   ElemMode
	Table  uint32 // if active
	Offset Code   // if active: its expression without the end
	Count  int    // entries

	added *addedElem // nil unless a pass has appended it
}

// Bits of the number before an element segment. Without elemHasExprs its entries are function
// indices.
const (
	elemNotActive    = 1
	elemHasTable     = 2 // if active; otherwise: it is declared, not passive
	elemHasExprs     = 4
	elemFlags        = elemNotActive | elemHasTable | elemHasExprs
	elemKindOrType   = elemNotActive | elemHasTable // one of these: a kind or a type is written out
	elemKindFuncs    = 0
	dataPassive      = 1
	dataActiveMemory = 2
)

func (m *Module) readElem(r *Reader) error {
	start := r.pos
	flags, err := r.u32()
	if err != nil {
		return err
	}
	if flags&^elemFlags != 0 {
		return Malformed(start, "unknown flags %#x of an element segment", flags)
	}
	var e ElemSegment
	switch {
	case flags&elemNotActive == 0:
		e.Mode = ElemActive
		if flags&elemHasTable != 0 {
			e.Table, err = r.index(SpaceTable)
		} else if r.bounds != nil && r.bounds[SpaceTable] == 0 {
			err = r.beyond(start, SpaceTable, 0)
		}
		if err != nil {
			return err
		}
		if e.Offset, err = r.constExpr(nil); err != nil {
			return err
		}
	case flags&elemHasTable != 0:
		e.Mode = ElemDeclared
	}
	withExprs := flags&elemHasExprs != 0
	if flags&elemKindOrType != 0 {
		if withExprs {
			_, err = r.valueType()
		} else if kind, readErr := r.byte(); readErr != nil || kind != elemKindFuncs {
			err = Malformed(r.pos, "an element segment must be of functions (0)")
		}
		if err != nil {
			return err
		}
	}
	if e.Count, err = r.count("entries of an element segment"); err != nil {
		return err
	}
	for range e.Count {
		if withExprs {
			_, err = r.constExpr(m.declare)
		} else {
			var f uint32
			if f, err = r.index(SpaceFunc); err == nil {
				m.declare(f)
			}
		}
		if err != nil {
			return err
		}
	}
	m.Elems = append(m.Elems, e)
	return nil
}

// DataSegment is a data segment.
type DataSegment struct {
	Active bool
	Offset Code // if active: its expression without the end
	Bytes  []byte

	raw     span // as it lies in the module
	changed bool
}

// Deactivate makes the segment a passive one of these bytes.
func (d *DataSegment) Deactivate(bytes []byte) {
	d.Active, d.Offset, d.Bytes, d.changed = false, nil, bytes, true
}

func (m *Module) readData(r *Reader) error {
	start := r.pos
	flags, err := r.u32()
	if err != nil {
		return err
	}
	d := DataSegment{Active: flags != dataPassive}
	switch flags {
	case 0, dataPassive:
	case dataActiveMemory:
		memory, err := r.u32()
		if err != nil {
			return err
		}
		if memory != 0 {
			return Unsupported(start, "several memories are not supported (a data segment is for "+
				"memory %d)", memory)
		}
	default:
		return Malformed(start, "unknown flags %#x of a data segment", flags)
	}
	if d.Active {
		if r.bounds != nil && r.bounds[SpaceMemory] == 0 {
			return Malformed(start, "data segment %d is for a memory, there is none", len(m.Data))
		}
		if d.Offset, err = r.constExpr(nil); err != nil {
			return err
		}
	}
	n, err := r.u32()
	if err != nil {
		return err
	}
	bytes := r.pos
	if err := r.skip(n); err != nil {
		return err
	}
	d.Bytes = r.buf[bytes:r.pos:r.pos]
	d.raw = span{start, r.pos}
	m.Data = append(m.Data, d)
	return nil
}

// constExpr reads a constant expression with its end, and returns it without. It tells declare of
// each function that the expression refers to.
func (r *Reader) constExpr(declare func(uint32)) (Code, error) {
	start := r.pos
	var in Instr
	for {
		if err := r.instr(&in); err != nil {
			return nil, err
		}
		switch in.Op {
		case OpEnd:
			return r.buf[start:in.Start:in.Start], nil
		case OpRefFunc:
			if declare != nil {
				declare(in.Index)
			}
		case OpI32Const, OpI64Const, OpF32Const, OpF64Const, OpV128Const, OpGlobalGet, OpRefNull,
			OpI32Add, OpI32Sub, OpI32Mul, OpI64Add, OpI64Sub, OpI64Mul:
		default:
			return nil, Malformed(in.Start, "%s in a constant expression", in.Op)
		}
	}
}

// Constant evaluates an expression that is one i32.const.
func (c Code) Constant() (uint32, bool) {
	var in Instr
	r := NewReader(c)
	if err := r.instr(&in); err != nil || in.Op != OpI32Const || r.left() > 0 {
		return 0, false
	}
	return uint32(in.Value), true
}

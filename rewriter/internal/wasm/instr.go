package wasm

// Instr is one decoded instruction.
type Instr struct {
	Op         Op
	Start, End int // offsets in the code that was walked

	// Index is the first immediate that is an index, Index2 the second one: of call_indirect a type
	// and a table, of memory.init a data segment and a memory, of table.init an element segment and
	// a table, of table.copy destination and source.
	Index, Index2 uint32

	Align  uint32    // of an access to memory, as a power of 2
	Offset uint32    // of an access to memory
	Value  int64     // of i32.const and i64.const
	Block  BlockType // of block, loop, if, try and try_table
}

// BlockType is the type of a block: a type of the type section, one result, or nothing.
type BlockType struct {
	Indexed bool
	Index   uint32
	Result  Type // if not Indexed; of kind 0 if there is none
}

// Walk decodes the instructions of code up to the end that closes them, which must be its last
// byte, and calls fn with each. The Instr is reused between calls.
func Walk(code Code, fn func(*Instr) error) error { return NewReader(code).walk(fn) }

func (r *Reader) walk(fn func(*Instr) error) error {
	var in Instr
	depth := uint32(1) // labels: of the blocks that are open, and of the function
	for {
		if r.bounds != nil {
			r.bounds[SpaceLabel] = depth
		}
		if err := r.instr(&in); err != nil {
			return err
		}
		switch in.Op {
		case OpBlock, OpLoop, OpIf, OpTry, OpTryTable:
			depth++
		case OpEnd, OpDelegate: // delegate closes its try
			depth--
		}
		if err := fn(&in); err != nil {
			return err
		}
		if depth == 0 {
			if r.pos != r.end {
				return Malformed(r.pos, "%d bytes after the end of a function", r.left())
			}
			if in.Op != OpEnd {
				return Malformed(in.Start, "%s without a try", in.Op)
			}
			return nil
		}
	}
}

// instr decodes the next instruction.
func (r *Reader) instr(in *Instr) error {
	in.Start = r.pos
	in.Index, in.Index2 = 0, 0
	b, err := r.byte()
	if err != nil {
		return err
	}
	in.Op = Op(b)
	info := &plainOps[b]
	if info.imm == immPrefix {
		sub, err := r.u32()
		if err != nil {
			return err
		}
		// wazero looks at the first byte of vector and atomic instructions only, which reads the
		// same as long as their numbers are written as short as possible. What it runs and what is
		// decoded here must not differ.
		if b != miscPrefix && (sub < 0x80 && r.pos != in.Start+2 || r.pos > in.Start+3) {
			return Unsupported(in.Start,
				"the number of a vector or atomic instruction is not written "+
					"in its shortest form")
		}
		ops := prefixedOps[b]
		if sub >= uint32(len(ops)) || ops[sub].imm == immUnknown {
			return Unsupported(in.Start, "the instruction %#x %d is not known", b, sub)
		}
		in.Op = Op(b)<<16 | Op(sub)
		info = &ops[sub]
	}
	if info.imm != immNone {
		if err := r.immediates(in, info); err != nil {
			return err
		}
	}
	in.End = r.pos
	return nil
}

func (r *Reader) immediates(in *Instr, info *opInfo) (err error) {
	switch info.imm {
	case immUnknown:
		return Unsupported(in.Start, "the instruction %#x is not known", uint32(in.Op))
	case immRefused:
		return Unsupported(in.Start, "the instruction %s is not supported", info.name)
	case immLocal:
		in.Index, err = r.index(SpaceLocal)
	case immGlobal:
		in.Index, err = r.index(SpaceGlobal)
	case immFunc:
		in.Index, err = r.index(SpaceFunc)
	case immTable:
		in.Index, err = r.index(SpaceTable)
	case immType:
		in.Index, err = r.index(SpaceType)
	case immTag:
		in.Index, err = r.index(SpaceTag)
	case immLabel:
		in.Index, err = r.index(SpaceLabel)
	case immElem:
		in.Index, err = r.index(SpaceElem)
	case immData:
		in.Index, err = r.index(SpaceData)
	case immTypeTable:
		return r.indices(in, SpaceType, SpaceTable)
	case immTableTable:
		return r.indices(in, SpaceTable, SpaceTable)
	case immElemTable:
		return r.indices(in, SpaceElem, SpaceTable)
	case immDataMemory:
		if in.Index, err = r.index(SpaceData); err == nil {
			err = r.memory(info.name)
		}
	case immMemory:
		err = r.memory(info.name)
	case immMemory2:
		if err = r.memory(info.name); err == nil {
			err = r.memory(info.name)
		}
	case immMemArg, immMemArgLane:
		if err = r.memArg(in, info); err == nil && info.imm == immMemArgLane {
			err = r.skip(1)
		}
	case immI32:
		in.Value, err = r.signed(32)
	case immI64:
		in.Value, err = r.signed(64)
	case immByte:
		err = r.skip(1)
	case imm4Bytes:
		err = r.skip(4)
	case imm8Bytes:
		err = r.skip(8)
	case imm16Bytes:
		err = r.skip(16)
	case immBlockType:
		in.Block, err = r.blockType()
	case immHeapType:
		_, err = r.heapType()
	case immLabels:
		err = r.labels(func(uint32) {})
	case immTypes:
		_, err = r.valueTypes("types of a select")
	case immCatches:
		if in.Block, err = r.blockType(); err == nil {
			err = r.catches()
		}
	}
	return err
}

func (r *Reader) indices(in *Instr, first, second Space) (err error) {
	if in.Index, err = r.index(first); err == nil {
		in.Index2, err = r.index(second)
	}
	return err
}

func (r *Reader) memArg(in *Instr, info *opInfo) (err error) {
	if in.Align, err = r.u32(); err != nil {
		return err
	}
	if in.Align&0x40 != 0 {
		return Unsupported(in.Start, "several memories are not supported (%s names one)", info.name)
	}
	if r.bounds != nil && r.bounds[SpaceMemory] == 0 {
		return Malformed(in.Start, "%s needs a memory, the module has none", info.name)
	}
	in.Offset, err = r.u32()
	return err
}

func (r *Reader) blockType() (b BlockType, err error) {
	if r.pos < r.end {
		switch first := r.buf[r.pos]; {
		case first == noValue:
			r.pos++
			return b, nil
		case first < 0x40 || first >= 0x80: // index of a type
			start := r.pos
			v, err := r.signed(33)
			switch {
			case err != nil:
				return b, err
			case v < 0:
				// wazero takes it for one byte, which may have more behind it.
				return b, Unsupported(start,
					"the type of a block is not written in its shortest form")
			case r.bounds != nil && v >= int64(r.bounds[SpaceType]):
				return b, r.beyond(start, SpaceType, uint64(v))
			}
			return BlockType{Indexed: true, Index: uint32(v)}, nil
		}
	}
	b.Result, err = r.valueType()
	return b, err
}

func (r *Reader) labels(see func(label uint32)) error {
	n, err := r.count("labels")
	if err != nil {
		return err
	}
	for range n + 1 { // the last one is the default
		label, err := r.index(SpaceLabel)
		if err != nil {
			return err
		}
		see(label)
	}
	return nil
}

func (r *Reader) catches() error {
	n, err := r.count("catch clauses")
	if err != nil {
		return err
	}
	for range n {
		kind, err := r.byte()
		if err != nil {
			return err
		}
		switch kind {
		case 0, 1:
			_, err = r.index(SpaceTag)
		case 2, 3:
		default:
			err = Malformed(r.pos-1, "unknown catch clause %#x", kind)
		}
		if err != nil {
			return err
		}
		if _, err := r.index(SpaceLabel); err != nil {
			return err
		}
	}
	return nil
}

// Labels calls see with each label of a br_table.
func Labels(instr Code, see func(label uint32)) error {
	r := NewReader(instr)
	r.pos++
	return r.labels(see)
}

// CatchLabels calls see with the label of each clause of a try_table, as it counts in front of it.
func CatchLabels(instr Code, see func(label uint32)) error {
	r := NewReader(instr)
	r.refs = func(ref *indexRef) {
		if ref.space == SpaceLabel {
			see(ref.index)
		}
	}
	r.pos++
	if _, err := r.blockType(); err != nil {
		return err
	}
	return r.catches()
}

// RenumberCatches is a try_table with other labels in its clauses.
func RenumberCatches(instr Code, label func(uint32) uint32) Code {
	p := patch{from: instr, out: []byte{}}
	r := NewReader(instr)
	r.refs = func(ref *indexRef) {
		if ref.space == SpaceLabel {
			p.out = AppendU32(append(p.out, instr[p.copied:ref.start]...), label(ref.index))
			p.copied = ref.end
		}
	}
	r.pos++
	if _, err := r.blockType(); err != nil {
		panic(err) // it has been read before
	}
	if err := r.catches(); err != nil {
		panic(err)
	}
	return p.upTo(len(instr))
}

// NullType is the type of what ref.null gives.
func NullType(instr Code) Type {
	r := NewReader(instr)
	r.pos++
	t, err := r.heapType()
	if err != nil {
		panic(err) // it has been read before
	}
	return t
}

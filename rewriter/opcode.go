package rewriter

// instr is one decoded instruction.
type instr struct {
	op         opcode
	start, end int // offsets in the module

	// index is the first immediate that is an index or a lane; index2 the second one (call_indirect: type, table;
	// memory.init, table.init: segment, memory or table; memory.copy, table.copy: destination, source).
	// With a memory argument they are its alignment and its offset.
	index, index2 uint32
}

// walk decodes the instructions in r up to the end that closes them, which must be the last byte of r, and calls fn with
// each. The instr is reused between calls.
func walk(r *reader, fn func(*instr) error) error {
	var in instr
	depth := 0
	for {
		if err := r.instr(&in); err != nil {
			return err
		}
		switch in.op {
		case opBlock, opLoop, opIf, opTry, opTryTable:
			depth++
		case opEnd, opDelegate: // delegate closes its try
			depth--
		}
		if err := fn(&in); err != nil {
			return err
		}
		if depth < 0 {
			if r.pos != r.end {
				return malformed(r.pos, "%d bytes after the end of a function", r.left())
			}
			if in.op != opEnd {
				return malformed(in.start, "%s without a try", in.op)
			}
			return nil
		}
	}
}

// instr decodes the next instruction.
func (r *reader) instr(in *instr) error {
	in.start = r.pos
	in.index, in.index2 = 0, 0
	b, err := r.byte()
	if err != nil {
		return err
	}
	in.op = opcode(b)
	info := &plainOps[b]
	if info.imm == immPrefix {
		sub, err := r.u32()
		if err != nil {
			return err
		}
		// wazero looks at the first byte of vector and atomic instructions only, which reads the same as long as
		// their numbers are written as short as possible. What it runs and what is decoded here must not differ.
		if b != miscPrefix && (sub < 0x80 && r.pos != in.start+2 || r.pos > in.start+3) {
			return unsupported(in.start, "the number of a vector or atomic instruction is not written in its shortest form")
		}
		ops := prefixedOps[b]
		if sub >= uint32(len(ops)) || ops[sub].imm == immUnknown {
			return unsupported(in.start, "the instruction %#x %d is not known", b, sub)
		}
		in.op = opcode(b)<<16 | opcode(sub)
		info = &ops[sub]
	}
	if info.imm == immNone {
		in.end = r.pos
		return nil
	}
	if err := r.immediates(in, info); err != nil {
		return err
	}
	in.end = r.pos
	return nil
}

func (r *reader) immediates(in *instr, info *opInfo) (err error) {
	switch info.imm {
	case immUnknown:
		return unsupported(in.start, "the instruction %#x is not known", uint32(in.op))
	case immRefused:
		return unsupported(in.start, "the instruction %s is not supported", info.name)
	case immIndex:
		in.index, err = r.u32()
	case immIndex2:
		if in.index, err = r.u32(); err == nil {
			in.index2, err = r.u32()
		}
	case immMemory:
		if in.index, err = r.u32(); err == nil && in.index != 0 {
			err = unsupported(in.start, "several memories are not supported (%s on memory %d)", info.name, in.index)
		}
	case immMemArg, immMemArgLane:
		if err = r.memArg(in, info); err == nil && info.imm == immMemArgLane {
			err = r.skip(1)
		}
	case immByte:
		err = r.skip(1)
	case immI32:
		_, err = r.signed(32)
	case immI64:
		_, err = r.signed(64)
	case imm4Bytes:
		err = r.skip(4)
	case imm8Bytes:
		err = r.skip(8)
	case imm16Bytes:
		err = r.skip(16)
	case immBlockType:
		err = r.blockType()
	case immHeapType:
		_, err = r.heapType()
	case immLabels:
		err = r.labels()
	case immTypes:
		_, err = r.valTypes("types of a select")
	case immCatches:
		if err = r.blockType(); err == nil {
			err = r.catches()
		}
	}
	return err
}

func (r *reader) memArg(in *instr, info *opInfo) (err error) {
	if in.index, err = r.u32(); err != nil {
		return err
	}
	if in.index&0x40 != 0 {
		return unsupported(in.start, "several memories are not supported (%s names one)", info.name)
	}
	in.index2, err = r.u32()
	return err
}

func (r *reader) blockType() error {
	if r.pos < r.end {
		switch b := r.buf[r.pos]; {
		case b == 0x40: // no value
			r.pos++
			return nil
		case b < 0x40 || b >= 0x80: // index of a type
			_, err := r.signed(33)
			return err
		}
	}
	_, err := r.valType()
	return err
}

func (r *reader) labels() error {
	n, err := r.count("labels")
	if err != nil {
		return err
	}
	for range n + 1 { // the last one is the default
		if _, err := r.u32(); err != nil {
			return err
		}
	}
	return nil
}

func (r *reader) catches() error {
	n, err := r.count("catch clauses")
	if err != nil {
		return err
	}
	for range n {
		kind, err := r.byte()
		if err != nil {
			return err
		}
		indices := 1 // a label
		switch kind {
		case 0, 1:
			indices = 2 // a tag and a label
		case 2, 3:
		default:
			return malformed(r.pos-1, "unknown catch clause %#x", kind)
		}
		for range indices {
			if _, err := r.u32(); err != nil {
				return err
			}
		}
	}
	return nil
}

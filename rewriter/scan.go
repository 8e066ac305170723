package rewriter

// site is an instruction that changes a table or drops a segment.
type site struct {
	body   int // index into module.bodies
	offset int // of the instruction in the module
	op     opcode
	index  uint32 // of the table or segment
}

// usage is what the module's code does to its tables and segments.
type usage struct {
	sites []site // in the order of the code

	changesTable []bool // by table
	readsData    []bool // memory.init, by data segment
	dropsData    []bool
	readsElem    []bool // table.init, by element segment
	dropsElem    []bool
}

// scan walks all of the code once.
func (m *module) scan() (*usage, error) {
	u := &usage{
		changesTable: make([]bool, len(m.tables)),
		readsData:    make([]bool, len(m.data)), dropsData: make([]bool, len(m.data)),
		readsElem: make([]bool, len(m.elems)), dropsElem: make([]bool, len(m.elems)),
	}
	for i, body := range m.bodies {
		r := &reader{buf: m.wasm, pos: body.start, end: body.end}
		if err := r.locals(); err != nil {
			return nil, err
		}
		if err := walk(r, func(in *instr) error { return u.see(in, i) }); err != nil {
			return nil, err
		}
	}
	return u, nil
}

func (r *reader) locals() error {
	n, err := r.count("runs of locals")
	if err != nil {
		return err
	}
	for range n {
		if _, err := r.u32(); err != nil {
			return err
		}
		if _, err := r.valType(); err != nil {
			return err
		}
	}
	return nil
}

func (u *usage) see(in *instr, body int) error {
	switch in.op {
	case opTableSet, opTableGrow, opTableFill, opTableCopy: // table.copy: the destination comes first
		return u.mark(in, body, u.changesTable, in.index, "table", true)
	case opTableInit:
		if err := u.mark(in, body, u.readsElem, in.index, "element segment", false); err != nil {
			return err
		}
		return u.mark(in, body, u.changesTable, in.index2, "table", true)
	case opElemDrop:
		return u.mark(in, body, u.dropsElem, in.index, "element segment", true)
	case opMemoryInit:
		return u.mark(in, body, u.readsData, in.index, "data segment", false)
	case opDataDrop:
		return u.mark(in, body, u.dropsData, in.index, "data segment", true)
	}
	return nil
}

func (u *usage) mark(in *instr, body int, set []bool, index uint32, what string, isSite bool) error {
	if uint64(index) >= uint64(len(set)) {
		return malformed(in.start, "%s on %s %d, there are %d", in.op, what, index, len(set))
	}
	set[index] = true
	if isSite {
		u.sites = append(u.sites, site{body: body, offset: in.start, op: in.op, index: index})
	}
	return nil
}

package rewriter

import "github.com/mmrun/mmrun/rewriter/internal/wasm"

// site is an instruction that changes a table or drops a segment.
type site struct {
	function uint32
	offset   int // of the instruction in the function's code
	op       wasm.Op
	index    uint32 // of the table or segment
}

// changedTable is the table that the instruction changes, if it is not one that drops a segment.
func (s *site) changedTable() (uint32, bool) {
	return s.index, s.op != wasm.OpDataDrop && s.op != wasm.OpElemDrop
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

// usageOf looks through the functions that can change a table or use a segment.
func usageOf(m *wasm.Module) (*usage, error) {
	u := &usage{
		changesTable: make([]bool, len(m.Tables)),
		readsData:    make([]bool, len(m.Data)), dropsData: make([]bool, len(m.Data)),
		readsElem: make([]bool, len(m.Elems)), dropsElem: make([]bool, len(m.Elems)),
	}
	for i := range m.Funcs {
		b := m.Funcs[i].Body
		if b == nil || b.Has&(wasm.HasTableWrite|wasm.HasSegment) == 0 {
			continue
		}
		err := wasm.Walk(b.Code, func(in *wasm.Instr) error {
			u.see(in, uint32(i))
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return u, nil
}

func (u *usage) see(in *wasm.Instr, function uint32) {
	site := site{function: function, offset: in.Start, op: in.Op, index: in.Index}
	switch in.Op {
	case wasm.OpTableSet, wasm.OpTableGrow, wasm.OpTableFill, wasm.OpTableCopy:
		u.changesTable[in.Index] = true // of table.copy the destination comes first
	case wasm.OpTableInit:
		u.readsElem[in.Index] = true
		u.changesTable[in.Index2] = true
		site.index = in.Index2
	case wasm.OpElemDrop:
		u.dropsElem[in.Index] = true
	case wasm.OpDataDrop:
		u.dropsData[in.Index] = true
	case wasm.OpMemoryInit:
		u.readsData[in.Index] = true
		return
	default:
		return
	}
	u.sites = append(u.sites, site)
}

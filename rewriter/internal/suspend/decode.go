package suspend

import (
	"github.com/mmrun/mmrun/rewriter/internal/wasm"
)

// instr is one instruction of a function; those that cannot be reached are left out.
type instr struct {
	op            wasm.Op
	start, end    int
	index, index2 uint32
	block         wasm.BlockType
	mate          int // block, loop, if, try_table: its end. else, end: what it closes
	other         int // if: its else, -1 if there is none
	site          int // number of the site, -1 if it is none; blocks: how many are in it
	first         int // blocks: the first site in it
	label         int // of a region: which one ends here
}

// saved is a local that goes into a frame.
type saved struct {
	local uint32
	typ   wasm.Type
}

// site is a call at which the function can be left.
type site struct {
	op    int
	live  bitset // locals of the function that are read behind it
	kept  bitset // and those that the arguments are made of when it is called again
	slots []slot // operands that are saved
}

// slot is an operand on the stack, by its height.
type slot struct {
	height int
	typ    wasm.Type
}

// function is one that can be left.
type function struct {
	p       *pass
	index   uint32
	code    wasm.Code
	results []wasm.Type
	params  int
	locals  []wasm.Type // parameters first
	ops     []instr
	sites   []site
}

func isCall(op wasm.Op) bool { return wasm.OpCall <= op && op <= wasm.OpReturnCallRf }

func isBlock(op wasm.Op) bool {
	return op == wasm.OpBlock || op == wasm.OpLoop || op == wasm.OpIf || op == wasm.OpTryTable
}

// ends tells whether nothing behind the instruction is reached from it.
func ends(op wasm.Op) bool {
	switch op {
	case wasm.OpUnreachable, wasm.OpBr, wasm.OpReturn, wasm.OpBrTable, wasm.OpThrow,
		wasm.OpThrowRef,
		wasm.OpReturnCall, wasm.OpReturnCallIn, wasm.OpReturnCallRf:
		return true
	}
	return false
}

// decode reads the function's instructions.
func (f *function) decode(offset int) error {
	var open []int
	dead := -1 // blocks that were opened in dead code, -1 if it is alive
	return wasm.Walk(f.code, func(in *wasm.Instr) error {
		if dead >= 0 {
			switch {
			case isBlock(in.Op), in.Op == wasm.OpTry:
				dead++
				return nil
			case in.Op == wasm.OpEnd && dead > 0:
				dead--
				return nil
			case in.Op == wasm.OpEnd, in.Op == wasm.OpElse && dead == 0:
				dead = -1
			default:
				return nil
			}
		}
		o := instr{op: in.Op, start: in.Start, end: in.End, index: in.Index, index2: in.Index2,
			block: in.Block, mate: -1, other: -1, site: -1, label: -1}
		at := len(f.ops)
		switch {
		case isBlock(in.Op):
			open = append(open, at)
			o.site, o.first = 0, len(f.sites)
		case in.Op == wasm.OpTry, in.Op == wasm.OpDelegate, in.Op == wasm.OpCatch,
			in.Op == wasm.OpCatchAll, in.Op == wasm.OpRethrow:
			return wasm.Unsupported(offset+in.Start, "legacy exceptions")
		case in.Op == wasm.OpElse:
			o.mate = open[len(open)-1]
			f.ops[o.mate].other = at
		case in.Op == wasm.OpEnd && len(open) > 0:
			o.mate = open[len(open)-1]
			b := &f.ops[o.mate]
			b.mate, b.site = at, len(f.sites)-b.first
			open = open[:len(open)-1]
		case isCall(in.Op) && f.p.canLeave(in):
			o.site = len(f.sites)
			f.sites = append(f.sites, site{op: at})
		}
		if ends(in.Op) {
			dead = 0
		}
		f.ops = append(f.ops, o)
		return nil
	})
}

// labels are those of a br_table, or of the clauses of a try_table as they count in front of it.
func (f *function) labels(o *instr) (labels []uint32) {
	see := func(l uint32) { labels = append(labels, l) }
	var err error
	if o.op == wasm.OpBrTable {
		err = wasm.Labels(f.code[o.start:o.end], see)
	} else {
		err = wasm.CatchLabels(f.code[o.start:o.end], see)
	}
	if err != nil {
		panic(err) // it has been read before
	}
	return labels
}

// blockType says what a block takes and gives.
func (f *function) blockType(at int) (params, results []wasm.Type) {
	switch b := f.ops[at].block; {
	case b.Indexed:
		t := &f.p.m.Types[b.Index]
		return t.Params, t.Results
	case b.Result.Kind == 0:
		return nil, nil
	default:
		return nil, []wasm.Type{b.Result}
	}
}

// bitset is a set of locals.
type bitset []uint64

func (b bitset) set(i uint32)   { b[i>>6] |= 1 << (i & 63) }
func (b bitset) clear(i uint32) { b[i>>6] &^= 1 << (i & 63) }
func (b bitset) or(c bitset) (changed bool) {
	for i, w := range c {
		if w&^b[i] != 0 {
			b[i] |= w
			changed = true
		}
	}
	return changed
}
func (b bitset) clone() bitset { return append(bitset(nil), b...) }

// liveFrame is a block that liveness is in, seen from its end.
type liveFrame struct {
	op    int
	after bitset // what is alive at its label
	other bitset // at the begin of its else
	throw bitset // wherever an exception may lead, nil outside of a try_table
}

// liveness finds which locals are alive behind each site: backwards, until loops do not change any
// more.
func (f *function) liveness() {
	words := (len(f.locals) + 63) / 64
	loops := make(map[int]bitset)
	for i := range f.sites {
		f.sites[i].live = make(bitset, words)
	}
	for changed := true; changed; {
		changed = false
		cur, none := make(bitset, words), make(bitset, words)
		stack := []liveFrame{{op: -1, after: none}}
		label := func(depth uint32) bitset { return stack[len(stack)-1-int(depth)].after }
		for i := len(f.ops) - 1; i >= 0; i-- {
			o := &f.ops[i]
			top := &stack[len(stack)-1]
			switch o.op {
			case wasm.OpEnd:
				if o.mate < 0 {
					break
				}
				fr := liveFrame{op: o.mate, after: cur.clone(), throw: top.throw}
				b := &f.ops[o.mate]
				if b.op == wasm.OpLoop {
					if loops[o.mate] == nil {
						loops[o.mate] = make(bitset, words)
					}
					fr.after = loops[o.mate]
				}
				if b.op == wasm.OpTryTable {
					t := make(bitset, words)
					if fr.throw != nil {
						t.or(fr.throw)
					}
					for _, l := range f.labels(b) {
						t.or(label(l))
					}
					fr.throw = t
				}
				stack = append(stack, fr)
			case wasm.OpElse:
				top.other = cur.clone()
				copy(cur, top.after)
			case wasm.OpBlock, wasm.OpTryTable:
				stack = stack[:len(stack)-1]
			case wasm.OpLoop:
				changed = loops[i].or(cur) || changed
				stack = stack[:len(stack)-1]
			case wasm.OpIf:
				if top.other != nil {
					cur.or(top.other)
				} else {
					cur.or(top.after)
				}
				stack = stack[:len(stack)-1]
			case wasm.OpBr:
				copy(cur, label(o.index))
			case wasm.OpBrIf, wasm.OpBrOnNull, wasm.OpBrOnNonNull:
				cur.or(label(o.index))
			case wasm.OpBrTable:
				clear(cur)
				for _, l := range f.labels(o) {
					cur.or(label(l))
				}
			case wasm.OpReturn, wasm.OpUnreachable, wasm.OpReturnCall, wasm.OpReturnCallIn,
				wasm.OpReturnCallRf:
				clear(cur)
			case wasm.OpLocalGet:
				cur.set(o.index)
			case wasm.OpLocalSet, wasm.OpLocalTee:
				cur.clear(o.index)
			case wasm.OpThrow, wasm.OpThrowRef:
				clear(cur)
				if top.throw != nil {
					cur.or(top.throw)
				}
			case wasm.OpCall, wasm.OpCallIndirect, wasm.OpCallRef:
				if top.throw != nil {
					cur.or(top.throw)
				}
			}
			if o.site >= 0 && isCall(o.op) {
				copy(f.sites[o.site].live, cur)
			}
		}
	}
}

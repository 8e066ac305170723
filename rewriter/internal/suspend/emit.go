package suspend

import (
	"fmt"

	"github.com/mmrun/mmrun/rewriter/internal/wasm"
)

// The slow version of a function is the fast one with places where it can be entered. wasm has no
// jump into the middle of blocks; so the function is cut into regions, one for its body and one for
// each loop and try_table that has sites in it. At the begin of a region all places in it that can
// be gone to are labels: each site, each region inside, and the ends of the blocks and ifs on the
// way, whose begins are moved to the begin of the region. That is allowed because operands below
// such a block wait in temporary locals, and because no code before it can name its label. A region
// begins with a table that goes to the site that the frame names, or to the region that the site is
// in.

// operand is a value on the stack.
type operand struct {
	typ    wasm.Type
	parked bool // it waits in its temporary
	// A leaf is a constant, or what a local holds, whose instruction ends right where the next one
	// begins: it is made anew instead of being saved.
	leaf       bool
	start, end int   // of its instruction in out
	local      int64 // that it reads, -1: none
}

// region is one that is open.
type region struct {
	// what each label's block is: the op of the block whose end closes it, -1: no result
	labels  []int
	closed  int // labels
	targets []target
	first   int       // site in it
	out     wasm.Code // what was written before it
	loop    bool      // it is not the function's body
}

// target is what the table of a region leads to.
type target struct {
	lo, hi int // sites
	label  int
	direct bool // it is a site itself, not a region
}

// kind of a block that is open.
type kind byte

const (
	body     kind = iota // of the function
	verbatim             // as it was
	hoisted              // a block or if whose begin was moved
	inner                // a loop or try_table with a region of its own
)

// frame is a block that is open.
type frame struct {
	kind            kind
	op              int
	label, elseAt   int // hoisted: labels in the region
	height          int // of the stack below its parameters
	parked          int // from here up to height operands wait for its end
	params, results []wasm.Type
}

// version writes one version of a function.
type version struct {
	*function
	locals  []wasm.Type // with those that were added
	temps   map[slot]uint32
	at      uint32 // slow: a local for the site to go to
	fast    bool
	twin    uint32
	out     wasm.Code
	stack   []operand
	frames  []frame
	regions []*region
}

func (f *function) version(fast bool, twin uint32) *version {
	v := &version{function: f, fast: fast, twin: twin, temps: make(map[slot]uint32),
		locals: append([]wasm.Type(nil), f.locals...)}
	if !fast {
		v.at = v.addLocal(wasm.Type{Kind: wasm.I32})
	}
	return v
}

func (v *version) addLocal(t wasm.Type) uint32 {
	v.locals = append(v.locals, t)
	return uint32(len(v.locals) - 1)
}

// temp is the local in which an operand waits.
func (v *version) temp(height int, t wasm.Type) uint32 {
	t.NonNull = false // a local must have a value
	key := slot{height, t}
	l, ok := v.temps[key]
	if !ok {
		l = v.addLocal(t)
		v.temps[key] = l
	}
	return l
}

func (v *version) op(op wasm.Op, immediates ...uint32) { v.out = v.out.Op(op, immediates...) }
func (v *version) block(op wasm.Op)                    { v.out = v.out.Block(op, wasm.NoValue) }
func (v *version) raw(o *instr) {
	v.out = append(v.out,
		v.code[o.start:o.end]...)
}

func (v *version) push(types ...wasm.Type) {
	for _, t := range types {
		v.stack = append(v.stack, operand{typ: t})
	}
}

func (v *version) pushKind(k wasm.Kind) { v.push(wasm.Type{Kind: k}) }
func (v *version) pop(n int)            { v.stack = v.stack[:len(v.stack)-n] }
func (v *version) region() *region      { return v.regions[len(v.regions)-1] }
func (v *version) top() *operand        { return &v.stack[len(v.stack)-1] }

// spill moves operands from a height on into their temporaries.
func (v *version) spill(from int) {
	for h := len(v.stack) - 1; h >= from; h-- {
		v.op(wasm.OpLocalSet, v.temp(h, v.stack[h].typ))
	}
}

// reload brings operands back on the stack.
func (v *version) reload(from, to int) {
	for h := from; h < to; h++ {
		v.op(wasm.OpLocalGet, v.temp(h, v.stack[h].typ))
		if v.stack[h].typ.NonNull {
			v.op(wasm.OpRefAsNonNull)
		}
		v.stack[h].leaf = false
	}
}

// onStack is the height from which on operands are on the stack and not parked.
func (v *version) onStack() int {
	h := len(v.stack)
	for h > 0 && !v.stack[h-1].parked {
		h--
	}
	return h
}

// park leaves what is below a height in temporaries, and the rest on the stack.
func (v *version) park(height int) (from int) {
	if from = v.onStack(); from >= height {
		return height
	}
	v.spill(from)
	v.reload(height, len(v.stack))
	for h := from; h < height; h++ {
		v.stack[h].parked = true
	}
	return from
}

// unpark brings back what park left, below the operands from height on.
func (v *version) unpark(from, height int) {
	if from == height {
		return
	}
	v.spill(height)
	for h := from; h < height; h++ {
		v.stack[h].parked = false
	}
	v.reload(from, len(v.stack))
}

// depth is the label of a block that is open as seen from here.
func (v *version) depth(i int) uint32 {
	n, ri := 0, len(v.regions)-1
	for j := len(v.frames) - 1; ; j-- {
		f, r := &v.frames[j], v.regions[ri]
		switch f.kind {
		case verbatim:
			if i == j {
				return uint32(n)
			}
			n++
		case hoisted:
			if i == j {
				return uint32(n + f.label - r.closed)
			}
		default:
			n += len(r.labels) - r.closed
			if i == j {
				return uint32(n)
			}
			n++
			ri--
		}
	}
}

// label is a label of the original code as it is here.
func (v *version) label(l uint32) uint32 { return v.depth(len(v.frames) - 1 - int(l)) }

// openRegion begins the region of the block at an op, -1 for the function's body.
func (v *version) openRegion(at, end int) {
	r := &region{out: v.out}
	v.out = nil
	if at >= 0 {
		r.first, r.loop = v.ops[at].first, true
	}
	add := func(o *instr, what int) {
		o.label = len(r.labels)
		r.labels = append(r.labels, what)
	}
	for i := at + 1; i < end; i++ {
		o := &v.ops[i]
		switch {
		case isCall(o.op) && o.site >= 0:
			r.targets = append(r.targets, target{o.site, o.site + 1, len(r.labels), true})
			add(o, -1)
		case (o.op == wasm.OpLoop || o.op == wasm.OpTryTable) && o.site > 0:
			r.targets = append(r.targets, target{o.first, o.first + o.site, len(r.labels), false})
			add(o, -1)
			i = o.mate
		case isBlock(o.op) && o.site == 0:
			i = o.mate // nothing of the region is in it
		case o.op == wasm.OpElse:
			add(o, -1)
		case o.op == wasm.OpEnd && o.mate >= 0:
			if b := &v.ops[o.mate]; b.op == wasm.OpIf && b.other < 0 {
				add(b, -1) // of the else that it does not have
			}
			add(o, o.mate)
		}
	}
	v.regions = append(v.regions, r)
}

func (v *version) closeRegion() error {
	r := v.region()
	code := v.out
	v.out = r.out
	if r.closed != len(r.labels) {
		return fmt.Errorf("%d of %d labels are closed", r.closed, len(r.labels))
	}
	for j := len(r.labels) - 1; j >= 0; j-- {
		var results []wasm.Type
		if r.labels[j] >= 0 {
			_, results = v.blockType(r.labels[j])
		}
		switch v.op(wasm.OpBlock); len(results) {
		case 0:
			v.out = append(v.out, byte(wasm.NoValue))
		case 1:
			v.out = results[0].Append(v.out)
		default:
			v.out = wasm.AppendS64(v.out, int64(v.p.m.TypeIndex(nil, results)))
		}
	}
	v.dispatch(r)
	v.out = append(v.out, code...)
	v.regions = v.regions[:len(v.regions)-1]
	return nil
}

// dispatch begins a region: if the function is on its way back, it goes where its frame says.
func (v *version) dispatch(r *region) {
	if len(r.targets) == 0 {
		return
	}
	direct := 0
	for _, t := range r.targets {
		if t.direct {
			direct++
		}
	}
	v.block(wasm.OpBlock) // out of it: nothing is to be gone back to
	if r.loop {
		v.op(wasm.OpLocalGet, v.at)
	} else {
		v.op(wasm.OpGlobalGet, v.p.state)
	}
	v.op(wasm.OpI32Eqz)
	v.op(wasm.OpBrIf, 0)
	for range direct + 1 {
		v.block(wasm.OpBlock)
	}
	if r.loop {
		v.op(wasm.OpLocalGet, v.at)
	} else {
		v.out = v.out.I32(int32(v.index))
		v.op(wasm.OpCall, v.p.pop)
		v.op(wasm.OpLocalTee, v.at)
	}
	v.out = v.out.I32(int32(r.first + 1)) // sites count from 1: 0 is none
	v.op(wasm.OpI32Sub)
	last := r.targets[len(r.targets)-1].hi
	v.op(wasm.OpBrTable, uint32(last-r.first))
	stub := 0
	for _, t := range r.targets {
		for range t.hi - t.lo {
			if t.direct {
				v.out = wasm.AppendU32(v.out, uint32(1+stub))
			} else {
				v.out = wasm.AppendU32(v.out, uint32(1+direct+1+t.label))
			}
		}
		if t.direct {
			stub++
		}
	}
	v.out = wasm.AppendU32(v.out, 0)
	v.op(wasm.OpEnd)
	v.op(wasm.OpUnreachable) // a frame with a site that there is not
	stub = 0
	for _, t := range r.targets {
		if !t.direct {
			continue
		}
		v.op(wasm.OpEnd)
		v.restore(v.saved(&v.sites[t.lo]))
		v.out = v.out.I32(0)
		v.op(wasm.OpLocalSet, v.at)
		v.op(wasm.OpBr, uint32(direct-1-stub+1+t.label))
		stub++
	}
	v.op(wasm.OpEnd)
}

// run writes the version.
func (v *version) run() error {
	v.frames = []frame{{kind: body, op: -1, results: v.results}}
	end := len(v.ops) - 1
	if v.fast {
		v.regions = append(v.regions, &region{})
		v.op(wasm.OpGlobalGet, v.p.state)
		v.block(wasm.OpIf)
		for i := range v.params {
			v.op(wasm.OpLocalGet, uint32(i))
		}
		v.op(wasm.OpCall, v.twin)
		v.op(wasm.OpReturn)
		v.op(wasm.OpEnd)
	} else {
		v.openRegion(-1, end)
	}
	dead := false
	for i := 0; i < end; i++ {
		o := &v.ops[i]
		var err error
		switch {
		case isBlock(o.op):
			err = v.begin(i, o)
		case o.op == wasm.OpElse:
			err = v.otherwise(o, dead)
		case o.op == wasm.OpEnd:
			err = v.finish(o, dead)
		case isCall(o.op) && o.site >= 0:
			err = v.call(o)
		default:
			err = v.plain(o)
		}
		if err != nil {
			return err
		}
		dead = ends(o.op)
	}
	if dead {
		v.op(wasm.OpUnreachable)
	} else {
		v.op(wasm.OpReturn)
	}
	if !v.fast {
		if err := v.closeRegion(); err != nil {
			return err
		}
	}
	v.op(wasm.OpEnd)
	return nil
}

// begin writes the begin of a block.
func (v *version) begin(i int, o *instr) error {
	params, results := v.blockType(i)
	fr := frame{kind: verbatim, op: i, params: params, results: results}
	if o.op == wasm.OpIf {
		v.pop(1)
	}
	fr.height = len(v.stack) - len(params)
	fr.parked = fr.height
	switch {
	case v.fast:
		v.settle(o)
		v.open(o)
	case o.site == 0:
		v.open(o)
	case o.op == wasm.OpBlock:
		fr.kind = hoisted
		fr.parked = v.park(fr.height)
		fr.label = v.ops[o.mate].label
	case o.op == wasm.OpIf:
		v.hoistIf(o, &fr)
	default:
		fr.kind = inner
		r := v.region()
		if o.label != r.closed {
			return fmt.Errorf("label %d of a loop, %d are closed", o.label, r.closed)
		}
		from := v.onStack()
		v.spill(from)
		v.op(wasm.OpEnd)
		r.closed++
		v.reload(fr.height, len(v.stack))
		fr.parked = min(from, fr.height)
		for h := fr.parked; h < fr.height; h++ {
			v.stack[h].parked = true
		}
		v.open(o)
	}
	for h := range v.stack {
		v.stack[h].leaf = false
	}
	v.frames = append(v.frames, fr)
	if fr.kind == inner {
		// The parameters are kept aside over the table.
		v.spill(fr.height)
		v.openRegion(i, o.mate)
		v.reload(fr.height, len(v.stack))
	}
	return nil
}

// open writes the begin of a block as it was.
func (v *version) open(o *instr) {
	if o.op == wasm.OpTryTable {
		v.out = append(v.out, wasm.RenumberCatches(v.code[o.start:o.end], v.label)...)
		return
	}
	v.raw(o)
}

// settle is for the fast version: what a site inside of the block may have to save of the operands
// below it is in temporaries, as in the other version.
func (v *version) settle(o *instr) {
	if o.site == 0 || len(v.stack) == 0 {
		return
	}
	condition := uint32(0)
	if o.op == wasm.OpIf {
		condition = v.temp(len(v.stack), wasm.Type{Kind: wasm.I32})
		v.op(wasm.OpLocalSet, condition)
	}
	from := v.frames[len(v.frames)-1].height
	v.spill(from)
	v.reload(from, len(v.stack))
	if o.op == wasm.OpIf {
		v.op(wasm.OpLocalGet, condition)
	}
}

// hoistIf writes an if whose begin was moved as a branch over its then.
func (v *version) hoistIf(o *instr, fr *frame) {
	fr.kind, fr.label, fr.elseAt = hoisted, v.ops[o.mate].label, o.label
	if o.other >= 0 {
		fr.elseAt = v.ops[o.other].label
	}
	n := len(v.stack)
	from := v.onStack()
	if from < n {
		v.pushKind(wasm.I32) // the condition lies on top
		v.spill(from)
		v.pop(1)
		v.op(wasm.OpLocalGet, v.temp(n, wasm.Type{Kind: wasm.I32}))
	}
	fr.parked = min(from, fr.height)
	for h := fr.parked; h < fr.height; h++ {
		v.stack[h].parked = true
	}
	v.op(wasm.OpI32Eqz)
	v.op(wasm.OpBrIf, uint32(fr.elseAt-v.region().closed))
	v.reload(fr.height, n)
}

// leave ends an arm of a hoisted if; the label of the next one ends here.
func (v *version) leave(fr *frame, label int, dead bool) error {
	r := v.region()
	if dead {
		v.op(wasm.OpUnreachable)
	} else {
		v.op(wasm.OpBr, uint32(fr.label-r.closed))
	}
	if label != r.closed {
		return fmt.Errorf("label %d of an else, %d are closed", label, r.closed)
	}
	v.op(wasm.OpEnd)
	r.closed++
	v.stack = v.stack[:fr.height]
	v.push(fr.params...)
	v.reload(fr.height, len(v.stack))
	return nil
}

func (v *version) otherwise(o *instr, dead bool) error {
	fr := &v.frames[len(v.frames)-1]
	if fr.kind == hoisted {
		return v.leave(fr, o.label, dead)
	}
	v.op(wasm.OpElse)
	v.stack = v.stack[:fr.height]
	v.push(fr.params...)
	return nil
}

func (v *version) finish(o *instr, dead bool) error {
	fr := v.frames[len(v.frames)-1]
	b := &v.ops[fr.op]
	if fr.kind == hoisted && b.op == wasm.OpIf && b.other < 0 {
		if err := v.leave(&fr, b.label, dead); err != nil {
			return err
		}
	}
	switch fr.kind {
	case verbatim:
		v.op(wasm.OpEnd)
	case hoisted:
		r := v.region()
		if o.label != r.closed {
			return fmt.Errorf("label %d of an end, %d are closed", o.label, r.closed)
		}
		v.op(wasm.OpEnd)
		r.closed++
	case inner:
		if err := v.closeRegion(); err != nil {
			return err
		}
		v.op(wasm.OpEnd)
	}
	v.frames = v.frames[:len(v.frames)-1]
	v.stack = v.stack[:fr.height]
	v.push(fr.results...)
	if fr.kind != verbatim {
		v.unpark(fr.parked, fr.height)
	}
	return nil
}

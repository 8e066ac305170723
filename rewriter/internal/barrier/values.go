package barrier

import "github.com/mmrun/mmrun/rewriter/internal/wasm"

// origin names a value that cannot be told by computing: a parameter, the result of a load or a
// call, what two paths give at once. Origins are numbered in the order in which the code makes
// them. Number 0 is the constant 0.
type origin uint32

// value is what is known of an i32 on the stack, in a local or in a global: an origin plus a
// constant, in arithmetic modulo 2^32.
type value struct {
	origin origin
	plus   uint32
}

func (v value) add(n uint32) value { return value{v.origin, v.plus + n} }

// entry is one entry of the operand stack.
type entry struct {
	value
	// end is where the instruction ends that has left the entry on top of the stack, -1 if it was
	// not on top then.
	end int
}

// state is what is known at a place in a function.
type state struct {
	stack   []entry
	locals  []value
	globals map[uint32]value // of which the value is known since the last call
	groups  []*group         // checks that every path to here has made
}

func (s *state) clone() *state {
	c := &state{
		stack:  append([]entry(nil), s.stack...),
		locals: append([]value(nil), s.locals...),
		groups: append([]*group(nil), s.groups...),
	}
	if len(s.globals) > 0 {
		c.globals = make(map[uint32]value, len(s.globals))
		for k, v := range s.globals {
			c.globals[k] = v
		}
	}
	return c
}

// frame is an open block.
type frame struct {
	op      wasm.Op
	height  int // of the stack below the parameters
	params  int
	results int
	entry   *state // of if: for its else
	merged  *state // what holds on all branches to its end so far, nil if there are none
	forked  bool   // a branch from inside leads to its end
	loop    *loop
}

// loop is what a loop, or the body of a try_table, does somewhere in it.
type loop struct {
	start   int             // of the instruction
	assigns map[uint32]bool // locals
	sets    map[uint32]bool // globals
	calls   bool

	locals  []value // on entry
	globals map[uint32]value
	first   origin   // what was made before is the same in each turn
	hoisted []*group // checks that are made before it
	outer   *loop    // the innermost one around it
}

package rewriter

import (
	"fmt"

	"github.com/mmrun/mmrun/rewriter/internal/wasm"
)

// Info is what a host needs to know of a rewritten module to keep and resume its state. Names are
// names of exports of the rewritten module. An empty name means that there is no such export.
type Info struct {
	// Memory is nil if the module has no memory.
	Memory *Memory `json:"memory,omitempty"`

	// Globals holds each mutable global of the module, by ascending index.
	Globals []Global `json:"globals,omitempty"`

	// Tables holds each table that the module's code can change, by ascending index. All other
	// tables are the same after each instantiation.
	Tables []Table `json:"tables,omitempty"`

	// TablesChanged names a mutable i32 global that is not 0 if any of Tables may have changed
	// since the host last set it to 0. Empty if Tables is.
	TablesChanged string `json:"tablesChanged,omitempty"`

	// Func names a function (i32) -> (funcref) that gives the reference to the function with that
	// index, from 0 to FuncCount-1. There if a table or a global of the state holds function
	// references: they are kept as function indices, and comparing a reference with these tells the
	// index. Mind that a runtime may have many references to one function (wazero's compiler makes
	// a new one each time it evaluates ref.func), so that what they point to may have to be
	// compared instead of themselves.
	Func string `json:"func,omitempty"`

	// FuncCount is the number of functions of the module before the rewrite, imported ones first. 0
	// if Func is empty.
	FuncCount uint32 `json:"funcCount,omitempty"`

	// FuncImports is how many of them are imported. Two of these may be the same function, two of
	// the others never are. 0 if Func is empty.
	FuncImports uint32 `json:"funcImports,omitempty"`

	// Segments holds each data and element segment for which it makes a difference to the code
	// whether it has been dropped, and whose being dropped does not follow from instantiation.
	Segments []Segment `json:"segments,omitempty"`

	// Init names a function () -> () that checks that active element segments fit into their
	// tables, and writes the active data segments. On the first run it is called right after
	// instantiation, when memory is all zeros. It traps where instantiation should have failed, and
	// nowhere else.
	Init string `json:"init,omitempty"`

	// Start names the start function, () -> (). On the first run it is called after Init.
	Start string `json:"start,omitempty"`

	// Initialize says that the module exports a function _initialize of type () -> (). On the first
	// run it is called after Start.
	Initialize bool `json:"initialize,omitempty"`

	// Barrier is there if the guest tells which pages of its memory it writes.
	Barrier *Barrier `json:"barrier,omitempty"`

	// Suspend is there if the program can be left in the middle of its calls.
	Suspend *Suspend `json:"suspend,omitempty"`
}

// Suspend is what it takes to leave a program and to come back to it. All three name mutable
// globals, i32.
//
// To leave: in an import that waits, the host keeps a range of the memory aside, sets SP to its
// begin, Limit to its end and State to 1, and returns anything. When the program's entry has
// returned, the frames are what lies from that begin to SP; the host puts the range back and sets
// State to 0. A range that is too short makes the program trap meanwhile. To come back, to any
// instance of the same module with the same state: the host keeps a range aside, puts the frames
// there, sets SP and Limit to their end and State to 1, and calls the entry. In the import, which
// is called again with its arguments, SP is at the begin of the range: the host puts the range back
// and sets State to 0.
type Suspend struct {
	State string `json:"state"` // 0 unless the program is being left or come back to
	SP    string `json:"sp"`
	Limit string `json:"limit"`
	// Calls counts the calls of imports that wait: what asks the host several times is one call.
	Calls string `json:"calls"`
	Sites int    `json:"sites"` // calls at which functions can be left
}

// Barrier is what tells which pages of 4 KiB the module's code has written since it was last told
// to forget. It tells of no page too few, and of some that were not written: those that code was
// about to write when it trapped, or that a loop would have written. It knows nothing of what a
// host writes. Pages are indices; some may lie behind the end of the memory.
type Barrier struct {
	// Count names a global, an i32: how many pages there are. Up to len(Pages) they are in those;
	// one more stands for any larger number; -1 says that they are not known.
	Count string `json:"count"`
	// Pages name mutable globals, i32: the first pages, in the order in which they were written.
	Pages []string `json:"pages"`
	// Next names a function (i32) -> (i32) that gives the first page at or behind one, -1 for none.
	Next string `json:"next"`
	// Forget names a function () -> () after which there are no pages. It must not be called while
	// code of the module is on the stack.
	Forget string `json:"forget"`
	// Host names a global, an i32: how often the code has called a function of the host since
	// Forget that may have written anything. What functions of WASI write is among the pages.
	Host string `json:"host"`
	// Active names a global, an i32: which of those calls the code is in, by that count. 0 is none,
	// or one that cannot be told.
	Active string `json:"active"`
	// Foreign names a mutable global, an i32, to be set to 1 if what the module imports as
	// functions of WASI may be others: of those it is not known what they write.
	Foreign string `json:"foreign"`
	// HostHidden says that it may have done so without Host telling: by reference.
	HostHidden bool `json:"hostHidden,omitempty"`
}

// Memory is the limits of the module's only memory, in wasm pages of 64 KiB.
type Memory struct {
	Min    uint32 `json:"min"`
	Max    uint32 `json:"max,omitempty"` // at most 65536; 0 if HasMax is false
	HasMax bool   `json:"hasMax,omitempty"`
}

// Global is a mutable global that the module defines.
type Global struct {
	Index uint32  `json:"index"`
	Type  ValType `json:"type"`

	// Name is for people: from the name section, else the name under which the module itself
	// exports it, else empty.
	Name string `json:"name,omitempty"`

	// Export is never empty: the module's own name for it, else mmrun:global:INDEX. It is enough to
	// read and write I32, I64, F32 and F64. What a runtime gives for other types through an
	// exported global depends on the runtime.
	Export string `json:"export"`

	// Getter is () -> (i64 low, i64 high) for V128, () -> (funcref) for FuncRef, else empty.
	Getter string `json:"getter,omitempty"`

	// Setter is (i64 low, i64 high) -> () for V128, (i32 function index) -> () for FuncRef, else
	// empty. Function index -1 is null; it traps if the global's type has no null.
	Setter string `json:"setter,omitempty"`

	// IsNull is () -> (i32), 1 if the global is null, for ExternRef and ExnRef, else empty. A
	// reference that is not null comes from the host and cannot be kept.
	IsNull string `json:"isNull,omitempty"`
}

// Table is a table that the module defines and that its code can change.
type Table struct {
	Index  uint32  `json:"index"`
	Type   ValType `json:"type"` // FuncRef, ExternRef or ExnRef
	Min    uint32  `json:"min"`  // entries right after instantiation
	Max    uint32  `json:"max,omitempty"`
	HasMax bool    `json:"hasMax,omitempty"`

	// Size is () -> (i32), the number of entries.
	Size string `json:"size"`

	// Grow is (i32 delta, i32 function index) -> (i32). The new entries get the reference to that
	// function, null if it is -1. The result is the former size, or -1. The function index must be
	// -1 unless Type is FuncRef.
	Grow string `json:"grow"`

	// Get is (i32 position) -> (funcref). Only for FuncRef.
	Get string `json:"get,omitempty"`

	// Set is (i32 position, i32 function index) -> (); function index -1 is null. Only for FuncRef.
	Set string `json:"set,omitempty"`

	// AllNull is () -> (i32), 1 if all entries are null. Only for ExternRef and ExnRef, which
	// cannot be kept otherwise.
	AllNull string `json:"allNull,omitempty"`
}

// Segment is a data or element segment.
type Segment struct {
	Kind  SegmentKind `json:"kind"`
	Index uint32      `json:"index"`

	// Dropped names a mutable i32 global: 1 if the segment has been dropped, else 0. Reading it is
	// all a commit needs.
	Dropped string `json:"dropped"`

	// Drop is () -> (): it drops the segment and sets Dropped.
	Drop string `json:"drop"`
}

// SegmentKind tells data segments from element segments.
type SegmentKind byte

const (
	DataSegment SegmentKind = 1
	ElemSegment SegmentKind = 2
)

// String gives the word for it that names of exports use.
func (k SegmentKind) String() string {
	switch k {
	case DataSegment:
		return "data"
	case ElemSegment:
		return "elem"
	}
	return fmt.Sprintf("SegmentKind(%d)", byte(k))
}

// MarshalText makes String's words of it in JSON.
func (k SegmentKind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (k *SegmentKind) UnmarshalText(text []byte) error {
	return unmarshalText(k, text, DataSegment, ElemSegment)
}

// unmarshalText sets v to the one of known that has this name.
func unmarshalText[T fmt.Stringer](v *T, text []byte, known ...T) error {
	for _, k := range known {
		if k.String() == string(text) {
			*v = k
			return nil
		}
	}
	return fmt.Errorf("%q is none of %v", text, known)
}

// ValType is the type of a value, with the numbers of the binary format. A reference to functions
// of one signature is a FuncRef.
type ValType byte

const (
	I32       = ValType(wasm.I32)
	I64       = ValType(wasm.I64)
	F32       = ValType(wasm.F32)
	F64       = ValType(wasm.F64)
	V128      = ValType(wasm.V128)
	FuncRef   = ValType(wasm.FuncRef)
	ExternRef = ValType(wasm.ExternRef)
	ExnRef    = ValType(wasm.ExnRef)
)

// IsRef says whether t is a reference.
func (t ValType) IsRef() bool { return wasm.Kind(t).IsRef() }

// String gives the type's name in the text format.
func (t ValType) String() string { return wasm.Kind(t).String() }

// MarshalText makes String's words of it in JSON.
func (t ValType) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (t *ValType) UnmarshalText(text []byte) error {
	return unmarshalText(t, text, I32, I64, F32, F64, V128, FuncRef, ExternRef, ExnRef)
}

// Package rewriter turns a WebAssembly module into one whose whole state can be read from outside,
// kept, and put back into a fresh instance. It maps bytes to bytes and knows no WebAssembly
// runtime.
//
// Between two calls a module's state is its linear memory, its mutable globals, the content of its
// tables and the set of its segments that have been dropped. A host can reach memory by itself. For
// the rest the module gets additional exports, all under the reserved prefix "mmrun:". What would
// happen again at each instantiation but must happen only once in the life of a state (active data
// segments, the start function) becomes functions that the host calls when the state is new, and
// only then.
//
// # Passes
//
// A rewrite decodes the module, runs passes over it, and encodes it. Options say which; persist
// always runs. A pass only appends to index spaces and edits functions, and knows of other passes
// no more than what they have left in the module. A last custom section, "mmrun", says which passes
// ran, and holds the Info.
//
// What the pass persist does:
//
//	section    | what is added, behind what was there
//	-----------+------------------------------------------------------------------------------------
//	type       | signatures of the functions below that are not there yet
//	import     | -
//	function   | the functions below
//	table      | a table of all functions, if a function reference can be part of the state
//	memory     | -
//	tag        | -
//	global     | mmrun:tables:changed, mmrun:data:N:dropped, mmrun:elem:N:dropped (i32 flags); a
//	           | constant for each offset of a data segment that is not a number
//	export     | mmrun:global:N for each mutable global that has no export; the flags; the functions
//	start      | removed; its function is exported as mmrun:start
//	element    | one active segment that fills the table of all functions
//	data count | added if it is missing and mmrun:init needs it
//	code       | bodies of mmrun:init and of the functions that read and write globals, tables and
//	           | segments; a flag is set before each instruction that changes a table or drops a
//	           | segment
//	data       | active segments are passive now; neighbours may be joined to one behind the others
//	custom     | -
//
// Everything else is copied byte for byte: custom sections in their places, functions that the
// table above does not name as they are. Indices in an Info are those of the module as it was, also
// where a pass that imports functions has moved the others.
//
// # First run and resume
//
// The same rewritten binary serves both:
//
//	first run: instantiate, mmrun:init, mmrun:start, _initialize
//	resume:    instantiate, grow memory, set globals, tables and dropped segments
//
// # What is refused
//
// A module whose state lives outside of it (imported memory, imported mutable globals, imported
// tables that it changes), shared memory, several memories, 64-bit memories and tables, a memory of
// 65536 wasm pages, types and instructions of proposals that are not known here, and one that has
// been rewritten already: *UnsupportedError. Bytes that are no module, and indices of what the
// module does not have: *FormatError with the offset.
//
// Rewrite checks no types: that is left to the runtime, which finds in the result what it would
// have found in the module. Rewrite itself looks at all that its additions would hide: each index
// in the module's code and segments is one of the module's own, so that none of its code reaches
// what was added, and what the runtime refuses as it is it refuses rewritten.
package rewriter

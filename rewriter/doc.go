// Package rewriter turns a WebAssembly module into one whose whole state can be read from outside, kept, and put
// back into a fresh instance. It maps bytes to bytes and knows no WebAssembly runtime.
//
// Between two calls a module's state is its linear memory, its mutable globals, the content of its tables and the
// set of its segments that have been dropped. A host can reach memory by itself. For the rest the module gets
// additional exports, all under the reserved prefix "mmrun:". What would happen again at each instantiation but must
// happen only once in the life of a state (active data segments, the start function) becomes functions
// that the host calls when the state is new, and only then.
//
//	section    | what is added, always behind what was there, so that no index moves
//	-----------+--------------------------------------------------------------------------------------------
//	type       | signatures of the functions below that are not there yet
//	import     | -
//	function   | the functions below
//	table      | a table of all functions, if a function reference can be part of the state
//	memory     | -
//	tag        | -
//	global     | mmrun:tables:changed, mmrun:data:N:dropped, mmrun:elem:N:dropped (i32 flags)
//	export     | mmrun:global:N for each mutable global that has no export; the flags; the functions
//	start      | removed; its function is exported as mmrun:start
//	element    | one active segment that fills the table of all functions
//	data count | added if it is missing and mmrun:init needs it
//	code       | bodies of mmrun:init and of the functions that read and write globals, tables and segments;
//	           | a flag is set before each instruction that changes a table or drops a segment
//	data       | active segments are passive now; neighbours may be joined to one behind the others
//	custom     | copied byte for byte, each in its place; a last one, "mmrun", says that this has been done
//
// Everything else is copied byte for byte. If the code can neither change a table nor drop a segment that it also
// reads, the bodies of its functions are copied as they are.
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
// A module whose state lives outside of it (imported memory, imported mutable globals, imported tables that it
// changes), shared memory, several memories, 64-bit memories and tables, a memory of 65536 wasm pages, types and
// instructions of proposals that are not known here: *UnsupportedError. Bytes that are no module: *FormatError with
// the offset. Rewrite is no validator, though: a well-formed module that breaks a typing rule comes out as one that
// breaks it too.
package rewriter

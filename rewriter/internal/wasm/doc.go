// Package wasm decodes WebAssembly modules, lets passes append to them and edit their functions,
// and encodes them again. It is no validator, but it checks every index: none that a decoded module
// contains reaches beyond what the module itself defines, whatever passes append later.
//
// # Indices
//
// A pass appends functions, tables, globals and so on behind those that are there, and imports of
// functions likewise. All indices that passes see and write, in Module and in Code, count in that
// order: those of the original module stay what they are, whatever is appended. In the binary
// format imports come first, so if a pass has imported a function, Encode renumbers:
//
//	before encoding      0..i-1            i..n-1             n..
//	                     own imports       own functions      appended, imports and others mixed
//
//	encoded              0..i-1            i..i+k-1           i+k..
//	                     own imports       appended imports   own functions, other appended ones
//
// If no import was appended, nothing is renumbered.
//
// # What stays
//
// Encode copies byte for byte what no pass has touched: whole sections, the entries of sections
// that were only appended to, functions that were not edited, custom sections at their places.
// Renumbering changes the indices of functions wherever they occur, the name section included, and
// nothing else.
package wasm

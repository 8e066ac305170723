// Package lab measures mmrun against what one would use instead of it.
//
// The contestants run the same guest (testdata/stores.wat), which writes to raw pages and counts
// its calls in a private global. They differ in what they do to keep its state:
//
//	Plain     wazero alone: nothing is kept
//	State     mmrun, in continuous or atomic mode
//	Snapshot  the whole memory and all globals are written to files after each event
//
// The benchmarks (go test -bench) print what benchstat reads. Package ratios lets the
// contestants take turns inside one process and checks the ratios that mmrun claims.
//
// A memory is "untouched" when it has its size and nothing else: almost all of its pages are
// holes of the file. It is "touched" when each page has been written once, those bytes have
// reached the file, and each page has been read since, so that all of the memory is mapped.
package lab

// Package realguests runs modules under mmrun that nobody wrote for it: SQLite, QuickJS, Lua, Go's
// runtime, AssemblyScript and Rust. It has tests and benchmarks only, and a go.mod of its own, so
// that what it needs stays out of mmrun's.
//
// Each guest works through a list of events and is killed with SIGKILL in the middle of them,
// several times. What it answers is a weak check: memory that is wrong may never be asked for. So
// the whole state, memory and globals and tables, is hashed before and after each event and must
// equal, byte for byte, that of a twin which ran the same events on plain wazero without mmrun and
// without interruption. For that, clocks and randomness are functions of the event's number.
//
// The Lua guest comes from npm: run scripts/fetch-realguests.sh once. Without it its tests are
// skipped, or fail if MMRUN_REALGUESTS is "all".
package realguests

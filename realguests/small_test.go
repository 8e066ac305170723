package realguests

import (
	"strconv"
	"testing"

	"github.com/tetratelabs/wazero"

	"github.com/mmrun/mmrun/internal/testkit/guests"
)

// calls is an event that calls a function several times with the numbers from first on, as an
// argument or two, and then another one for the answer.
func calls(function string, params, first, n uint64, answer, want string,
	answerParams ...uint64) event {
	return event{func(s *session) (string, error) {
		for i := range n {
			s.call(function, []uint64{first + i, (first + i) * 7}[:params]...)
		}
		return strconv.FormatInt(int64(s.call(answer, answerParams...)), 10), nil
	}, want}
}

func answer(function, want string, params ...uint64) event {
	return calls("", 0, 0, 0, function, want, params...)
}

func load(name string) func(testing.TB) []byte {
	return func(tb testing.TB) []byte { return guests.Load(tb, name) }
}

// goGuest is Go's own runtime: a map, a goroutine that waits between events, a garbage collector.
func goGuest() *guest {
	return &guest{
		name: "go",
		wasm: func(tb testing.TB) []byte { return guests.Go(tb, "gomap") },
		events: []event{
			calls("put", 2, 0, 1000, "length", "1000"),
			answer("count", "5", 5),
			answer("count", "12", 7),
			calls("bulk", 1, 20000, 1, "length", "20000"),
			calls("del", 1, 0, 5000, "length", "15000"),
			answer("count", "22", 10),
			calls("gc", 0, 0, 1, "length", "15000"),
			calls("put", 2, 100000, 3000, "length", "18000"),
			answer("count", "23", 1),
			answer("checksum", ""),
			calls("gc", 0, 0, 3, "count", "23", 0),
			calls("del", 1, 6000, 9000, "length", "9000"),
			answer("get", "700000", 100000),
			answer("checksum", ""),
		},
		small: func(s *session, i uint64) { s.call("put", i%20000, i) },
	}
}

// assemblyScriptGuest has a runtime of its own, with a garbage collector, many globals and a start
// function.
func assemblyScriptGuest() *guest {
	return &guest{
		name: "assemblyscript",
		wasm: func(tb testing.TB) []byte { return readFile(tb, "testdata/words.wasm") },
		host: func(rt wazero.Runtime, _ *world) error {
			return hostModule(rt, "env", map[string]string{"abort": "iiii:"}, nil)
		},
		events: []event{
			answer("starts", "1"),
			calls("add", 1, 0, 2000, "size", "2000"),
			calls("remove", 1, 500, 700, "size", "1300"),
			calls("collect", 0, 0, 1, "size", "1300"),
			calls("add", 1, 400, 5000, "size", "5400"),
			answer("checksum", ""),
			calls("collect", 0, 0, 2, "starts", "1"),
			calls("remove", 1, 0, 5000, "size", "400"),
			calls("add", 1, 100000, 100, "size", "500"),
			answer("checksum", ""),
			answer("random", ""),
		},
		small: func(s *session, i uint64) { s.call("add", i%5000) },
	}
}

// rustKVGuest is Rust for wasm32-unknown-unknown: hash map, B-tree, allocator.
func rustKVGuest() *guest {
	return &guest{
		name: "rust_kv",
		wasm: load("rust_kv"),
		events: []event{
			calls("put", 2, 0, 3000, "len", "3000"),
			calls("del", 1, 1000, 1500, "len", "1500"),
			calls("put", 2, 500, 4000, "len", "4500"),
			answer("checksum", ""),
			calls("put", 2, 0, 50, "get", "280", 40),
			calls("del", 1, 0, 4400, "len", "100"),
			calls("put", 2, 1<<40, 2000, "len", "2100"),
			answer("checksum", ""),
		},
		small: func(s *session, i uint64) { s.call("put", i%4000, i) },
	}
}

// rustWASIGuest is Rust for WASI: a reactor that prints, and leaves half a line in its buffer from
// event to event.
func rustWASIGuest() *guest {
	return &guest{
		name: "rust_wasi",
		wasm: load("rust_wasi"),
		events: []event{
			calls("push", 1, 1, 100, "sum", "5050"),
			calls("print_part", 1, 77, 1, "len", "100"),
			calls("push", 1, 1, 2000, "len", "2100"),
			calls("print_part", 1, 1, 3, "len", "2100"),
			calls("flush", 0, 0, 1, "at", "100", 99),
			calls("print_part", 1, 5, 1, "len", "2100"),
			calls("push", 1, 9, 1, "at", "9", 2100),
			answer("sum", ""),
		},
		small: func(s *session, i uint64) { s.call("push", i) },
	}
}

// counterGuest has a global and no memory at all.
func counterGuest() *guest {
	g := &guest{name: "counter", wasm: load("counter"), small: func(s *session,
		_ uint64) {
		s.call("inc")
	}}
	for i := range 8 {
		g.events = append(g.events, answer("inc", strconv.Itoa(i+1)))
	}
	return g
}

package realguests

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/mmrun/mmrun"
)

// guest is a module and what it is made to do.
type guest struct {
	name   string
	wasm   func(testing.TB) []byte
	host   func(wazero.Runtime, *world) error // what it imports apart from WASI; may be nil
	events []event
	// one of many small events, after all the others; for benchmarks
	small func(s *session, i uint64)
}

// event is a step of a guest's work, event 1 being the first. Its answer must be want, if that is
// not empty, and always that of the twin.
type event struct {
	do   func(*session) (answer string, err error)
	want string
}

// guests, in the order of the benchmark table.
func allGuests() []*guest {
	return []*guest{sqliteGuest(), quickJSGuest(), luaGuest(), goGuest(), assemblyScriptGuest(),
		rustKVGuest(), rustWASIGuest(), counterGuest()}
}

// tx is what a guest's events see of an instance: a *mmrun.Tx, or a twin.
type tx interface {
	Call(ctx context.Context, name string, params ...uint64) ([]uint64, error)
	Memory() api.Memory
	Module() api.Module
	Meta() []byte
	SetMeta([]byte)
}

var _ tx = (*mmrun.Tx)(nil)

// session is one event at work, with helpers that keep the first error.
type session struct {
	tx
	world *world
	err   error
}

var ctx = context.Background()

// run does event number n on an instance and returns its answer, with what it has printed.
func (g *guest) run(w *world, n uint64, t tx) (string, error) {
	w.begin(n)
	e := g.events[n-1]
	s := &session{tx: t, world: w}
	answer, err := e.do(s)
	if err == nil {
		err = s.err
	}
	if err != nil {
		return "", fmt.Errorf("%s: event %d: %w", g.name, n, err)
	}
	if e.want != "" && answer != e.want {
		return "", fmt.Errorf("%s: event %d: it answered %q, want %q", g.name, n, answer, e.want)
	}
	return answer + w.printed(), nil
}

// call calls a function and returns its first result.
func (s *session) call(name string, params ...uint64) uint64 {
	if s.err != nil {
		return 0
	}
	results, err := s.Call(ctx, name, params...)
	if err != nil {
		s.err = err
	}
	if len(results) == 0 {
		return 0
	}
	return results[0]
}

func (s *session) fail(format string, args ...any) {
	if s.err == nil {
		s.err = fmt.Errorf(format, args...)
	}
}

// cstring copies a string into memory that the guest has allocated.
func (s *session) cstring(malloc, text string) uint64 {
	at := s.call(malloc, uint64(len(text)+1))
	if s.err == nil && (at == 0 || !s.Memory().Write(uint32(at), append([]byte(text), 0))) {
		s.fail("%s(%d) gave %#x", malloc, len(text)+1, at)
	}
	return at
}

// text reads a string that ends with a zero byte.
func (s *session) text(at uint64) string {
	var b []byte
	for s.err == nil {
		c, ok := s.Memory().ReadByte(uint32(at) + uint32(len(b)))
		if !ok {
			s.fail("string at %#x: out of memory", at)
		}
		if c == 0 {
			break
		}
		b = append(b, c)
	}
	return string(b)
}

func (s *session) word(at uint64) uint64 {
	v, ok := s.Memory().ReadUint32Le(uint32(at))
	if !ok {
		s.fail("word at %#x: out of memory", at)
	}
	return uint64(v)
}

// remember and recall keep what the host has to know of the guest, such as the address of a handle,
// in the state itself.
func (s *session) remember(handles map[string]uint64) {
	b, err := json.Marshal(handles)
	if err != nil {
		s.fail("remember: %w", err)
	}
	s.SetMeta(b)
}

func (s *session) recall() map[string]uint64 {
	handles := map[string]uint64{}
	if b := s.Meta(); len(b) > 0 {
		if err := json.Unmarshal(b, &handles); err != nil {
			s.fail("recall: %w", err)
		}
	}
	return handles
}

// instantiateHost gives a runtime what the guest imports.
func (g *guest) instantiateHost(rt wazero.Runtime, w *world) error {
	if _, err := wasi_snapshot_preview1.Instantiate(ctx, rt); err != nil {
		return err
	}
	if g.host == nil {
		return nil
	}
	return g.host(rt, w)
}

// moduleFile returns the path of a file in a module of this package's go.mod.
func moduleFile(tb testing.TB, module, name string) string {
	tb.Helper()
	out, err := exec.Command("go", "mod", "download", "-json", module).Output()
	var m struct{ Dir string }
	if err == nil {
		err = json.Unmarshal(out, &m)
	}
	if err != nil {
		missing(tb, "module %s: go mod download: %v", module, err)
	}
	return filepath.Join(m.Dir, filepath.FromSlash(name))
}

// missing ends a test whose guest is not there.
func missing(tb testing.TB, format string, args ...any) {
	tb.Helper()
	if os.Getenv("MMRUN_REALGUESTS") == "all" {
		tb.Fatalf(format, args...)
	}
	tb.Skipf(format, args...)
}

func readFile(tb testing.TB, path string) []byte {
	tb.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

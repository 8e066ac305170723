package guests_test

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
	"github.com/tetratelabs/wazero/sys"

	"github.com/mmrun/mmrun/internal/testkit/guests"
)

// guest is an instance on plain wazero: what a guest answers here is what it must answer anywhere.
type guest struct {
	t   *testing.T
	mod api.Module
}

var errHost = errors.New("the host refuses")

// newRuntime has WASI and the env module that the guests import.
func newRuntime(t *testing.T) wazero.Runtime {
	t.Helper()
	ctx := context.Background()
	rt := wazero.NewRuntime(ctx)
	t.Cleanup(func() { rt.Close(ctx) })
	wasi_snapshot_preview1.MustInstantiate(ctx, rt)
	_, err := rt.NewHostModuleBuilder("env").
		NewFunctionBuilder().WithFunc(func(ctx context.Context, m api.Module, ptr, n uint32) {
		bytes, ok := m.Memory().Read(ptr, n)
		if !ok {
			panic(errHost)
		}
		for i := range bytes {
			bytes[i]++
		}
	}).Export("mutate").
		NewFunctionBuilder().WithFunc(func() { panic(errHost) }).Export("fail").
		NewFunctionBuilder().WithFunc(func(x uint32) uint32 { return x + 100 }).Export("op").
		NewFunctionBuilder().WithGoFunction(api.GoFunc(
		func(_ context.Context, stack []uint64) {
			stack[0] = 1
		}),
		nil, []api.ValueType{api.ValueTypeExternref}).Export("ref").
		Instantiate(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return rt
}

type stdio struct {
	stdin          io.Reader
	stdout, stderr io.Writer
}

func instantiate(t *testing.T, wasm []byte, s stdio) *guest {
	t.Helper()
	config := wazero.NewModuleConfig().WithStartFunctions("_initialize").WithRandSource(rand.Reader)
	if s.stdin != nil {
		config = config.WithStdin(s.stdin)
	}
	if s.stdout != nil {
		config = config.WithStdout(s.stdout)
	}
	if s.stderr != nil {
		config = config.WithStderr(s.stderr)
	}
	mod, err := newRuntime(t).InstantiateWithConfig(context.Background(), wasm, config)
	if err != nil {
		t.Fatal(err)
	}
	return &guest{t, mod}
}

func load(t *testing.T, name string) *guest {
	t.Helper()
	return instantiate(t, guests.Load(t, name), stdio{})
}

func (g *guest) try(name string, params ...uint64) ([]uint64, error) {
	g.t.Helper()
	fn := g.mod.ExportedFunction(name)
	if fn == nil {
		g.t.Fatalf("no export %s", name)
	}
	results, err := fn.Call(context.Background(), params...)
	// wazero leaves garbage above the 32 bits of an i32 or f32 result.
	word := 0
	for _, vt := range fn.Definition().ResultTypes() {
		switch {
		case word >= len(results): // it failed
		case vt == api.ValueTypeI32 || vt == api.ValueTypeF32:
			results[word] = uint64(uint32(results[word]))
		}
		word++
		if vt == valueTypeV128 {
			word++
		}
	}
	return results, err
}

const valueTypeV128 = api.ValueType(0x7b) // two words, low one first; package api does not name it

// call returns the only result, or 0 if there is none.
func (g *guest) call(name string, params ...uint64) uint64 {
	g.t.Helper()
	results, err := g.try(name, params...)
	if err != nil {
		g.t.Fatalf("%s%d: %v", name, params, err)
	}
	if len(results) == 0 {
		return 0
	}
	return results[0]
}

func (g *guest) want(want uint64, name string, params ...uint64) {
	g.t.Helper()
	if got := g.call(name, params...); got != want {
		g.t.Errorf("%s%v = %d, want %d", name, params, int64(got), int64(want))
	}
}

func (g *guest) wantAll(want []uint64, name string, params ...uint64) {
	g.t.Helper()
	got, err := g.try(name, params...)
	if err != nil {
		g.t.Fatalf("%s%v: %v", name, params, err)
	}
	if len(got) != len(want) {
		g.t.Fatalf("%s%v = %#x, want %#x", name, params, got, want)
	}
	for i := range got {
		if got[i] != want[i] {
			g.t.Errorf("%s%v = %#x, want %#x", name, params, got, want)
			return
		}
	}
}

func (g *guest) wantError(name string, params ...uint64) error {
	g.t.Helper()
	_, err := g.try(name, params...)
	if err == nil {
		g.t.Errorf("%s%v did not fail", name, params)
	}
	return err
}

func i32(v int32) uint64 { return api.EncodeI32(v) }
func i64(v int64) uint64 { return uint64(v) }

func TestEveryGuestIsAcceptedByWazero(t *testing.T) {
	rt := newRuntime(t)
	names := guests.Names(t)
	if len(names) < 14 {
		t.Fatalf("only %d guests: %v", len(names), names)
	}
	for _, name := range names {
		if _, err := rt.CompileModule(context.Background(), guests.Load(t, name)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Of the bad files, some are no modules that wazero takes; the others mmrun itself must refuse.
func TestBadFilesThatWazeroRefuses(t *testing.T) {
	refused := map[string]bool{
		"bad/empty":         true,
		"bad/notwasm":       true,
		"bad/truncated":     true,
		"bad/shared_memory": true,

		"bad/externref":       false,
		"bad/imported_global": false,
		"bad/imported_memory": false,
		"bad/imported_table":  false,
		"bad/toobig":          false,
	}
	rt := newRuntime(t)
	for _, name := range guests.BadNames(t) {
		want, ok := refused[name]
		if !ok {
			t.Errorf("%s is in no list", name)
		}
		_, err := rt.CompileModule(context.Background(), guests.Load(t, name))
		if (err != nil) != want {
			t.Errorf("%s: refused %t, want %t: %v", name, err != nil, want, err)
		}
		delete(refused, name)
	}
	if len(refused) > 0 {
		t.Errorf("not in testdata/bad: %v", refused)
	}
}

func TestCounter(t *testing.T) {
	g := load(t, "counter")
	g.want(0, "get")
	g.want(1, "inc")
	g.want(2, "inc")
	g.want(2, "get")
}

func TestRustMinimal(t *testing.T) {
	g := load(t, "rust_minimal")
	g.want(0, "get")
	g.call("set", i32(-42))
	g.want(i32(-42), "get")
}

func TestGrow(t *testing.T) {
	g := load(t, "grow")
	g.wantError("store", 65536, 7)
	g.want(1, "grow", 2)
	g.want(3, "size")
	g.call("store", 2*65536, 7)
	g.want(7, "load", 2*65536)
	g.want(i32(-1), "grow", 1022)
	g.want(3, "grow", 1021)
}

func TestStart(t *testing.T) {
	g := load(t, "start")
	g.want(1, "starts_global")
	g.want(1, "starts_memory")
	g.want(101, "counter")
	g.want(102, "inc")
	bytes, _ := g.mod.Memory().Read(0, 13)
	if string(bytes) != "AAAABBBBBBBB\x00" {
		t.Errorf("segments left %q", bytes)
	}
	g.want('t', "read", 65532)
	g.call("overwrite", 'x')
	for _, addr := range []uint64{0, 4, 11, 1024, 1027, 65532, 65535} {
		g.want('x', "read", addr)
	}
	g.want(0, "read", 12)
	g.call("write", 12, 'y')
	g.want('y', "read", 12)
}

func TestTypes(t *testing.T) {
	g := load(t, "types")
	f32, f64 := api.EncodeF32(1.5), api.EncodeF64(-2.25)
	g.want(i32(-1), "i32", i32(-1))
	g.want(i64(-1), "i64", i64(-1))
	g.want(f32, "f32", f32)
	g.want(f64, "f64", f64)
	g.wantAll([]uint64{1, 2}, "v128", 1, 2)
	g.wantAll(nil, "none")
	g.want(5, "add", 2, 3)
	g.wantAll([]uint64{2, 1}, "swap", 1, 2)
	g.wantAll([]uint64{f64, f32, 2, 1}, "reverse", 1, 2, f32, f64)
	g.wantAll([]uint64{9, 2, 3, 1}, "reverse_v128", 1, 2, 3, 9)
	g.wantAll([]uint64{1 << 31, 1<<31 - 1, 1 << 63, 1<<63 - 1}, "limits")
	g.wantAll([]uint64{0x7fc00000, 0xff800000, 1 << 63, 0x7ff0000000000000, 1}, "specials")

	g.wantAll([]uint64{0, 0, 0, 0}, "get_globals")
	g.call("set_globals", 1, 2, f32, f64)
	g.call("modify", 3)
	modified := []uint64{2, 3, api.EncodeF32(2.5), api.EncodeF64(-1.25)}
	g.wantAll(modified, "get_globals")
	g.want(1, "load", 2*4096)
	g.want(0, "load", 3*4096)
	g.call("store", 3*4096, 77)
	g.want(77, "load", 3*4096)

	for _, name := range []string{"unreachable", "oob", "recurse"} {
		g.wantError(name)
	}
	g.wantError("div", 1, 0)
	g.wantError("div", i32(-1<<31), i32(-1))
	g.want(i32(-3), "div", i32(-7), 2)
	g.wantError("trunc", api.EncodeF64(1e10))
	g.want(7, "trunc", api.EncodeF64(7.9))

	// Without a rollback the half of an event that ran before its trap stays.
	g.wantError("trap_after", 256)
	g.want(2, "load", 0)
	g.want(1, "load", 255*4096)
	g.wantError("trap_after_grow", 1)
	g.want(17, "size")
	g.want(i64(-1), "load", 17*65536-8)
	g.want(17, "grow", 47)
	g.want(i32(-1), "grow", 1)
}

// The loops have no end of their own: only a runtime that has been told to look at the context
// stops them.
func TestTypesSpin(t *testing.T) {
	rt := wazero.NewRuntimeWithConfig(context.Background(),
		wazero.NewRuntimeConfig().WithCloseOnContextDone(true))
	defer rt.Close(context.Background())
	for _, name := range []string{"spin", "spin_storing"} {
		mod, err := rt.Instantiate(context.Background(), guests.Load(t, "types"))
		if err != nil {
			t.Fatal(err)
		}
		memory := mod.Memory()
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		defer cancel()
		var exit *sys.ExitError
		if _, err := mod.ExportedFunction(name).Call(ctx); !errors.As(err, &exit) ||
			exit.ExitCode() != sys.ExitCodeDeadlineExceeded {
			t.Errorf("%s: %v", name, err)
		}
		if n, _ := memory.ReadUint64Le(0); (n > 0) != (name == "spin_storing") {
			t.Errorf("%s has stored %d times", name, n)
		}
	}
}

func TestStores(t *testing.T) {
	g := load(t, "stores")
	g.want(1, "grow", 15)
	g.want(16, "size")
	g.call("one", 8, 5)
	g.want(5, "load", 8)
	g.call("touch", 2, 3, 4, 9)
	for page := range uint64(16 * 16) {
		want := uint64(0)
		if page >= 2 && page <= 11 && (page-2)%3 == 0 {
			want = 9
		}
		g.want(want, "load", page*4096)
	}
	g.call("fill", 4096, 3, 0xab)
	g.want(0xababab, "load", 4096)
	g.call("copy", 100, 4096, 2)
	g.want(0xabab, "load", 100)
	g.want(4, "count")
	g.wantError("fill", 16*65536-1, 2, 0)
	g.want(4, "count")
	g.call("fill", 0, 16*65536, 0)

	const n = 2000
	g.call("random", 1, n)
	g.want(6, "count")
	want := make([]byte, 16*65536)
	pages := map[uint64]bool{}
	seed := uint64(1)
	for range n {
		seed = seed*6364136223846793005 + 1442695040888963407
		page := (seed >> 32) * 256 >> 32
		pages[page] = true
		addr := page*4096 + seed>>20&0xff8
		for i := range uint64(8) {
			want[addr+i] = byte(seed >> (8 * i))
		}
	}
	if got, _ := g.mod.Memory().Read(0, 16*65536); string(got) != string(want) {
		t.Error("random left another memory than its description says")
	}
	if len(pages) < 250 {
		t.Errorf("%d stores reached %d of 256 pages", n, len(pages))
	}
}

func TestSwap(t *testing.T) {
	g := load(t, "swap")
	g.want(10, "call", 5)
	g.call("swap")
	g.want(i32(-5), "call", 5)
	g.want(10, "call_at", 1, 5)
	g.want(1, "is_null", 2)
	g.wantError("call_at", 2, 5)
	g.want(25, "call_spare", 1, 5)
	g.wantError("call_spare", 0, 5)

	g.want(4, "table_grow", 2)
	g.want(6, "table_size")
	g.want(6, "call_at", 5, 5)
	g.want(i32(-1), "table_grow", 11)
	g.call("table_fill", 2, 2)
	g.want(i32(-5), "call_at", 3, 5)
	g.call("table_copy", 2, 1, 1)
	g.want(25, "call_at", 2, 5)
	g.call("set_null", 3)
	g.want(1, "is_null", 3)

	g.call("elem_init", 2, 0, 2)
	g.want(25, "call_at", 2, 5)
	g.want(6, "call_at", 3, 5)
	g.call("elem_drop")
	g.wantError("elem_init", 2, 0, 1)
	g.call("elem_init", 2, 0, 0)

	g.call("data_init", 10, 0, 8)
	g.want('p', "load", 10)
	g.want('!', "load", 17)
	g.call("data_drop")
	g.wantError("data_init", 10, 0, 1)
	g.call("data_init", 10, 0, 0)

	g.want(1, "kept_is_null")
	g.wantError("call_kept", 5)
}

func TestSwapGlobals(t *testing.T) {
	g := load(t, "swap")
	g.call("keep", 1)
	g.want(0, "kept_is_null")
	g.call("set_null", 1)
	g.want(i32(-5), "call_kept", 5)
	g.wantError("call_spare", 0, 5)

	g.wantAll([]uint64{0, 0}, "get_lanes")
	g.call("set_lanes", 3, i64(-4))
	g.wantAll([]uint64{3, i64(-4)}, "get_lanes")
	g.wantAll([]uint64{3, i64(-4)}, "get_v128")
}

func TestHostTable(t *testing.T) {
	g := load(t, "hosttable")
	g.want(105, "call", 0, 5)
	g.want(10, "call", 1, 5)
	g.call("swap")
	g.want(10, "call", 0, 5)
	g.want(105, "call", 1, 5)
}

// A file as standard input: then it is the kernel that writes into guest memory.
func TestReadFD(t *testing.T) {
	path := t.TempDir() + "/input"
	if err := os.WriteFile(path, []byte("hello"), 0o644); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	g := instantiate(t, guests.Load(t, "readfd"), stdio{stdin: file})
	g.want(4, "read", 0, 5000, 4)
	g.want('h', "load", 5000)
	g.want('l', "load", 5003)
	g.want(0, "load", 5004)
	g.want(16, "grow", 1)
	g.want(1, "read", 0, 16*65536, 100)
	g.want('o', "load", 16*65536)
	g.want(0, "read", 0, 5000, 4)
	const errnoBadf = 8
	g.want(i32(-errnoBadf), "read", 9, 5000, 4)
}

func TestHostMut(t *testing.T) {
	g := load(t, "hostmut")
	g.call("mutate", 4095, 2)
	g.want(1, "load", 4095)
	g.want(1, "load", 4096)
	g.want(0, "load", 4097)
	g.want(1, "calls")
	if err := g.wantError("fail", 4096, 1); !errors.Is(err, errHost) {
		t.Errorf("the host's error is lost: %v", err)
	}
	g.want(2, "calls")
	g.want(255, "load", 0)
	g.want(2, "load", 4096)
}

func TestExit(t *testing.T) {
	g := load(t, "exit")
	g.call("modify")
	g.want(1, "get_global")
	g.want(1, "get_memory")
	var exit *sys.ExitError
	if err := g.wantError("exit", 3); !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Errorf("exit(3): %v", err)
	}
	if !g.mod.IsClosed() {
		t.Error("the module is open after proc_exit")
	}
}

func TestExternref(t *testing.T) {
	g := load(t, "bad/externref")
	for _, take := range []string{"take_global", "take_table"} {
		g.want(1, "is_null")
		g.call(take)
		g.want(0, "is_null")
		g.call("drop")
	}
}

func TestLines(t *testing.T) {
	g := load(t, "lines")
	g.want(0, "fail", 0)
	if err := g.wantError("fail", 1); !strings.Contains(err.Error(), "lines.c:6") {
		t.Errorf("fail(1): %v", err)
	}
}

func TestCommand(t *testing.T) {
	g := load(t, "command")
	g.call("_start")
	g.want(5, "add", i32(5))
	g.call("main")
	g.want(2, "runs")
	g.want(1, "add", i32(1))
}

func TestNames(t *testing.T) {
	var out, errOut strings.Builder
	g := instantiate(t, guests.Load(t, "names"), stdio{stdout: &out, stderr: &errOut})
	g.want(0, "say", i32(1))
	g.call("slowly", i32(2))
	const want = "\x1b[2Jgone \u202etxet \xff\xc3 é\n"
	if out.String() != want || errOut.String() != want {
		t.Errorf("said %q and %q", out.String(), errOut.String())
	}
	g.wantError("clear\x1b[2J")
	g.call("two\nlines")
	g.call("back\u202edraw")
}

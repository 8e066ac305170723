package rewriter

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

// barriered is a module with its barrier beside the module as it is, after the same calls.
type barriered struct {
	t         *testing.T
	plain, in api.Module
	info      Info
	before    []byte // of in's memory at the last forget
}

func newBarriered(t *testing.T, rt wazero.Runtime, module []byte) *barriered {
	t.Helper()
	plain, plainInfo, err := Rewrite(module, Options{})
	if err != nil {
		t.Fatal(err)
	}
	out, info, err := Rewrite(module, Options{Barrier: true})
	if err != nil {
		t.Fatal(err)
	}
	b := &barriered{t: t, info: info}
	b.plain, b.in = started(t, rt, plain), started(t, rt, out)
	for _, name := range []string{plainInfo.Init, plainInfo.Start} {
		if name != "" && info.Memory != nil {
			b.call(name)
		}
	}
	return b
}

func started(t *testing.T, rt wazero.Runtime, module []byte) api.Module {
	t.Helper()
	m, err := rt.InstantiateWithConfig(context.Background(), module,
		wazero.NewModuleConfig().WithName("").WithStartFunctions())
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// call makes the same call to both, and looks whether all that it has written is told.
func (b *barriered) call(name string, params ...uint64) {
	b.t.Helper()
	ctx := context.Background()
	want, wantErr := b.plain.ExportedFunction(name).Call(ctx, params...)
	got, err := b.in.ExportedFunction(name).Call(ctx, params...)
	what := fmt.Sprintf("%s%v", name, params)
	if trapOf(err) != trapOf(wantErr) || !slices.Equal(got, want) {
		b.t.Fatalf("%s: %v %v, without the barrier %v %v", what, got, err, want, wantErr)
	}
	memory, wantMemory := memoryOf(b.in), memoryOf(b.plain)
	if !bytes.Equal(memory, wantMemory) {
		b.t.Fatalf("%s: another memory than without the barrier", what)
	}
	told := b.told()
	const page = 4096
	for at := 0; at < len(memory); at += page {
		var old []byte
		if at < len(b.before) {
			old = b.before[at : at+page]
		} else {
			old = make([]byte, page)
		}
		if !bytes.Equal(old, memory[at:at+page]) && !told[uint32(at/page)] {
			b.t.Fatalf("%s: page %d was written and is not told (%d are)", what, at/page, len(told))
		}
	}
	b.forget()
}

func trapOf(err error) string {
	if err == nil {
		return ""
	}
	first, _, _ := strings.Cut(err.Error(), "\n")
	return first
}

func memoryOf(m api.Module) []byte {
	mem := m.Memory()
	b, _ := mem.Read(0, mem.Size())
	return b
}

// told are the pages that the barrier tells, in either way.
func (b *barriered) told() map[uint32]bool {
	pages := make(map[uint32]bool)
	if b.info.Barrier == nil {
		return pages
	}
	count := int32(b.in.ExportedGlobal(b.info.Barrier.Count).Get())
	next := b.in.ExportedFunction(b.info.Barrier.Next)
	for from := uint64(0); ; {
		r, err := next.Call(context.Background(), from)
		if err != nil {
			b.t.Fatal(err)
		}
		if int32(r[0]) == -1 {
			break
		}
		pages[uint32(r[0])] = true
		from = r[0] + 1
	}
	if most := len(b.info.Barrier.Pages); int(count) <= most {
		noted := make(map[uint32]bool)
		for _, name := range b.info.Barrier.Pages[:count] {
			noted[uint32(b.in.ExportedGlobal(name).Get())] = true
		}
		if len(noted) != len(pages) {
			b.t.Errorf("%d pages are noted, %d marked", len(noted), len(pages))
		}
		for p := range noted {
			if !pages[p] {
				b.t.Errorf("page %d is noted and not marked", p)
			}
		}
	} else if len(pages) <= most {
		b.t.Errorf("count %d with %d pages", count, len(pages))
	}
	return pages
}

func (b *barriered) forget() {
	if b.info.Barrier == nil {
		return
	}
	if _, err := b.in.ExportedFunction(b.info.Barrier.Forget).
		Call(context.Background()); err != nil {
		b.t.Fatal(err)
	}
	b.before = bytes.Clone(memoryOf(b.in))
	if n := len(b.told()); n > 0 {
		b.t.Errorf("%d pages are marked after forget", n)
	}
}

// A module with the barrier computes what it does without, traps where it does, and tells each page
// that it writes: functions of the project's guests, called with edge cases and at random.
func TestBarrierTellsEachPageThatIsWritten(t *testing.T) {
	paths, err := filepath.Glob("../testdata/*.wasm")
	if err != nil || len(paths) == 0 {
		t.Fatal(err)
	}
	calls := 150
	if testing.Short() {
		calls = 40
	}
	for _, path := range paths {
		name := strings.TrimSuffix(filepath.Base(path), ".wasm")
		t.Run(name, func(t *testing.T) {
			module, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			rt := wazero.NewRuntimeWithConfig(context.Background(), wazero.NewRuntimeConfig().
				WithMemoryLimitPages(64))
			t.Cleanup(func() { _ = rt.Close(context.Background()) })
			compiled, err := rt.CompileModule(context.Background(), module)
			if err != nil {
				t.Skip(err)
			}
			if len(compiled.ImportedFunctions()) > 0 {
				t.Skip("needs a host")
			}
			b := newBarriered(t, rt, module)
			if b.info.Memory == nil {
				return
			}
			callAll(b, rand.New(rand.NewPCG(1, 2)), calls)
		})
	}
}

// callAll calls the exports of a module at random.
func callAll(b *barriered, r *rand.Rand, calls int) {
	var names []string
	for name := range b.plain.ExportedFunctionDefinitions() {
		if !strings.HasPrefix(name, Reserved) && !strings.Contains(name, "spin") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	edges := []uint64{0, 1, 2, 4095, 4096, 4097, 65535, 65536, 131072 - 4}
	high := []uint64{1<<32 - 1, 1<<32 - 4096} // addresses, but no counts
	for range calls {
		if len(names) == 0 {
			return
		}
		name := names[r.IntN(len(names))]
		f := b.plain.ExportedFunction(name).Definition()
		var params []uint64
		for i, typ := range f.ParamTypes() {
			v := edges[r.IntN(len(edges))]
			if i == 0 && len(f.ParamTypes()) > 1 && r.IntN(8) == 0 {
				v = high[r.IntN(len(high))]
			}
			if r.IntN(2) == 0 {
				v = r.Uint64N(1 << 17)
			}
			if typ == api.ValueTypeI64 && r.IntN(3) == 0 {
				v = r.Uint64()
			}
			params = append(params, v)
			if typ == 0x7b { // v128 takes two
				params = append(params, r.Uint64())
			}
		}
		b.call(name, params...)
	}
}

// A memory that has grown has all its pages told, however many are written at once.
func TestBarrierOfAGrownMemory(t *testing.T) {
	module, err := os.ReadFile("../testdata/stores.wasm")
	if err != nil {
		t.Fatal(err)
	}
	rt := wazero.NewRuntime(context.Background())
	defer rt.Close(context.Background())
	b := newBarriered(t, rt, module)
	for _, more := range []uint64{1, 7, 100} {
		b.call("grow", more)
		b.call("one", 8, 1)
		for _, pages := range []uint64{1, 15, 16, 17, 40} {
			b.call("touch", 0, 1, pages, pages)
			b.call("touch", 5, 2, pages/4+1, pages+1)
		}
		b.call("fill", 70_000, 400_000, 3) // perhaps out of bounds
	}
	if got := len(memoryOf(b.in)) >> 16; got < 100 {
		t.Errorf("the memory has %d wasm pages", got)
	}
}

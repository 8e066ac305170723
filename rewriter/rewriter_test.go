package rewriter

import (
	"context"
	"os"
	"reflect"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

func readModule(t testing.TB, name string) []byte {
	t.Helper()
	wasm, err := os.ReadFile("testdata/" + name + ".wasm")
	if err != nil {
		t.Fatal(err)
	}
	return wasm
}

// guest is an instance of a rewritten module, and the Info that came with it.
type guest struct {
	t    testing.TB
	mod  api.Module
	info Info
	rt   wazero.Runtime
}

// instantiate rewrites a module and instantiates the result. It runs nothing of it.
func instantiate(t testing.TB, wasm []byte) *guest {
	t.Helper()
	out, info, err := Rewrite(wasm, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return instantiateRewritten(t, out, info)
}

func instantiateRewritten(t testing.TB, out []byte, info Info) *guest {
	t.Helper()
	ctx := context.Background()
	config := wazero.NewRuntimeConfigCompiler().WithCoreFeatures(allFeatures)
	rt := wazero.NewRuntimeWithConfig(ctx, config)
	t.Cleanup(func() { rt.Close(ctx) })
	_, err := rt.NewHostModuleBuilder("env").
		NewFunctionBuilder().WithFunc(func() int32 { return 100 }).Export("hundred").
		NewFunctionBuilder().WithFunc(func() {}).Export("nothing").
		Instantiate(ctx)
	if err != nil {
		t.Fatal(err)
	}
	mod, err := rt.InstantiateWithConfig(ctx, out, wazero.NewModuleConfig().WithStartFunctions())
	if err != nil {
		t.Fatal(err)
	}
	return &guest{t, mod, info, rt}
}

// firstRun does what a host does once in the life of a state.
func (g *guest) firstRun() *guest {
	g.t.Helper()
	for _, name := range []string{g.info.Init, g.info.Start} {
		if name != "" {
			g.call(name)
		}
	}
	if g.info.Initialize {
		g.call("_initialize")
	}
	return g
}

func (g *guest) try(name string, params ...uint64) ([]uint64, error) {
	g.t.Helper()
	f := g.mod.ExportedFunction(name)
	if f == nil {
		g.t.Fatalf("no function %q", name)
	}
	return f.Call(context.Background(), params...)
}

func (g *guest) call(name string, params ...uint64) []uint64 {
	g.t.Helper()
	results, err := g.try(name, params...)
	if err != nil {
		g.t.Fatalf("%s%v: %v", name, params, err)
	}
	return results
}

func (g *guest) want(name string, params []uint64, want ...uint64) {
	g.t.Helper()
	if got := g.call(name, params...); !reflect.DeepEqual(got, want) {
		g.t.Errorf("%s%v = %d, want %d", name, params, got, want)
	}
}

func (g *guest) wantTrap(name string, params ...uint64) {
	g.t.Helper()
	if got, err := g.try(name, params...); err == nil {
		g.t.Errorf("%s%v = %d, want a trap", name, params, got)
	}
}

func (g *guest) bytes(offset, n uint32) string {
	g.t.Helper()
	b, ok := g.mod.Memory().Read(offset, n)
	if !ok {
		g.t.Fatalf("memory[%d:+%d] is out of range", offset, n)
	}
	return string(b)
}

func TestDataSegmentsAndStartRunWhenTheHostSaysSo(t *testing.T) {
	g := instantiate(t, readModule(t, "state"))
	if got := g.bytes(0, 16); got != string(make([]byte, 16)) {
		t.Errorf("memory after instantiation is %q, want zeros", got)
	}
	g.want("long", nil, ^uint64(4)) // -5: the start function did not run
	g.call(g.info.Init)
	if got := g.bytes(8, 6); got != "helly!" {
		t.Errorf("memory after %s is %q", g.info.Init, got)
	}
	g.call(g.info.Start)
	g.want("long", nil, ^uint64(3))
	if got := g.bytes(0, 2); got != "*\x00" {
		t.Errorf("memory after start is %q", got)
	}
	if !g.info.Initialize {
		t.Error("Initialize is not set")
	}
	if want := (&Memory{Min: 1, Max: 3, HasMax: true}); !reflect.DeepEqual(g.info.Memory, want) {
		t.Errorf("Memory = %+v, want %+v", g.info.Memory, want)
	}
}

func TestGlobalsAreReachable(t *testing.T) {
	g := instantiate(t, readModule(t, "state")).firstRun()
	want := []Global{
		{Index: 0, Type: I32, Name: "__stack_pointer", Export: "mmrun:global:0"},
		{Index: 1, Type: I64, Name: "long", Export: "mmrun:global:1"},
		{Index: 2, Type: F32, Name: "single", Export: "mmrun:global:2"},
		{Index: 3, Type: F64, Name: "double", Export: "mmrun:global:3"},
		{Index: 5, Type: V128, Name: "vector", Export: "mmrun:global:5",
			Getter: "mmrun:global:5:get",
			Setter: "mmrun:global:5:set"},
		{Index: 6, Type: I32, Name: "shown", Export: "shown"},
	}
	if !reflect.DeepEqual(g.info.Globals, want) {
		t.Fatalf("Globals = %+v\nwant %+v", g.info.Globals, want)
	}
	sp := g.mod.ExportedGlobal("mmrun:global:0").(api.MutableGlobal)
	g.call("count")
	if got := uint32(sp.Get()); got != 1001 {
		t.Errorf("__stack_pointer is %d, want 1001", got)
	}
	sp.Set(5)
	g.want("count", nil, 6)
	g.want("mmrun:global:5:get", nil, 1, 2)
	g.call("set_vector", 1<<63, 77)
	g.want("mmrun:global:5:get", nil, 1<<63, 77)
	g.call("mmrun:global:5:set", 8, 9)
	g.want("mmrun:global:5:get", nil, 8, 9)
}

func TestDroppedSegmentIsSeenAndDroppedAgain(t *testing.T) {
	g := instantiate(t, readModule(t, "state")).firstRun()
	want := []Segment{{Kind: DataSegment, Index: 2, Dropped: "mmrun:data:2:dropped",
		Drop: "mmrun:data:2:drop"}}
	if !reflect.DeepEqual(g.info.Segments, want) {
		t.Fatalf("Segments = %+v\nwant %+v", g.info.Segments, want)
	}
	dropped := func() uint64 {
		return g.mod.ExportedGlobal("mmrun:data:2:dropped").
			Get() & 0xffffffff
	}
	g.call("later", 100)
	if dropped() != 0 {
		t.Error("dropped before it was")
	}
	g.call("drop")
	if dropped() != 1 {
		t.Error("dropping was not seen")
	}
	g.wantTrap("later", 100)

	g = instantiate(t, readModule(t, "state"))
	g.call("mmrun:data:2:drop")
	g.wantTrap("later", 100)
	if dropped() != 1 {
		t.Error("the helper does not set the flag")
	}
}

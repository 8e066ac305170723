package rewriter

import (
	"context"
	"slices"
	"testing"

	"github.com/tetratelabs/wazero"
)

func TestActiveSegmentsAreWrittenInOrderUntilOneTraps(t *testing.T) {
	out, info, err := Rewrite(readModule(t, "segments"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	config := wazero.NewRuntimeConfigCompiler().WithCoreFeatures(allFeatures)
	rt := wazero.NewRuntimeWithConfig(ctx, config)
	defer rt.Close(ctx)
	base := build( // exports "base", 40
		vec(secGlobal, bs(0x7f, 0, 0x41, 40, 0x0b)),
		vec(secExport, exportOf("base", kindGlobal, 0)))
	if _, err := rt.InstantiateWithConfig(ctx, base,
		wazero.NewModuleConfig().WithName("env")); err != nil {
		t.Fatal(err)
	}
	mod, err := rt.Instantiate(ctx, out)
	if err != nil {
		t.Fatal(err)
	}
	g := &guest{t: t, mod: mod, info: info, rt: rt}
	g.wantTrap(info.Init) // segment d
	for _, s := range []struct {
		offset uint32
		want   string
	}{{0, "aaaa"}, {40, "bb"}, {48, "cc"}, {20, "\x00\x00"}, {65534, "\x00\x00"}} {
		if got := g.bytes(s.offset, uint32(len(s.want))); got != s.want {
			t.Errorf("memory[%d] = %q, want %q", s.offset, got, s.want)
		}
	}
}

// An active segment is dropped once it has been written, which code that reads it again can tell.
func TestFormerlyActiveSegmentIsDroppedAfterInit(t *testing.T) {
	g := instantiate(t, readModule(t, "reread")).firstRun()
	all := g.info.Segments
	if len(all) != 1 || all[0].Kind != DataSegment || all[0].Index != 1 {
		t.Fatalf("Segments = %+v", g.info.Segments)
	}
	s := g.info.Segments[0]
	if got := uint32(g.mod.ExportedGlobal(s.Dropped).Get()); got != 1 {
		t.Errorf("%s = %d after init", s.Dropped, got)
	}
	g.wantTrap("again", 1)
	g.call("again", 0)

	g = instantiate(t, readModule(t, "reread"))
	g.call("again", 1)
	g.call(s.Drop)
	g.wantTrap("again", 1)
}

func TestZeroLengthSegmentOutOfBoundsTraps(t *testing.T) {
	for offset, traps := range map[int32]bool{65536: false, 65537: true, -1: true} {
		data := appendS32([]byte{0, 0x41}, offset)
		g := instantiate(t, build(vec(secMemory, memory1), vec(secData, append(data, 0x0b, 0))))
		if _, err := g.try(g.info.Init); (err != nil) != traps {
			t.Errorf("offset %d: %v", offset, err)
		}
	}
}

func TestDataCountIsAddedWhereItIsMissing(t *testing.T) {
	data := vec(secData, bs(0, 0x41, 8, 0x0b, 1, 'x'))
	for name, wasm := range map[string][]byte{
		"missing": build(vec(secMemory, memory1), data),
		"there":   build(vec(secMemory, memory1), sec(secDataCount, 1), data),
		"before code": build(vec(secType, typeVoid), vec(secFunction, bs(0)),
			vec(secMemory, memory1),
			vec(secCode, bodyEmpty), data),
		"after element": build(vec(secType, typeVoid), vec(secTable, bs(0x70, 0, 0)),
			vec(secMemory, memory1), vec(secElement), data),
	} {
		g := instantiate(t, wasm).firstRun()
		if got := g.bytes(8, 1); got != "x" {
			t.Errorf("%s: memory is %q", name, got)
		}
	}
	// Without active segments there is no need for it.
	wasm := build(vec(secMemory, memory1), vec(secData, bs(1, 1, 'x')))
	out, _, err := Rewrite(wasm, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if got := sectionsOf(out); slices.Contains(got, "data count") {
		t.Errorf("a data count section was added: %v", got)
	}
}

func TestThousandsOfSegments(t *testing.T) {
	var entries [][]byte
	for i := range int32(5000) {
		entry := appendS32([]byte{0, 0x41}, i*4)
		entries = append(entries, append(entry, 0x0b, 2, byte(i), byte(i>>8)))
	}
	g := instantiate(t, build(vec(secMemory, memory1), vec(secData, entries...))).firstRun()
	for i := range 5000 {
		if got, want := g.bytes(uint32(4*i), 2), string([]byte{byte(i),
			byte(i >> 8)}); got != want {
			t.Fatalf("segment %d: %x, want %x", i, got, want)
		}
	}
}

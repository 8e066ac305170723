package rewriter

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/tetratelabs/wazero"
)

// Instantiation of the module as it was is the oracle: memory after mmrun:init must be the same,
// and mmrun:init must trap where instantiation fails.
func TestInitDoesWhatInstantiationDid(t *testing.T) {
	ctx := context.Background()
	config := wazero.NewRuntimeConfigInterpreter().WithCoreFeatures(allFeatures)
	rt := wazero.NewRuntimeWithConfig(ctx, config)
	defer rt.Close(ctx)
	random := rand.New(rand.NewPCG(3, 4))
	merged, trapped := 0, 0
	for round := range 1000 {
		var entries [][]byte
		at := int32(0)
		for range 1 + random.IntN(12) {
			length := random.IntN(20)
			switch random.IntN(10) {
			case 0: // anywhere near, also below and over what is there
				at = int32(random.IntN(400))
			case 1: // near the end of memory, perhaps beyond
				if random.IntN(5) == 0 {
					at = int32(65536 - random.IntN(20))
				}
			default:
				at += int32(random.IntN(2 * mergeGap))
			}
			offset := appendS32([]byte{0, 0x41}, at)
			if random.IntN(20) == 0 { // not one constant
				offset = append(offset, 0x41, 0, 0x6a)
			}
			entry := appendU32(append(offset, 0x0b), uint32(length))
			for range length {
				entry = append(entry, byte(1+random.IntN(255)))
			}
			entries = append(entries, entry)
			at += int32(length)
		}
		wasm := build(vec(secMemory, memory1), vec(secData, entries...))
		out, info, err := Rewrite(wasm, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if m, err := decode(out); err != nil {
			t.Fatal(err)
		} else if len(m.Data) > len(entries) {
			merged++
		}
		got, err := rt.InstantiateWithConfig(ctx, out,
			wazero.NewModuleConfig().WithName(fmt.Sprint("new", round)))
		if err != nil {
			t.Fatal(err)
		}
		_, initErr := got.ExportedFunction(info.Init).Call(ctx)
		want, err := rt.InstantiateWithConfig(ctx, wasm,
			wazero.NewModuleConfig().WithName(fmt.Sprint("old", round)))
		if (initErr != nil) != (err != nil) {
			t.Fatalf("%x: instantiation: %v, init: %v", wasm, err, initErr)
		}
		if err != nil {
			trapped++
			continue
		}
		a, _ := got.Memory().Read(0, 65536)
		b, _ := want.Memory().Read(0, 65536)
		for i := range a {
			if a[i] != b[i] {
				t.Fatalf("%x: memory[%d] = %d, want %d", wasm, i, a[i], b[i])
			}
		}
		got.Close(ctx)
		want.Close(ctx)
	}
	t.Logf("segments were merged in %d modules, %d trapped", merged, trapped)
	if merged < 100 || trapped < 10 {
		t.Error("the test does not reach what it is for")
	}
}

func segmentsAfter(t *testing.T, wasm []byte) []string {
	t.Helper()
	out, _, err := Rewrite(wasm, Options{})
	if err != nil {
		t.Fatal(err)
	}
	m, err := decode(out)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, d := range m.Data {
		all = append(all, string(d.Bytes))
	}
	return all
}

func TestNeighbouringSegmentsAreMerged(t *testing.T) {
	at := func(offset int32, s string) []byte {
		e := append(appendS32([]byte{0, 0x41}, offset), 0x0b, byte(len(s)))
		return append(e, s...)
	}
	module := func(entries ...[]byte) []byte {
		return build(vec(secMemory, memory1),
			vec(secData, entries...))
	}
	reads := func(entries ...[]byte) []byte { // code that reads segment 0
		return build(vec(secType, typeVoid), vec(secFunction, bs(0)), vec(secMemory, memory1),
			sec(secDataCount, byte(len(entries))),
			vec(secCode, body(0x41, 0, 0x41, 0, 0x41, 0, 0xfc, 8, 0, 0, 0x0b)), vec(secData,
				entries...))
	}
	for _, c := range []struct {
		name string
		wasm []byte
		want []string
	}{
		{"neighbours", module(at(8, "ab"), at(10, "c"), at(13, "d")),
			[]string{"", "", "", "abc\x00\x00d"}},
		{"one", module(at(8, "ab")), []string{"ab"}},
		{"far apart", module(at(8, "ab"), at(8+2+mergeGap+1, "c")), []string{"ab", "c"}},
		{"backwards", module(at(10, "c"), at(8, "ab")), []string{"c", "ab"}},
		{"overlapping", module(at(8, "ab"), at(9, "c")), []string{"ab", "c"}},
		{"something else between", module(at(10, "x"), at(8, "ab"), at(12, "c")),
			[]string{"x", "ab", "c"}},
		{"unknown place before", module(bs(0, 0x41, 6, 0x41, 6, 0x6a, 0x0b, 1, 'x'), at(8, "ab"),
			at(14, "c")), []string{"x", "ab", "c"}},
		{"unknown place behind", module(at(8, "ab"), at(11, "c"),
			bs(0, 0x41, 4, 0x41, 6, 0x6a, 0x0b, 1, 'x')), []string{"", "", "x", "ab\x00c"}},
		{"passive between", module(at(8, "ab"), bs(1, 1, 'p'), at(10, "c")),
			[]string{"ab", "p", "c"}},
		{"out of bounds", module(at(65534, "ab"), at(65536, "c")), []string{"ab", "c"}},
		{"read by the code", reads(at(8, "ab"), at(10, "c"), at(11, "d")),
			[]string{"ab", "", "", "cd"}},
	} {
		if got := segmentsAfter(t, c.wasm); fmt.Sprintf("%q", got) != fmt.Sprintf("%q", c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

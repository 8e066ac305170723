package rewriter

import (
	"bytes"
	"reflect"
	"testing"
)

func TestCustomSectionsKeepTheirPlaces(t *testing.T) {
	padded := bs(0, 0x84, 0x80, 0x00, 3, 'p', 'a', 'd') // a size that takes more bytes than it must
	wasm := build(
		custom("first", 1),
		vec(secType, typeVoid),
		custom("after type", 2),
		vec(secFunction, bs(0)),
		vec(secMemory, memory1),
		padded,
		vec(secGlobal, mutI32),
		sec(secStart, 0),
		custom("after start", 3),
		vec(secCode, bodyEmpty),
		custom("before data"),
		vec(secData, bs(0, 0x41, 8, 0x0b, 1, 'x')),
		custom("last", 4),
		custom("last", 5),
	)
	out, _, err := Rewrite(wasm, Options{})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{`"first"`, "type", `"after type"`, "function", "memory", `"pad"`, "global",
		"export",
		"data count", `"after start"`, "code", `"before data"`, "data", `"last"`, `"last"`,
		`"mmrun"`}
	if got := sectionsOf(out); !reflect.DeepEqual(got, want) {
		t.Errorf("sections\n%v, want\n%v", got, want)
	}
	for _, c := range [][]byte{custom("first", 1), custom("after type", 2), padded,
		custom("after start", 3), custom("last", 4), custom("last", 5)} {
		if !bytes.Contains(out, c) {
			t.Errorf("custom section %q was not copied byte for byte", c)
		}
	}
}

func TestSectionsThatTheModuleLacksAreAdded(t *testing.T) {
	// Only a global and a data segment: types, functions, exports, data count and code are all
	// missing.
	wasm := build(custom("c"), vec(secMemory, memory1), vec(secGlobal, mutI32),
		vec(secData, bs(0, 0x41, 8, 0x0b, 1, 'x')))
	out, info, err := Rewrite(wasm, Options{})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{`"c"`, "type", "function", "memory", "global", "export", "data count", "code",
		"data", `"mmrun"`}
	if got := sectionsOf(out); !reflect.DeepEqual(got, want) {
		t.Errorf("sections\n%v, want\n%v", got, want)
	}
	g := instantiateRewritten(t, out, info).firstRun()
	if got := g.bytes(8, 1); got != "x" {
		t.Errorf("memory is %q", got)
	}
}

func TestNothingToDoMeansNothingButTheMark(t *testing.T) {
	for name, wasm := range map[string][]byte{
		"empty module": build(),
		"custom only":  build(custom("a"), custom("b")),
		// Sizes with more bytes than they need, locals, a passive segment that is never dropped, a
		// table that is only read.
		"code": build(
			vec(secType, typeVoid, typeI32), vec(secFunction, bs(0), bs(1)), vec(secTable,
				bs(0x70, 0, 1)), vec(secMemory, memory1),
			sec(secDataCount, 1),
			sec(secCode, 2, 0x82, 0x80, 0, 0, 0x0b, 12, 1, 1, 0x7f, 0x41, 0, 0x25, 0, 0xd1, 0xfc, 9,
				0,
				0x0b),
			vec(secData, bs(1, 1, 'x'))),
	} {
		out, info, err := Rewrite(wasm, Options{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if want := append(bytes.Clone(wasm), markerOf(info)...); !bytes.Equal(out, want) {
			t.Errorf("%s:\n%x, want\n%x", name, out, want)
		}
	}
}

// markerOf is the custom section that a rewrite ends with.
func markerOf(info Info, passes ...string) []byte {
	return appendSection(nil, secCustom, mark{append([]string{"persist"}, passes...),
		&info}.section())
}

func TestCodeIsCopiedByteForByteUnlessItChangesATable(t *testing.T) {
	for name, changed := range map[string]bool{"state": true, "tables": true, "segments": false,
		"reread": false} {
		wasm := readModule(t, name)
		out, _, err := Rewrite(wasm, Options{})
		if err != nil {
			t.Fatal(err)
		}
		before, err := decode(wasm)
		if err != nil {
			t.Fatal(err)
		}
		after, err := decode(out)
		if err != nil {
			t.Fatal(err)
		}
		same := true
		for i, f := range before.Funcs {
			same = same && (f.Imported() || bytes.Equal(f.Body.Code, after.Funcs[i].Body.Code))
		}
		if same == changed {
			t.Errorf("%s: bodies are the same: %v", name, same)
		}
	}
}

func TestFunctionNamesStillFit(t *testing.T) {
	g := instantiate(t, readModule(t, "state")).firstRun()
	if got := g.mod.ExportedFunction(g.info.Start).Definition().Name(); got != "start" {
		t.Errorf("the start function is called %q", got)
	}
}

func TestImportedStartFunctionCanBeCalled(t *testing.T) {
	g := instantiate(t, build(
		vec(secType, typeVoid), vec(secImport, importOf("env", "nothing", kindFunc,
			0)), sec(secStart,
			0)))
	g.call(g.info.Start)
}

func TestInitializeMustTakeAndReturnNothing(t *testing.T) {
	for _, typ := range [][]byte{typeVoid, typeI32} {
		_, info, err := Rewrite(build(vec(secType, typ), vec(secFunction, bs(0)),
			vec(secExport, exportOf("_initialize", kindFunc, 0)),
			vec(secCode, body(0x00, 0x0b))), Options{})
		if err != nil {
			t.Fatal(err)
		}
		if want := len(typ) == len(typeVoid); info.Initialize != want {
			t.Errorf("type %x: Initialize = %v", typ, info.Initialize)
		}
	}
}

func TestEditedBodyGetsItsSizeRight(t *testing.T) {
	// A body of 127 bytes: its size takes one byte before, two after.
	c := bytes.Repeat(bs(0x01), 117)            // nop
	c = append(c, 0x41, 0, 0xd0, 0x70, 0x26, 0) // table.set
	c = append(c, 0x41, 0, 0x1a, 0x0b)          // and something behind it
	wasm := build(vec(secType, typeVoid), vec(secFunction, bs(0), bs(0), bs(0)),
		vec(secTable, bs(0x70, 0, 1)),
		vec(secExport, exportOf("f", kindFunc, 1)), vec(secCode, bodyEmpty, body(c...), bodyEmpty))
	g := instantiate(t, wasm)
	g.call("f")
	if !g.tablesChanged() {
		t.Error("the change was not seen")
	}
}

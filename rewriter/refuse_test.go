package rewriter

import (
	"errors"
	"strings"
	"testing"
)

func TestWhatCannotBeKeptIsRefusedWithAReason(t *testing.T) {
	void := vec(secType, typeVoid)
	oneFunc := vec(secFunction, bs(0))
	anyMemory := vec(secMemory, memory1)
	code := func(c ...byte) []byte { return vec(secCode, body(append(c, 0x0b)...)) }
	importedTable := vec(secImport, importOf("env", "tab", kindTable, 0x70, 0, 1))
	for _, c := range []struct {
		name string
		wasm []byte
		want string // part of the reason
	}{
		{"imported memory", build(vec(secImport, importOf("env", "mem", kindMemory, 0, 1))),
			`the memory is imported (from "env", as "mem")`},
		{"imported mutable global", build(vec(secImport,
			importOf("env", "sp", kindGlobal, 0x7f, 1))),
			`a mutable global is imported (from "env", as "sp")`},
		{"imported table, changed", build(void, importedTable, oneFunc,
			code(0x41, 0, 0xd0, 0x70, 0x26, 0)), "table.set changes table 0, which is imported"},
		{"imported table, grown", build(void, importedTable, oneFunc,
			code(0xd0, 0x70, 0x41, 0, 0xfc, 15, 0,
				0x1a)), "table.grow changes table 0, which is imported"},
		{"imported table, initialised", build(void, importedTable, oneFunc,
			vec(secElement, bs(0, 0x41, 0, 0x0b, 1, 0)), code()),
			"element segment 0 initialises table 0, which is imported"},
		{"shared memory", build(vec(secMemory, bs(3, 1, 2))), "the memory is shared"},
		{"65536 pages", build(vec(secMemory, bs(0, 0x80, 0x80, 4))),
			"at least 65536 wasm pages, at most 65535"},
		{"two memories", build(vec(secMemory, memory1, memory1)), "several memories"},
		{"two memories, one imported", build(vec(secImport,
			importOf("env", "mem", kindMemory, 0, 1)),
			anyMemory), "the memory is imported"},
		{"memory64", build(vec(secMemory, bs(4, 1))), "64-bit addresses"},
		{"table64", build(vec(secTable, bs(0x70, 4, 1))), "64-bit addresses"},
		{"page size", build(vec(secMemory, bs(8, 1, 0))), "pages of its own size"},
		{"memory index", build(void, oneFunc, anyMemory, code(0x41, 0, 0x28, 0x42, 0, 0, 0x1a)),
			"i32.load names one"},
		{"memory.size of another", build(void, oneFunc, anyMemory, code(0x3f, 1, 0x1a)),
			"memory.size on memory 1"},
		{"data for another memory", build(anyMemory, vec(secData, bs(2, 1, 0x41, 0, 0x0b, 0))),
			"data segment is for memory 1"},
		{"shared global", build(vec(secGlobal, bs(0x7f, 3, 0x41, 0, 0x0b))),
			"shared between threads"},
		{"externref that is never null", build(vec(secGlobal, bs(0x64, 0x6f, 1, 0xd0, 0x6f, 0x0b))),
			"global 0 is a mutable non-null externref"},
		{"struct.new", build(void, oneFunc, code(0xfb, 0, 0)), "struct.new is not supported"},
		{"ref.eq", build(void, oneFunc, code(0xd3)), "ref.eq is not supported"},
		{"relaxed simd", build(void, oneFunc, code(0xfd, 0x85, 2)),
			"f32x4.relaxed_madd is not supported"},
		{"wide arithmetic", build(void, oneFunc, code(0xfc, 19)), "i64.add128 is not supported"},
		{"stack switching", build(void, oneFunc, code(0xe2)), "suspend is not supported"},
		{"unknown instruction", build(void, oneFunc, code(0xff)), "0xff is not known"},
		{"unknown prefixed instruction", build(void, oneFunc, code(0xfc, 99)),
			"0xfc 99 is not known"},
		{"long vector number", build(void, oneFunc, code(0xfd, 0x80, 0)), "shortest form"},
		{"struct type", build(vec(secType, bs(0x5f, 0))), "a type of the module is a struct"},
		{"anyref", build(vec(secGlobal, bs(0x6e, 1, 0xd0, 0x6e, 0x0b))), "anyref"},
		{"reserved name", build(anyMemory, vec(secExport, exportOf("mmrun:init", kindMemory, 0))),
			`exports "mmrun:init"`},
		{"component", []byte("\x00asm\x0d\x00\x01\x00"), "component"},
	} {
		out, _, err := Rewrite(c.wasm, Options{})
		var u *UnsupportedError
		if !errors.As(err, &u) || !strings.Contains(u.Error(), c.want) || out != nil {
			t.Errorf("%s: got %v, want an UnsupportedError with %q", c.name, err, c.want)
		}
	}
}

func TestImportedTableThatIsOnlyReadIsAccepted(t *testing.T) {
	wasm := build(vec(secType, typeVoid), vec(secImport,
		importOf("env", "tab", kindTable, 0x70, 0, 1)),
		vec(secFunction, bs(0)), vec(secTable, bs(0x70, 0, 1)),
		// table.copy from the imported table 0 to table 1
		vec(secCode, body(0x41, 0, 0x41, 0, 0x41, 1, 0xfc, 14, 1, 0, 0x0b)))
	_, info, err := Rewrite(wasm, Options{})
	if err != nil || len(info.Tables) != 1 || info.Tables[0].Index != 1 {
		t.Errorf("%+v, %v", info.Tables, err)
	}
}

func TestMalformedInputIsRefusedWithItsOffset(t *testing.T) {
	void := vec(secType, typeVoid) // offset 8, 6 bytes
	oneFunc := vec(secFunction, bs(0))
	huge := bs(0xff, 0xff, 0xff, 0xff, 0x0f)
	code := func(c ...byte) []byte {
		return build(void, oneFunc,
			vec(secCode, body(c...)))
	} // code at 14+4+2+1+1+1=23
	for _, c := range []struct {
		name   string
		wasm   []byte
		offset int
		want   string
	}{
		{"empty", nil, 0, "not a wasm module"},
		{"text", []byte("(module)"), 0, "not a wasm module"},
		{"short", []byte("\x00asm\x01\x00\x00"), 0, "not a wasm module"},
		{"section beyond the end", build(bs(1, 0x7f)), 8, "announces 127 bytes, 0 are left"},
		{"section without size", build(bs(1)), 9, "unexpected end"},
		{"unknown section", build(sec(14)), 8, "unknown section 14"},
		{"section twice", build(void, void), 14, "twice or too late"},
		{"section too late", build(vec(secFunction), void), 11, "twice or too late"},
		{"lying number of types", build(sec(secType, huge...)), 10, "4294967295 types announced"},
		{"lying number of functions", build(sec(secFunction, huge...)), 10, "announced"},
		{"lying number of parameters", build(sec(secType, append(bs(1, 0x60), huge...)...)), 12,
			"announced"},
		{"lying length of data", build(vec(secMemory, memory1),
			sec(secData, append(bs(1, 1), huge...)...)), 22, "4294967295 bytes needed"},
		{"lying length of a name", build(sec(secCustom, huge...)), 15, "bytes needed"},
		{"number too long", build(sec(secType, 0x80, 0x80, 0x80, 0x80, 0x80, 0)), 10,
			"does not fit into 32 bits"},
		{"number too large", build(sec(secType, 0xff, 0xff, 0xff, 0xff, 0x1f)), 10,
			"does not fit into 32 bits"},
		{"bytes behind the entries", build(sec(secType, 0, 0)), 11,
			"1 bytes after the last entry of the type section"},
		{"unknown form of type", build(vec(secType, bs(0x61, 0, 0))), 11, "unknown form"},
		{"unknown type", build(vec(secGlobal, bs(0x40, 1, 0x41, 0, 0x0b))), 11,
			"unknown value type 0x40"},
		{"mutability", build(vec(secGlobal, bs(0x7f, 9, 0x41, 0, 0x0b))), 12, "never 9"},
		{"limits", build(vec(secMemory, bs(0x10, 1))), 11, "unknown flags 0x10"},
		{"minimum above maximum", build(vec(secMemory, bs(1, 2, 1))), 11, "less than its minimum"},
		{"name not UTF-8", build(custom("\xff")), 11, "not UTF-8"},
		{"no body", build(void, oneFunc), 18, "1 functions are declared, 0 have a body"},
		{"type index", build(void, vec(secFunction, bs(1)), vec(secCode, bodyEmpty)), 17,
			"there is no type 1, the last one is 0"},
		{"start of another type", build(vec(secType, typeI32), oneFunc, sec(secStart, 0),
			vec(secCode, body(0, 0x0b))), 21, "start function 0 is not of type"},
		{"start of no function", build(sec(secStart, 0)), 10,
			"no function 0, there is none at all"},
		{"start far away", build(sec(secStart, huge...)), 10, "no function 4294967295"},
		{"export index", build(vec(secExport, exportOf("f", kindFunc, 7))), 14,
			"no function 7, there is none"},
		{"data count", build(sec(secDataCount, 3)), 11, "3 data segments are announced"},
		{"data without memory", build(vec(secData, bs(0, 0x41, 0, 0x0b, 0))), 11,
			"data segment 0 is for a memory"},
		{"element without table", build(vec(secElement, bs(0, 0x41, 0, 0x0b, 0))), 11,
			"no table 0, there is none"},
		{"code in a constant", build(vec(secGlobal, bs(0x7f, 0, 0x45, 0x0b))), 13,
			"i32.eqz in a constant expression"},
		{"local in a constant", build(vec(secGlobal, bs(0x7f, 0, 0x20, 0, 0x0b))), 14,
			"no local 0"},
		{"function without end", code(0x41, 0), 25, "unexpected end"},
		{"bytes behind the end", code(0x0b, 0x0b), 24, "1 bytes after the end"},
		{"delegate without try", code(0x18, 0), 23, "delegate without a try"},
		{"immediate cut off", code(0x43, 0, 0), 24, "4 bytes needed, 2 left"},
		{"lying number of labels", code(append(bs(0x0e), huge...)...), 24, "labels announced"},
		{"unknown catch", code(0x1f, 0x40, 1, 9, 0, 0x0b, 0x0b), 26, "unknown catch clause"},
		{"unknown table", code(0x41, 0, 0xd0, 0x70, 0x26, 3, 0x0b), 28,
			"no table 3, there is none"},
		{"unknown segment", code(0xfc, 9, 5, 0x0b), 25, "no data segment 5, for no data count"},
		{"unknown local", code(0x20, 0, 0x0b), 24, "no local 0"},
		{"unknown label", code(0x0c, 1, 0x0b), 24, "no label 1, the last one is 0"},
		{"no memory", code(0x41, 0, 0x28, 2, 0, 0x0b), 25, "i32.load needs a memory"},
		{"type that comes later", build(vec(secType, bs(0x60, 1, 0x63, 1, 0))), 11,
			"type 0 refers to type 1"},
	} {
		out, _, err := Rewrite(c.wasm, Options{})
		var f *FormatError
		if !errors.As(err, &f) || f.Offset != c.offset || !strings.Contains(f.Error(),
			c.want) || out != nil {
			t.Errorf("%s: got %v, want a FormatError at %d with %q", c.name, err, c.offset, c.want)
		}
	}
}

// Every proper prefix of a module, and every module with one byte changed, gives a result or an
// error.
func TestDamagedModulesDoNotPanic(t *testing.T) {
	for _, name := range []string{"state", "tables", "segments"} {
		wasm := readModule(t, name)
		out, _, err := Rewrite(wasm, Options{})
		if err != nil {
			t.Fatal(err)
		}
		for _, whole := range [][]byte{wasm, out} {
			for i := range whole {
				_, _, _ = Rewrite(whole[:i], Options{})
				damaged := append([]byte(nil), whole...)
				for _, bit := range []byte{1, 0x80, 0xff} {
					damaged[i] = whole[i] ^ bit
					_, _, _ = Rewrite(damaged, Options{})
				}
			}
		}
	}
}

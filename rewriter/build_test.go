package rewriter

import (
	"slices"

	"github.com/mmrun/mmrun/rewriter/internal/wasm"
)

// Short words for what many tests write.
const (
	secCustom    = wasm.SecCustom
	secType      = wasm.SecType
	secImport    = wasm.SecImport
	secFunction  = wasm.SecFunction
	secTable     = wasm.SecTable
	secMemory    = wasm.SecMemory
	secGlobal    = wasm.SecGlobal
	secExport    = wasm.SecExport
	secStart     = wasm.SecStart
	secElement   = wasm.SecElement
	secCode      = wasm.SecCode
	secData      = wasm.SecData
	secDataCount = wasm.SecDataCount
	secTag       = wasm.SecTag

	kindFunc   = wasm.KindFunc
	kindTable  = wasm.KindTable
	kindMemory = wasm.KindMemory
	kindGlobal = wasm.KindGlobal
)

var (
	appendSection = wasm.AppendSection
	appendU32     = wasm.AppendU32
	appendName    = wasm.AppendName
	decode        = wasm.Decode
)

func appendS32(b []byte, v int32) []byte { return wasm.AppendS64(b, int64(v)) }

// build puts a module together from sections. It is for what wat2wasm cannot write: broken modules,
// and sections in places of one's choice.
func build(sections ...[]byte) []byte {
	return append([]byte(wasm.Preamble), slices.Concat(sections...)...)
}

func sec(id byte, content ...byte) []byte { return appendSection(nil, id, content) }

// vec is a section with a vector of entries.
func vec(id byte, entries ...[]byte) []byte {
	return appendSection(nil, id, append(appendU32(nil, uint32(len(entries))),
		slices.Concat(entries...)...))
}

func custom(name string, content ...byte) []byte {
	return appendSection(nil, secCustom, append(appendName(nil, name), content...))
}

func bs(b ...byte) []byte { return b }

// body is an entry of the code section, without locals. c has its end.
func body(c ...byte) []byte {
	return append(appendU32(nil, uint32(len(c)+1)), append([]byte{0}, c...)...)
}

func exportOf(name string, kind byte, index uint32) []byte {
	return appendU32(append(appendName(nil, name), kind), index)
}

func importOf(module, name string, desc ...byte) []byte {
	return append(appendName(appendName(nil, module), name), desc...)
}

// Entries that many modules need.
var (
	typeVoid  = bs(0x60, 0, 0)             // () -> ()
	typeI32   = bs(0x60, 0, 1, 0x7f)       // () -> (i32)
	memory1   = bs(0, 1)                   // one page
	mutI32    = bs(0x7f, 1, 0x41, 0, 0x0b) // a mutable global, 0
	bodyEmpty = body(0x0b)
)

// sectionsOf lists the sections of a module; custom ones with their names.
func sectionsOf(module []byte) (names []string) {
	known := []string{"custom", "type", "import", "function", "table", "memory", "global", "export",
		"start", "element", "code", "data", "data count", "tag"}
	for rest := module[8:]; len(rest) > 0; {
		size, content, err := wasm.CutU32(rest[1:])
		if err != nil {
			panic(err)
		}
		name := known[rest[0]]
		if rest[0] == secCustom {
			n, text, _ := wasm.CutU32(content)
			name = `"` + string(text[:n]) + `"`
		}
		names = append(names, name)
		rest = content[size:]
	}
	return names
}

package rewriter

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

// reaching are modules that wazero refuses for an index behind the last one, for something that is
// not declared, or for what is not allowed in a place: each would be valid if a rewrite did not
// look. All but the index is such that the rewrite adds to every index space.
func reaching() (all []struct {
	name   string
	module []byte
}) {
	const far = 3 // behind the last of each of the module's own
	parts := map[byte][]byte{
		secType:     vec(secType, typeVoid, typeI32, bs(0x60, 1, 0x7f, 0)),
		secFunction: vec(secFunction, bs(0), bs(0), bs(0)),
		secTable:    vec(secTable, bs(0x70, 0, 1), bs(0x70, 0, 1), bs(0x70, 0, 1)),
		secMemory:   vec(secMemory, memory1),
		secGlobal:   vec(secGlobal, mutI32, bs(0x70, 1, 0xd0, 0x70, 0x0b), mutI32),
		secExport:   vec(secExport, exportOf("f", kindFunc, 0)),
		secElement:  vec(secElement, bs(1, 0, 1, 0), bs(1, 0, 1, 0), bs(1, 0, 1, 0)),
		secCode:     nil,
		secData:     vec(secData, bs(0, 0x41, 0, 0x0b, 1, 'x'), bs(1, 1, 'y'), bs(1, 1, 'z')),
	}
	order := []byte{secType, secFunction, secTable, secMemory, secGlobal, secExport, secElement,
		secDataCount, secCode, secData}
	add := func(name string, change map[byte][]byte, code ...byte) {
		var sections [][]byte
		for _, id := range order {
			content := parts[id]
			if id == secCode {
				// The first function changes a table and uses the segments, so that the rewrite
				// adds to all.
				changes := bs(0x41, 0, 0xd0, 0x70, 0x26, 0, 0xfc, 13, 0, 0x41, 0, 0x41, 0, 0x41, 0,
					0xfc, 12, 0,
					0)
				content = vec(secCode, body(append(changes, 0x0b)...), body(append(code, 0x0b)...),
					bodyEmpty)
			}
			if other, ok := change[id]; ok {
				content = other
			}
			sections = append(sections, content)
		}
		all = append(all, struct {
			name   string
			module []byte
		}{name, build(sections...)})
	}
	inData := map[byte][]byte{secDataCount: sec(secDataCount, 3)}
	add("call", nil, 0x10, far)
	add("return_call", nil, 0x12, far)
	add("ref.func", nil, 0xd2, far, 0x1a)
	add("ref.func of what is not declared", nil, 0xd2, 2, 0x1a)
	add("global.get", nil, 0x23, far, 0x1a)
	add("global.set", nil, 0x41, 0, 0x24, far)
	add("table.get", nil, 0x41, 0, 0x25, far, 0x1a)
	add("table.set", nil, 0x41, 0, 0xd0, 0x70, 0x26, far)
	add("table.size", nil, 0xfc, 16, far, 0x1a)
	add("table.copy from", nil, 0x41, 0, 0x41, 0, 0x41, 0, 0xfc, 14, 0, far)
	add("table.copy to", nil, 0x41, 0, 0x41, 0, 0x41, 0, 0xfc, 14, far, 0)
	add("table.init to", nil, 0x41, 0, 0x41, 0, 0x41, 0, 0xfc, 12, 0, far)
	add("table.init from", nil, 0x41, 0, 0x41, 0, 0x41, 0, 0xfc, 12, far, 0)
	add("elem.drop", nil, 0xfc, 13, far)
	add("call_indirect, table", nil, 0x41, 0, 0x11, 0, far)
	add("call_indirect, type", nil, 0x41, 0, 0x11, far, 0)
	add("type of a block", nil, 0x00, 0x02, far, 0x00, 0x0b, 0x00)
	add("type in a local", map[byte][]byte{secCode: vec(secCode, bodyEmpty,
		append(bs(5, 1, 1, 0x63, far), 0x0b), bodyEmpty)})
	add("ref.null", nil, 0xd0, far, 0x1a)
	add("memory.init", inData, 0x41, 0, 0x41, 0, 0x41, 0, 0xfc, 8, far, 0)
	add("memory.init without a data count", nil, 0x41, 0, 0x41, 0, 0x41, 0, 0xfc, 8, 1, 0)
	add("data.drop", inData, 0xfc, 9, far)
	add("data.drop without a data count", nil, 0xfc, 9, 1)
	add("type of a function", map[byte][]byte{secFunction: vec(secFunction, bs(0), bs(far), bs(0))})
	add("type of a global", map[byte][]byte{secGlobal: vec(secGlobal,
		bs(0x63, far, 1, 0xd0, far, 0x0b))})
	add("type of a table", map[byte][]byte{secTable: vec(secTable, bs(0x63, far, 0, 1))})
	add("start", map[byte][]byte{secExport: sec(secStart, far)})
	add("export of a function", map[byte][]byte{secExport: vec(secExport,
		exportOf("f", kindFunc, far))})
	add("export of a global", map[byte][]byte{secExport: vec(secExport,
		exportOf("g", kindGlobal, far))})
	add("export of a table", map[byte][]byte{secExport: vec(secExport,
		exportOf("t", kindTable, far))})
	add("element, function", map[byte][]byte{secElement: vec(secElement, bs(1, 0, 1, far))})
	add("element, ref.func", map[byte][]byte{secElement: vec(secElement,
		bs(5, 0x70, 1, 0xd2, far, 0x0b))})
	add("element, global", map[byte][]byte{secElement: vec(secElement,
		bs(5, 0x70, 1, 0x23, far, 0x0b))})
	add("element for a table", map[byte][]byte{
		secElement: vec(secElement, bs(2, far, 0x41, 0, 0x0b, 0, 1, 0))})
	add("element at a global", map[byte][]byte{secElement: vec(secElement,
		bs(0, 0x23, far, 0x0b, 1, 0))})
	add("global, ref.func", map[byte][]byte{secGlobal: vec(secGlobal,
		bs(0x70, 1, 0xd2, far, 0x0b))})
	add("global, global", map[byte][]byte{secGlobal: vec(secGlobal, mutI32, mutI32,
		bs(0x7f, 1, 0x23, far, 0x0b))})
	add("table with a value", map[byte][]byte{
		secTable: vec(secTable, bs(0x40, 0, 0x70, 0, 1, 0xd2, far, 0x0b))})
	add("data at a global that is not imported", map[byte][]byte{
		secData: vec(secData, bs(0, 0x23, 0, 0x0b, 1, 'x'))})
	add("data at a global behind the last", map[byte][]byte{
		secData: vec(secData, bs(0, 0x23, far, 0x0b, 1, 'x'))})
	add("data at two values, and at none", map[byte][]byte{
		secData: vec(secData, bs(0, 0x41, 0, 0x41, 0, 0x0b, 1, 'x'), bs(0, 0x0b, 1, 'x'))})
	add("data at an i64", map[byte][]byte{secData: vec(secData, bs(0, 0x42, 0, 0x0b, 1, 'x'))})
	add("two exports of a name", map[byte][]byte{
		secExport: vec(secExport, exportOf("f", kindFunc, 0), exportOf("f", kindFunc, 1))})
	return all
}

// The module itself is valid, so that what follows is refused for what it reaches for.
func TestModulesThatReachForNothingAreAccepted(t *testing.T) {
	module := slices.Clone(reaching()[0].module)
	at := strings.Index(string(module), "\x10\x03\x0b")
	module[at+1] = 2
	p := newProperties(t)
	if err := p.compile(module); err != nil {
		t.Fatal(err)
	}
	if p.check(t, module); p.ran == 0 {
		t.Error("it does not run")
	}
}

// What wazero refuses is refused, and not only when it gets the result: what the rewrite adds makes
// each of these valid.
func TestNoCodeReachesWhatIsAdded(t *testing.T) {
	p := newProperties(t)
	for _, c := range reaching() {
		if p.compile(c.module) == nil {
			t.Errorf("%s: wazero takes it as it is, so it tests nothing", c.name)
		}
		out, _, err := Rewrite(c.module, Options{})
		if err != nil {
			continue
		}
		for _, rt := range p.runtimes {
			if compile(rt, out) == nil {
				t.Errorf("%s: accepted", c.name)
			}
		}
	}
}

// An offset that needs a feature needs it rewritten, too.
func TestFeaturesOfConstantsAreNotLost(t *testing.T) {
	module := build(vec(secMemory, memory1), vec(secData,
		bs(0, 0x41, 1, 0x41, 2, 0x6a, 0x0b, 1, 'x')))
	out, _, err := Rewrite(module, Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	config := wazero.NewRuntimeConfig().WithCoreFeatures(api.CoreFeaturesV2)
	rt := wazero.NewRuntimeWithConfig(ctx, config)
	defer rt.Close(ctx)
	if compile(rt, module) == nil || compile(rt, out) == nil {
		t.Error("a runtime without extended constants takes it")
	}
}

// wazero skips an active element segment that does not fit, with all behind it, without a word.
func TestElementSegmentThatDoesNotFitFailsTheFirstRun(t *testing.T) {
	module := func(table []byte, elems ...[]byte) []byte {
		return build(vec(secType, typeVoid), vec(secFunction, bs(0)), vec(secTable, table),
			vec(secGlobal, bs(0x7f, 0, 0x41, 7, 0x0b)), vec(secElement, elems...),
			vec(secCode, body(0x41, 0, 0xd0, 0x70, 0x26, 0, 0x0b)))
	}
	two := bs(0x70, 0, 2)
	for _, c := range []struct {
		name   string
		module []byte
		fails  bool
	}{
		{"fits", module(two, bs(0, 0x41, 1, 0x0b, 1, 0)), false},
		{"at the end, empty", module(two, bs(0, 0x41, 2, 0x0b, 0)), false},
		{"behind the end, empty", module(two, bs(0, 0x41, 3, 0x0b, 0)), true},
		{"one too many", module(two, bs(0, 0x41, 1, 0x0b, 2, 0, 0)), true},
		{"just behind the end", module(two, bs(0, 0x41, 2, 0x0b, 1, 0)), true},
		{"below zero", module(two, bs(0, 0x41, 0x7f, 0x0b, 1, 0)), true},
		{"at a constant", module(two, bs(0, 0x23, 0, 0x0b, 1, 0)), true},
		{"at a sum that fits", module(two, bs(0, 0x41, 0x7f, 0x41, 2, 0x6a, 0x0b, 1, 0)), false},
		{"the second one", module(two, bs(0, 0x41, 0, 0x0b, 1, 0), bs(0, 0x41, 9, 0x0b, 1, 0)),
			true},
	} {
		g := instantiate(t, c.module)
		if !c.fails && g.info.Init == "" {
			continue
		}
		_, err := g.try(g.info.Init)
		if (err != nil) != c.fails || err != nil && !strings.Contains(err.Error(),
			"invalid table access") {
			t.Errorf("%s: %v", c.name, err)
		}
		if !c.fails {
			g.call(g.info.Func, 0)
		}
	}
}

// If it happens all the same, no host gets a null where a function should be.
func TestReferencesThatInstantiationHasLeftOutAreATrap(t *testing.T) {
	g := instantiate(t, build(vec(secType, typeVoid), vec(secFunction, bs(0)),
		vec(secTable, bs(0x70, 0, 2)),
		vec(secElement, bs(0, 0x41, 9, 0x0b, 1, 0)), vec(secCode,
			body(0x41, 0, 0xd0, 0x70, 0x26, 0, 0x0b))))
	g.wantTrap(g.info.Func, 0)
}

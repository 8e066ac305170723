package rewriter

import (
	"testing"

	"github.com/tetratelabs/wazero/api"
)

// typedModule keeps references of the type (ref null $i32) and (ref $i32) in globals and in a table.
func typedModule() []byte {
	return build(
		vec(secType, typeVoid, typeI32),
		vec(secFunction, bs(1), bs(1), bs(0), bs(0), bs(1), bs(0), bs(1)),
		vec(secTable, bs(0x63, 1, 0, 1)),
		vec(secGlobal,
			bs(0x63, 1, 1, 0xd2, 0, 0x0b),  // 0: (mut (ref null 1)) = function 0
			bs(0x64, 1, 1, 0xd2, 1, 0x0b)), // 1: (mut (ref 1)) = function 1
		vec(secExport,
			exportOf("swap", kindFunc, 3), exportOf("call", kindFunc, 4),
			exportOf("store", kindFunc, 5), exportOf("call_stored", kindFunc, 6)),
		vec(secCode,
			body(0x41, 10, 0x0b),
			body(0x41, 20, 0x0b),
			bodyEmpty,
			body(0x23, 1, 0x23, 0, 0xd4, 0x24, 1, 0x24, 0, 0x0b), // swap the globals
			body(0x23, 1, 0x14, 1, 0x0b),                         // call global 1
			body(0x41, 0, 0x23, 1, 0x26, 0, 0x0b),                // table[0] = global 1
			body(0x41, 0, 0x25, 0, 0x14, 1, 0x0b)))               // call table[0]
}

func TestTypedReferencesSurvive(t *testing.T) {
	g := instantiate(t, typedModule())
	nullable, never, table := g.info.Globals[0], g.info.Globals[1], g.info.Tables[0]
	if nullable.Type != FuncRef || never.Type != FuncRef || table.Type != FuncRef {
		t.Fatalf("%+v", g.info)
	}
	g.call("swap")
	g.call("store")
	a, b := g.functionOf(g.call(nullable.Getter)[0]), g.functionOf(g.call(never.Getter)[0])
	if a != 1 || b != 0 {
		t.Errorf("globals refer to functions %d and %d, want 1 and 0", a, b)
	}
	state := g.tableState(table)

	g = instantiate(t, typedModule())
	g.call(nullable.Setter, uint64(a))
	g.call(never.Setter, uint64(b))
	g.restoreTable(table, state)
	g.want("call", nil, 10)
	g.want("call_stored", nil, 10)
	g.call("swap")
	g.want("call", nil, 20)
	g.call(nullable.Setter, api.EncodeI32(-1))
	g.wantTrap("swap")
	g.wantTrap(never.Setter, api.EncodeI32(-1))
	g.wantTrap(never.Setter, 2) // of another type
	g.want(table.Grow, []uint64{1, 1}, 1)
	g.want(table.Grow, []uint64{1, api.EncodeI32(-1)}, 2)
}

func TestSameTypesAreFoundThroughGroups(t *testing.T) {
	ref := func(i uint32) []valType { return []valType{{kind: FuncRef, concrete: true, index: i}} }
	types := []funcType{
		{groupStart: 0, groupEnd: 1},                                               // 0: () -> ()
		{groupStart: 1, groupEnd: 2},                                               // 1: the same
		{groupStart: 2, groupEnd: 3, params: ref(0)},                               // 2: (ref 0) -> ()
		{groupStart: 3, groupEnd: 4, params: ref(1)},                               // 3: the same, by way of 1
		{groupStart: 4, groupEnd: 6, params: ref(5)}, {groupStart: 4, groupEnd: 6}, // 4, 5: a group
		{groupStart: 6, groupEnd: 8, params: ref(7)}, {groupStart: 6, groupEnd: 8}, // 6, 7: the same group
		{groupStart: 8, groupEnd: 9, params: ref(8)},   // 8: refers to itself
		{groupStart: 9, groupEnd: 10, params: ref(9)},  // 9: the same
		{groupStart: 10, groupEnd: 11, params: ref(8)}, // 10: not the same: refers to 8
	}
	ids := canonicalTypes(types)
	for _, pair := range []struct {
		a, b int
		same bool
	}{{0, 1, true}, {2, 3, true}, {4, 6, true}, {5, 7, true}, {8, 9, true}, {0, 5, false}, {2, 0, false}, {4, 5, false}, {9, 10, false}} {
		if same := ids[pair.a] == ids[pair.b]; same != pair.same {
			t.Errorf("types %d and %d: same = %v (%v)", pair.a, pair.b, same, ids)
		}
	}
}

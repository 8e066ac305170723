package rewriter

import (
	"testing"

	"github.com/tetratelabs/wazero/api"
)

// typedModule keeps references of the type (ref null $i32) and (ref $i32) in globals and in a
// table.
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

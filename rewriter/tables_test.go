package rewriter

import (
	"reflect"
	"testing"
	"unsafe"

	"github.com/tetratelabs/wazero/api"
)

// target is what a reference of wazero's compiler points to: machine code and the instance it
// belongs to. Each evaluation of ref.func makes a new reference, so that references themselves
// cannot be compared.
func target(ref uint64) [2]uintptr {
	return **(**[2]uintptr)(unsafe.Pointer(&ref))
}

// functionOf tells which function a raw reference is, as a host does: by comparing it with those of
// all functions.
func (g *guest) functionOf(ref uint64) int32 {
	if ref == 0 {
		return -1
	}
	for i := range g.info.FuncCount {
		if target(g.call(g.info.Func, uint64(i))[0]) == target(ref) {
			return int32(i)
		}
	}
	g.t.Fatalf("reference %#x is of no function", ref)
	return 0
}

// tableState reads a table as function indices.
func (g *guest) tableState(tab Table) []int32 {
	var state []int32
	for i := range g.call(tab.Size)[0] {
		state = append(state, g.functionOf(g.call(tab.Get, i)[0]))
	}
	return state
}

// restoreTable gives a fresh table a state.
func (g *guest) restoreTable(tab Table, state []int32) {
	if more := uint64(len(state)) - g.call(tab.Size)[0]; more > 0 {
		g.call(tab.Grow, more, api.EncodeI32(state[len(state)-1]))
	}
	for i, f := range state {
		g.call(tab.Set, uint64(i), api.EncodeI32(f))
	}
}

func (g *guest) tablesChanged() bool {
	flag := g.mod.ExportedGlobal(g.info.TablesChanged).(api.MutableGlobal)
	changed := uint32(flag.Get()) != 0
	flag.Set(0)
	return changed
}

func TestTablesSurvive(t *testing.T) {
	wasm := readModule(t, "tables")
	g := instantiate(t, wasm).firstRun()
	var indices []uint32
	for _, tab := range g.info.Tables {
		indices = append(indices, tab.Index)
	}
	if want := []uint32{1, 2, 3}; !reflect.DeepEqual(indices, want) {
		t.Fatalf("tables %v, want %v", indices, want)
	}
	table, other := g.info.Tables[0], g.info.Tables[1]
	if table.Min != 4 || table.Max != 10 || !table.HasMax || other.HasMax {
		t.Errorf("limits: %+v %+v", table, other)
	}
	if g.info.FuncCount != 17 {
		t.Errorf("FuncCount = %d", g.info.FuncCount)
	}
	steps := []struct {
		call    string
		params  []uint64
		changes bool
		table   []int32
		other   []int32
	}{
		{"call", []uint64{2}, false, []int32{1, 2, 0, -1}, []int32{-1, -1}},
		{"swap", []uint64{0, 2}, true, []int32{0, 2, 1, -1}, []int32{-1, -1}},
		{"grow", []uint64{2}, true, []int32{0, 2, 1, -1, 3, 3}, []int32{-1, -1}},
		{"clear", []uint64{1}, true, []int32{0, -1, 1, -1, 3, 3}, []int32{-1, -1}},
		{"init", []uint64{2}, true, []int32{0, -1, 1, -1, 3, 3}, []int32{2, 3}},
		{"copy", nil, true, []int32{2, 3, 1, -1, 3, 3}, []int32{2, 3}},
		{"drop", nil, false, []int32{2, 3, 1, -1, 3, 3}, []int32{2, 3}},
		{"call_fixed", nil, false, []int32{2, 3, 1, -1, 3, 3}, []int32{2, 3}},
	}
	for _, s := range steps {
		g.call(s.call, s.params...)
		if changed := g.tablesChanged(); changed != s.changes {
			t.Errorf("%s: changed = %v, want %v", s.call, changed, s.changes)
		}
		// A resumed instance has the same tables and goes on from there.
		resumed := instantiate(t, wasm)
		resumed.restoreTable(table, g.tableState(table))
		resumed.restoreTable(other, g.tableState(other))
		if resumed.tablesChanged() {
			t.Errorf("%s: restoring a table marks it as changed", s.call)
		}
		g = resumed
		if got := g.tableState(table); !reflect.DeepEqual(got, s.table) {
			t.Errorf("after %s: table %v, want %v", s.call, got, s.table)
		}
		if got := g.tableState(other); !reflect.DeepEqual(got, s.other) {
			t.Errorf("after %s: other table %v, want %v", s.call, got, s.other)
		}
	}
	g.want("call", []uint64{0}, 2)
	g.want("call", []uint64{1}, 3)
	g.wantTrap("call", 3)
	g.want("call_other", []uint64{1}, 3)
	g.wantTrap(table.Set, 0, 99)
	if got := g.call(table.Grow, 100, api.EncodeI32(-1)); int32(got[0]) != -1 {
		t.Errorf("growing beyond the maximum: %d", got)
	}
}

func TestFuncrefGlobalSurvives(t *testing.T) {
	g := instantiate(t, readModule(t, "tables")).firstRun()
	fav := g.info.Globals[0]
	if fav.Type != FuncRef || fav.Name != "favourite" {
		t.Fatalf("%+v", fav)
	}
	read := func() int32 { return g.functionOf(g.call(fav.Getter)[0]) }
	if got := read(); got != 2 {
		t.Errorf("at first it is function %d, want 2", got)
	}
	g.call("like", 2)
	if got := read(); got != 0 {
		t.Errorf("then it is function %d, want 0", got)
	}
	if raw, got := g.mod.ExportedGlobal(fav.Export).Get(), g.call(fav.Getter)[0]; raw != got {
		t.Errorf("the exported global is %#x, the getter says %#x", raw, got)
	}
	for _, f := range []int32{-1, 3, 0} {
		g.call(fav.Setter, api.EncodeI32(f))
		if got := read(); got != f {
			t.Errorf("set to %d, is %d", f, got)
		}
	}
	g.wantTrap(fav.Setter, 17)
}

func TestExternrefsAreKnownToBeNullOrNot(t *testing.T) {
	g := instantiate(t, readModule(t, "tables")).firstRun()
	hosts, host := g.info.Tables[2], g.info.Globals[1]
	if hosts.Type != ExternRef || hosts.Get != "" || hosts.Set != "" {
		t.Fatalf("%+v", hosts)
	}
	g.want(hosts.AllNull, nil, 1)
	g.want(hosts.Grow, []uint64{3, api.EncodeI32(-1)}, 1)
	g.want(hosts.Size, nil, 4)
	g.want(hosts.AllNull, nil, 1)
	g.call("set_host", 3, 77)
	g.want(hosts.AllNull, nil, 0)
	g.call("set_host", 3, 0)
	g.call("set_host", 0, 77)
	g.want(hosts.AllNull, nil, 0)

	g.want(host.IsNull, nil, 1)
	g.call("set_host_global", 5)
	g.want(host.IsNull, nil, 0)
}

func TestDroppedElementSegments(t *testing.T) {
	g := instantiate(t, readModule(t, "tables")).firstRun()
	var spare, empty Segment
	if len(g.info.Segments) == 2 {
		spare, empty = g.info.Segments[0], g.info.Segments[1]
	}
	if spare.Kind != ElemSegment || spare.Index != 2 || empty.Kind != ElemSegment ||
		empty.Index != 3 {
		t.Fatalf("Segments = %+v", g.info.Segments)
	}
	g.call("init", 2)
	g.call("drop")
	for _, s := range g.info.Segments {
		if uint32(g.mod.ExportedGlobal(s.Dropped).Get()) != 1 {
			t.Errorf("%s %d: dropping was not seen", s.Kind, s.Index)
		}
	}
	g.wantTrap("init", 2)
	g.call("init", 0)

	g = instantiate(t, readModule(t, "tables"))
	g.call(spare.Drop)
	g.call(empty.Drop)
	g.wantTrap("init", 1)
	g.call("init_empty")
}

// Active and declared segments are dropped by each instantiation, so there is nothing to keep.
func TestOnlyPassiveElementSegmentsAreKept(t *testing.T) {
	all := []byte{}
	for i := range byte(3) { // table.init with and elem.drop of each segment
		all = append(all, 0x41, 0, 0x41, 0, 0x41, 0, 0xfc, 12, i, 0, 0xfc, 13, i)
	}
	_, info, err := Rewrite(build(vec(secType, typeVoid), vec(secFunction, bs(0)),
		vec(secTable, bs(0x70, 0, 1)),
		vec(secElement, bs(0, 0x41, 0, 0x0b, 1, 0), bs(1, 0, 1, 0),
			bs(3, 0, 1, 0)), // active, passive, declared
		vec(secCode, body(append(all, 0x0b)...))), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if len(info.Segments) != 1 || info.Segments[0].Kind != ElemSegment ||
		info.Segments[0].Index != 1 {
		t.Errorf("Segments = %+v", info.Segments)
	}
}

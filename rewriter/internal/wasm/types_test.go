package wasm

import "testing"

func TestSameTypesAreFoundThroughGroups(t *testing.T) {
	ref := func(i uint32) []Type { return []Type{{Kind: FuncRef, Concrete: true, Index: i}} }
	types := []FuncType{
		{GroupStart: 0, GroupEnd: 1}, // 0: () -> ()
		{GroupStart: 1, GroupEnd: 2}, // 1: the same
		// 2: (ref 0) -> ()
		{GroupStart: 2, GroupEnd: 3, Params: ref(0)},
		// 3: the same, by way of 1
		{GroupStart: 3, GroupEnd: 4, Params: ref(1)},
		{GroupStart: 4, GroupEnd: 6, Params: ref(5)}, {GroupStart: 4, GroupEnd: 6}, // 4, 5: a group
		{GroupStart: 6, GroupEnd: 8, Params: ref(7)}, {GroupStart: 6,
			GroupEnd: 8}, // 6, 7: the same group
		{GroupStart: 8, GroupEnd: 9, Params: ref(8)},   // 8: refers to itself
		{GroupStart: 9, GroupEnd: 10, Params: ref(9)},  // 9: the same
		{GroupStart: 10, GroupEnd: 11, Params: ref(8)}, // 10: not the same: refers to 8
	}
	ids := CanonicalTypes(types)
	for _, pair := range []struct {
		a, b int
		same bool
	}{
		{0, 1, true}, {2, 3, true}, {4, 6, true}, {5, 7, true}, {8, 9, true},
		{0, 5, false}, {2, 0, false}, {4, 5, false}, {9, 10, false},
	} {
		if same := ids[pair.a] == ids[pair.b]; same != pair.same {
			t.Errorf("types %d and %d: same = %v (%v)", pair.a, pair.b, same, ids)
		}
	}
}

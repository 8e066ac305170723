package wasm

import "testing"

// The table is a list of names, so one that is missing would shift all that follow.
func TestInstructionsAreAtTheirNumbers(t *testing.T) {
	for op, want := range map[Op]string{
		0x1b: "select", 0x28: "i32.load", 0x3e: "i64.store32", 0x45: "i32.eqz", 0x66: "f64.ge",
		0x8a: "i64.rotr", 0xa6: "f64.copysign", 0xbf: "f64.reinterpret_i64", 0xc4: "i64.extend32_s",
		0xd6: "br_on_non_null", 0xfc<<16 | 0x07: "i64.trunc_sat_f64_u", 0xfc<<16 |
			0x11: "table.fill",
		0xfd<<16 | 0x0b: "v128.store", 0xfd<<16 | 0x22: "f64x2.replace_lane",
		0xfd<<16 | 0x53: "v128.any_true", 0xfd<<16 | 0x5f: "f64x2.promote_low_f32x4",
		0xfd<<16 | 0x7f: "i32x4.extadd_pairwise_i16x8_u", 0xfd<<16 | 0xba: "i32x4.dot_i16x8_s",
		0xfd<<16 | 0xd5: "i64x2.mul", 0xfd<<16 | 0xff: "f64x2.convert_low_i32x4_u",
		0xfd<<16 | 0x113: "i32x4.relaxed_dot_i8x16_i7x16_add_s",
		0xfe<<16 | 0x1d:  "i64.atomic.store32", 0xfe<<16 | 0x4e: "i64.atomic.rmw32.cmpxchg_u",
		0xfb<<16 | 0x1e: "i31.get_u", OpTableInit: "table.init", OpTableCopy: "table.copy",
		OpI64x2ReplaceLane: "i64x2.replace_lane", OpI64x2ExtractLane: "i64x2.extract_lane",
		OpI64x2Splat: "i64x2.splat", OpRefAsNonNull: "ref.as_non_null",
	} {
		if got := op.String(); got != want {
			t.Errorf("%#x is %s, want %s", uint32(op), got, want)
		}
	}
}

// Every kind of immediate, in one function.
func TestWalkFindsEachInstruction(t *testing.T) {
	c := []byte{
		0x02, 0x40, // block
		0x03, 0x7f, // loop (result i32)
		0x04, 0x63, 0x05, // if (result (ref null 5))
		0x05, 0x0b, 0x0b, // else, end, end
		0x06, 0x80, 0x01, 0x18, 0, // try (type 128), delegate
		0x1f, 0x40, 2, 0, 1, 2, 3, 0, 0x0b, // try_table with two clauses
		0x0e, 2, 0, 1, 0, // br_table
		0x1c, 1, 0x64, 0x70, // select (result (ref func))
		0x11, 1, 2, // call_indirect
		0x28, 2, 0x80, 1, // i32.load offset=128
		0x41, 0xff, 0, 0x42, 0x7f, 0x43, 0, 0, 0, 0, 0x44, 0, 0, 0, 0, 0, 0, 0, 0, // constants
		0xd0, 0x6f, // ref.null extern
		0xfd, 12, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, // v128.const
		0xfd, 0x54, 0, 8, 15, // v128.load8_lane
		0xfd, 0x80, 1, // i16x8.abs
		0xfe, 3, 0, // atomic.fence
		0xfc, 12, 3, 4, // table.init 3 of table 4
		0x0b, 0x0b}
	want := []string{"block", "loop", "if", "else", "end", "end", "try", "delegate", "try_table",
		"end", "br_table", "select", "call_indirect",
		"i32.load", "i32.const", "i64.const", "f32.const", "f64.const", "ref.null", "v128.const",
		"v128.load8_lane",
		"i16x8.abs",
		"atomic.fence", "table.init", "end", "end"}
	var got []string
	at := 0
	err := Walk(c, func(in *Instr) error {
		if in.Start != at {
			t.Errorf("%s starts at %d, the one before it ended at %d", in.Op, in.Start, at)
		}
		at = in.End
		got = append(got, in.Op.String())
		if in.Op == OpTableInit && (in.Index != 3 || in.Index2 != 4) {
			t.Errorf("table.init %d %d", in.Index, in.Index2)
		}
		return nil
	})
	if err != nil || at != len(c) {
		t.Errorf("walk ended at %d of %d: %v", at, len(c), err)
	}
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			t.Fatalf("instruction %d is %s, want %s", i, got[i], want[i])
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d instructions, want %d", len(got), len(want))
	}
}

package wasm

var plainOps = func() (table [256]opInfo) {
	for _, o := range []ops{
		{0x00, immNone, "", "unreachable"},
		{0x01, immNone, ":", "nop"},
		{0x02, immBlockType, "", "block loop if"},
		{0x05, immNone, "", "else"},
		{0x06, immBlockType, "", "try"},
		{0x07, immTag, "", "catch throw"},
		{0x09, immLabel, "", "rethrow"},
		{0x0a, immNone, "", "throw_ref end"},
		{0x0c, immLabel, "", "br br_if"},
		{0x0e, immLabels, "", "br_table"},
		{0x0f, immNone, "", "return"},
		{0x10, immFunc, "", "call"},
		{0x11, immTypeTable, "", "call_indirect"},
		{0x12, immFunc, "", "return_call"},
		{0x13, immTypeTable, "", "return_call_indirect"},
		{0x14, immType, "", "call_ref return_call_ref"},
		{0x18, immLabel, "", "delegate"},
		{0x19, immNone, "", "catch_all drop select"},
		{0x1c, immTypes, "", "select"},
		{0x1f, immCatches, "", "try_table"},
		{0x20, immLocal, "", "local.get local.set local.tee"},
		{0x23, immGlobal, "", "global.get global.set"},
		{0x25, immTable, "", "table.get table.set"},
		{0x28, immMemArg, "i:i", "i32.load"},
		{0x29, immMemArg, "i:l", "i64.load"},
		{0x2a, immMemArg, "i:f", "f32.load"},
		{0x2b, immMemArg, "i:d", "f64.load"},
		{0x2c, immMemArg, "i:i", "i32.load8_s i32.load8_u i32.load16_s i32.load16_u"},
		{0x30, immMemArg, "i:l", `i64.load8_s i64.load8_u i64.load16_s i64.load16_u i64.load32_s
			i64.load32_u`},
		{0x36, immMemArg, "ii:", "i32.store"},
		{0x37, immMemArg, "il:", "i64.store"},
		{0x38, immMemArg, "if:", "f32.store"},
		{0x39, immMemArg, "id:", "f64.store"},
		{0x3a, immMemArg, "ii:", "i32.store8 i32.store16"},
		{0x3c, immMemArg, "il:", "i64.store8 i64.store16 i64.store32"},
		{0x3f, immMemory, ":i", "memory.size"},
		{0x40, immMemory, "i:i", "memory.grow"},
		{0x41, immI32, ":i", "i32.const"},
		{0x42, immI64, ":l", "i64.const"},
		{0x43, imm4Bytes, ":f", "f32.const"},
		{0x44, imm8Bytes, ":d", "f64.const"},
		{0x45, immNone, "i:i", "i32.eqz"},
		{0x46, immNone, "ii:i", `i32.eq i32.ne i32.lt_s i32.lt_u i32.gt_s i32.gt_u i32.le_s i32.le_u
			i32.ge_s i32.ge_u`},
		{0x50, immNone, "l:i", "i64.eqz"},
		{0x51, immNone, "ll:i", `i64.eq i64.ne i64.lt_s i64.lt_u i64.gt_s i64.gt_u i64.le_s i64.le_u
			i64.ge_s i64.ge_u`},
		{0x5b, immNone, "ff:i", "f32.eq f32.ne f32.lt f32.gt f32.le f32.ge"},
		{0x61, immNone, "dd:i", "f64.eq f64.ne f64.lt f64.gt f64.le f64.ge"},
		{0x67, immNone, "i:i", "i32.clz i32.ctz i32.popcnt"},
		{0x6a, immNone, "ii:i", `i32.add i32.sub i32.mul i32.div_s i32.div_u i32.rem_s i32.rem_u
			i32.and i32.or i32.xor i32.shl i32.shr_s i32.shr_u i32.rotl i32.rotr`},
		{0x79, immNone, "l:l", "i64.clz i64.ctz i64.popcnt"},
		{0x7c, immNone, "ll:l", `i64.add i64.sub i64.mul i64.div_s i64.div_u i64.rem_s i64.rem_u
			i64.and i64.or i64.xor i64.shl i64.shr_s i64.shr_u i64.rotl i64.rotr`},
		{0x8b, immNone, "f:f", "f32.abs f32.neg f32.ceil f32.floor f32.trunc f32.nearest f32.sqrt"},
		{0x92, immNone, "ff:f", "f32.add f32.sub f32.mul f32.div f32.min f32.max f32.copysign"},
		{0x99, immNone, "d:d", "f64.abs f64.neg f64.ceil f64.floor f64.trunc f64.nearest f64.sqrt"},
		{0xa0, immNone, "dd:d", "f64.add f64.sub f64.mul f64.div f64.min f64.max f64.copysign"},
		{0xa7, immNone, "l:i", "i32.wrap_i64"},
		{0xa8, immNone, "f:i", "i32.trunc_f32_s i32.trunc_f32_u"},
		{0xaa, immNone, "d:i", "i32.trunc_f64_s i32.trunc_f64_u"},
		{0xac, immNone, "i:l", "i64.extend_i32_s i64.extend_i32_u"},
		{0xae, immNone, "f:l", "i64.trunc_f32_s i64.trunc_f32_u"},
		{0xb0, immNone, "d:l", "i64.trunc_f64_s i64.trunc_f64_u"},
		{0xb2, immNone, "i:f", "f32.convert_i32_s f32.convert_i32_u"},
		{0xb4, immNone, "l:f", "f32.convert_i64_s f32.convert_i64_u"},
		{0xb6, immNone, "d:f", "f32.demote_f64"},
		{0xb7, immNone, "i:d", "f64.convert_i32_s f64.convert_i32_u"},
		{0xb9, immNone, "l:d", "f64.convert_i64_s f64.convert_i64_u"},
		{0xbb, immNone, "f:d", "f64.promote_f32"},
		{0xbc, immNone, "f:i", "i32.reinterpret_f32"},
		{0xbd, immNone, "d:l", "i64.reinterpret_f64"},
		{0xbe, immNone, "i:f", "f32.reinterpret_i32"},
		{0xbf, immNone, "l:d", "f64.reinterpret_i64"},
		{0xc0, immNone, "i:i", "i32.extend8_s i32.extend16_s"},
		{0xc2, immNone, "l:l", "i64.extend8_s i64.extend16_s i64.extend32_s"},
		{0xd0, immHeapType, "", "ref.null"},
		{0xd1, immNone, "", "ref.is_null"},
		{0xd2, immFunc, "", "ref.func"},
		{0xd3, immRefused, "", "ref.eq"},
		{0xd4, immNone, "", "ref.as_non_null"},
		{0xd5, immLabel, "", "br_on_null br_on_non_null"},
		{0xe0, immRefused, "", `cont.new cont.bind suspend resume resume_throw resume_throw_ref
			switch`},
		{gcPrefix, immPrefix, "", "gc misc vec atomic"},
	} {
		o.fill(table[:])
	}
	return table
}()

// prefixedOps holds the instructions behind each prefix, by their number.
var prefixedOps = func() (tables [256][]opInfo) {
	for prefix, runs := range map[byte][]ops{
		gcPrefix: gcOps, miscPrefix: miscOps, vecPrefix: vecOps, atomicPrefix: atomicOps,
	} {
		table := make([]opInfo, 0x114)
		for _, o := range runs {
			o.fill(table)
		}
		tables[prefix] = table
	}
	return tables
}()

var gcOps = []ops{
	{0x00, immRefused, "", `struct.new struct.new_default struct.get struct.get_s struct.get_u
		struct.set array.new array.new_default array.new_fixed array.new_data array.new_elem
		array.get array.get_s array.get_u array.set array.len array.fill array.copy array.init_data
		array.init_elem ref.test ref.test_null ref.cast ref.cast_null br_on_cast br_on_cast_fail
		any.convert_extern extern.convert_any ref.i31 i31.get_s i31.get_u`},
}

var miscOps = []ops{
	{0x00, immNone, "f:i", "i32.trunc_sat_f32_s i32.trunc_sat_f32_u"},
	{0x02, immNone, "d:i", "i32.trunc_sat_f64_s i32.trunc_sat_f64_u"},
	{0x04, immNone, "f:l", "i64.trunc_sat_f32_s i64.trunc_sat_f32_u"},
	{0x06, immNone, "d:l", "i64.trunc_sat_f64_s i64.trunc_sat_f64_u"},
	{0x08, immDataMemory, "iii:", "memory.init"},
	{0x09, immData, ":", "data.drop"},
	{0x0a, immMemory2, "iii:", "memory.copy"},
	{0x0b, immMemory, "iii:", "memory.fill"},
	{0x0c, immElemTable, "iii:", "table.init"},
	{0x0d, immElem, ":", "elem.drop"},
	{0x0e, immTableTable, "iii:", "table.copy"},
	{0x0f, immTable, "", "table.grow"},
	{0x10, immTable, ":i", "table.size"},
	{0x11, immTable, "", "table.fill"},
	{0x12, immRefused, "", `memory.discard i64.add128 i64.sub128 i64.mul_wide_s i64.mul_wide_u`},
}

var vecOps = []ops{
	{0x00, immMemArg, "i:v", `v128.load v128.load8x8_s v128.load8x8_u v128.load16x4_s
		v128.load16x4_u v128.load32x2_s v128.load32x2_u
		v128.load8_splat v128.load16_splat v128.load32_splat
		v128.load64_splat`},
	{0x0b, immMemArg, "iv:", "v128.store"},
	{0x0c, imm16Bytes, ":v", "v128.const"},
	{0x0d, imm16Bytes, "vv:v", "i8x16.shuffle"},
	{0x0e, immNone, "vv:v", "i8x16.swizzle"},
	{0x0f, immNone, "i:v", "i8x16.splat i16x8.splat i32x4.splat"},
	{0x12, immNone, "l:v", "i64x2.splat"},
	{0x13, immNone, "f:v", "f32x4.splat"},
	{0x14, immNone, "d:v", "f64x2.splat"},
	{0x15, immByte, "v:i", "i8x16.extract_lane_s i8x16.extract_lane_u"},
	{0x17, immByte, "vi:v", "i8x16.replace_lane"},
	{0x18, immByte, "v:i", "i16x8.extract_lane_s i16x8.extract_lane_u"},
	{0x1a, immByte, "vi:v", "i16x8.replace_lane"},
	{0x1b, immByte, "v:i", "i32x4.extract_lane"},
	{0x1c, immByte, "vi:v", "i32x4.replace_lane"},
	{0x1d, immByte, "v:l", "i64x2.extract_lane"},
	{0x1e, immByte, "vl:v", "i64x2.replace_lane"},
	{0x1f, immByte, "v:f", "f32x4.extract_lane"},
	{0x20, immByte, "vf:v", "f32x4.replace_lane"},
	{0x21, immByte, "v:d", "f64x2.extract_lane"},
	{0x22, immByte, "vd:v", "f64x2.replace_lane"},
	{0x23, immNone, "vv:v", `i8x16.eq i8x16.ne i8x16.lt_s i8x16.lt_u i8x16.gt_s i8x16.gt_u
		i8x16.le_s i8x16.le_u i8x16.ge_s i8x16.ge_u
		i16x8.eq i16x8.ne i16x8.lt_s i16x8.lt_u i16x8.gt_s i16x8.gt_u i16x8.le_s i16x8.le_u
		i16x8.ge_s i16x8.ge_u
		i32x4.eq i32x4.ne i32x4.lt_s i32x4.lt_u i32x4.gt_s i32x4.gt_u i32x4.le_s i32x4.le_u
		i32x4.ge_s i32x4.ge_u
		f32x4.eq f32x4.ne f32x4.lt f32x4.gt f32x4.le f32x4.ge
		f64x2.eq f64x2.ne f64x2.lt f64x2.gt f64x2.le f64x2.ge`},
	{0x4d, immNone, "v:v", "v128.not"},
	{0x4e, immNone, "vv:v", "v128.and v128.andnot v128.or v128.xor"},
	{0x52, immNone, "vvv:v", "v128.bitselect"},
	{0x53, immNone, "v:i", "v128.any_true"},
	{0x54, immMemArgLane, "iv:v", `v128.load8_lane v128.load16_lane v128.load32_lane
		v128.load64_lane`},
	{0x58, immMemArgLane, "iv:", `v128.store8_lane v128.store16_lane v128.store32_lane
		v128.store64_lane`},
	{0x5c, immMemArg, "i:v", "v128.load32_zero v128.load64_zero"},
	{0x5e, immNone, "v:v", `f32x4.demote_f64x2_zero f64x2.promote_low_f32x4
		i8x16.abs i8x16.neg i8x16.popcnt`},
	{0x63, immNone, "v:i", "i8x16.all_true i8x16.bitmask"},
	{0x65, immNone, "vv:v", "i8x16.narrow_i16x8_s i8x16.narrow_i16x8_u"},
	{0x67, immNone, "v:v", "f32x4.ceil f32x4.floor f32x4.trunc f32x4.nearest"},
	{0x6b, immNone, "vi:v", "i8x16.shl i8x16.shr_s i8x16.shr_u"},
	{0x6e, immNone, "vv:v", `i8x16.add i8x16.add_sat_s i8x16.add_sat_u i8x16.sub i8x16.sub_sat_s
		i8x16.sub_sat_u`},
	{0x74, immNone, "v:v", "f64x2.ceil f64x2.floor"},
	{0x76, immNone, "vv:v", "i8x16.min_s i8x16.min_u i8x16.max_s i8x16.max_u"},
	{0x7a, immNone, "v:v", "f64x2.trunc"},
	{0x7b, immNone, "vv:v", "i8x16.avgr_u"},
	{0x7c, immNone, "v:v", `i16x8.extadd_pairwise_i8x16_s i16x8.extadd_pairwise_i8x16_u
		i32x4.extadd_pairwise_i16x8_s i32x4.extadd_pairwise_i16x8_u i16x8.abs i16x8.neg`},
	{0x82, immNone, "vv:v", "i16x8.q15mulr_sat_s"},
	{0x83, immNone, "v:i", "i16x8.all_true i16x8.bitmask"},
	{0x85, immNone, "vv:v", "i16x8.narrow_i32x4_s i16x8.narrow_i32x4_u"},
	{0x87, immNone, "v:v", `i16x8.extend_low_i8x16_s i16x8.extend_high_i8x16_s
		i16x8.extend_low_i8x16_u i16x8.extend_high_i8x16_u`},
	{0x8b, immNone, "vi:v", "i16x8.shl i16x8.shr_s i16x8.shr_u"},
	{0x8e, immNone, "vv:v", `i16x8.add i16x8.add_sat_s i16x8.add_sat_u i16x8.sub i16x8.sub_sat_s
		i16x8.sub_sat_u`},
	{0x94, immNone, "v:v", "f64x2.nearest"},
	{0x95, immNone, "vv:v", `i16x8.mul i16x8.min_s i16x8.min_u i16x8.max_s i16x8.max_u -
		i16x8.avgr_u i16x8.extmul_low_i8x16_s i16x8.extmul_high_i8x16_s i16x8.extmul_low_i8x16_u
		i16x8.extmul_high_i8x16_u`},
	{0xa0, immNone, "v:v", "i32x4.abs i32x4.neg"},
	{0xa3, immNone, "v:i", "i32x4.all_true i32x4.bitmask"},
	{0xa7, immNone, "v:v", `i32x4.extend_low_i16x8_s i32x4.extend_high_i16x8_s
		i32x4.extend_low_i16x8_u i32x4.extend_high_i16x8_u`},
	{0xab, immNone, "vi:v", "i32x4.shl i32x4.shr_s i32x4.shr_u"},
	{0xae, immNone, "vv:v", `i32x4.add - - i32x4.sub - - - i32x4.mul i32x4.min_s i32x4.min_u
		i32x4.max_s i32x4.max_u i32x4.dot_i16x8_s - i32x4.extmul_low_i16x8_s
		i32x4.extmul_high_i16x8_s i32x4.extmul_low_i16x8_u i32x4.extmul_high_i16x8_u`},
	{0xc0, immNone, "v:v", "i64x2.abs i64x2.neg"},
	{0xc3, immNone, "v:i", "i64x2.all_true i64x2.bitmask"},
	{0xc7, immNone, "v:v", `i64x2.extend_low_i32x4_s i64x2.extend_high_i32x4_s
		i64x2.extend_low_i32x4_u i64x2.extend_high_i32x4_u`},
	{0xcb, immNone, "vi:v", "i64x2.shl i64x2.shr_s i64x2.shr_u"},
	{0xce, immNone, "vv:v", `i64x2.add - - i64x2.sub - - - i64x2.mul i64x2.eq i64x2.ne i64x2.lt_s
		i64x2.gt_s i64x2.le_s i64x2.ge_s i64x2.extmul_low_i32x4_s i64x2.extmul_high_i32x4_s
		i64x2.extmul_low_i32x4_u i64x2.extmul_high_i32x4_u`},
	{0xe0, immNone, "v:v", "f32x4.abs f32x4.neg - f32x4.sqrt"},
	{0xe4, immNone, "vv:v", `f32x4.add f32x4.sub f32x4.mul f32x4.div f32x4.min f32x4.max f32x4.pmin
		f32x4.pmax`},
	{0xec, immNone, "v:v", "f64x2.abs f64x2.neg - f64x2.sqrt"},
	{0xf0, immNone, "vv:v", `f64x2.add f64x2.sub f64x2.mul f64x2.div f64x2.min f64x2.max f64x2.pmin
		f64x2.pmax`},
	{0xf8, immNone, "v:v", `i32x4.trunc_sat_f32x4_s i32x4.trunc_sat_f32x4_u f32x4.convert_i32x4_s
		f32x4.convert_i32x4_u i32x4.trunc_sat_f64x2_s_zero i32x4.trunc_sat_f64x2_u_zero
		f64x2.convert_low_i32x4_s f64x2.convert_low_i32x4_u`},
	{0x100, immRefused, "", `i8x16.relaxed_swizzle i32x4.relaxed_trunc_f32x4_s
		i32x4.relaxed_trunc_f32x4_u i32x4.relaxed_trunc_f64x2_s_zero
		i32x4.relaxed_trunc_f64x2_u_zero
		f32x4.relaxed_madd f32x4.relaxed_nmadd f64x2.relaxed_madd f64x2.relaxed_nmadd
		i8x16.relaxed_laneselect i16x8.relaxed_laneselect i32x4.relaxed_laneselect
		i64x2.relaxed_laneselect f32x4.relaxed_min f32x4.relaxed_max f64x2.relaxed_min
		f64x2.relaxed_max i16x8.relaxed_q15mulr_s i16x8.relaxed_dot_i8x16_i7x16_s
		i32x4.relaxed_dot_i8x16_i7x16_add_s`},
}

var atomicOps = []ops{
	{0x00, immMemArg, "ii:i", "memory.atomic.notify"},
	{0x01, immMemArg, "iil:i", "memory.atomic.wait32"},
	{0x02, immMemArg, "ill:i", "memory.atomic.wait64"},
	{0x03, immByte, ":", "atomic.fence"},
	{0x10, immMemArg, "i:i", "i32.atomic.load"},
	{0x11, immMemArg, "i:l", "i64.atomic.load"},
	{0x12, immMemArg, "i:i", "i32.atomic.load8_u i32.atomic.load16_u"},
	{0x14, immMemArg, "i:l", "i64.atomic.load8_u i64.atomic.load16_u i64.atomic.load32_u"},
	{0x17, immMemArg, "ii:", "i32.atomic.store"},
	{0x18, immMemArg, "il:", "i64.atomic.store"},
	{0x19, immMemArg, "ii:", "i32.atomic.store8 i32.atomic.store16"},
	{0x1b, immMemArg, "il:", "i64.atomic.store8 i64.atomic.store16 i64.atomic.store32"},
	{0x1e, immMemArg, "ii:i", "i32.atomic.rmw.add"},
	{0x1f, immMemArg, "il:l", "i64.atomic.rmw.add"},
	{0x20, immMemArg, "ii:i", "i32.atomic.rmw8.add_u i32.atomic.rmw16.add_u"},
	{0x22, immMemArg, "il:l",
		`i64.atomic.rmw8.add_u i64.atomic.rmw16.add_u i64.atomic.rmw32.add_u`},
	{0x25, immMemArg, "ii:i", "i32.atomic.rmw.sub"},
	{0x26, immMemArg, "il:l", "i64.atomic.rmw.sub"},
	{0x27, immMemArg, "ii:i", "i32.atomic.rmw8.sub_u i32.atomic.rmw16.sub_u"},
	{0x29, immMemArg, "il:l",
		`i64.atomic.rmw8.sub_u i64.atomic.rmw16.sub_u i64.atomic.rmw32.sub_u`},
	{0x2c, immMemArg, "ii:i", "i32.atomic.rmw.and"},
	{0x2d, immMemArg, "il:l", "i64.atomic.rmw.and"},
	{0x2e, immMemArg, "ii:i", "i32.atomic.rmw8.and_u i32.atomic.rmw16.and_u"},
	{0x30, immMemArg, "il:l",
		`i64.atomic.rmw8.and_u i64.atomic.rmw16.and_u i64.atomic.rmw32.and_u`},
	{0x33, immMemArg, "ii:i", "i32.atomic.rmw.or"},
	{0x34, immMemArg, "il:l", "i64.atomic.rmw.or"},
	{0x35, immMemArg, "ii:i", "i32.atomic.rmw8.or_u i32.atomic.rmw16.or_u"},
	{0x37, immMemArg, "il:l", "i64.atomic.rmw8.or_u i64.atomic.rmw16.or_u i64.atomic.rmw32.or_u"},
	{0x3a, immMemArg, "ii:i", "i32.atomic.rmw.xor"},
	{0x3b, immMemArg, "il:l", "i64.atomic.rmw.xor"},
	{0x3c, immMemArg, "ii:i", "i32.atomic.rmw8.xor_u i32.atomic.rmw16.xor_u"},
	{0x3e, immMemArg, "il:l",
		`i64.atomic.rmw8.xor_u i64.atomic.rmw16.xor_u i64.atomic.rmw32.xor_u`},
	{0x41, immMemArg, "ii:i", "i32.atomic.rmw.xchg"},
	{0x42, immMemArg, "il:l", "i64.atomic.rmw.xchg"},
	{0x43, immMemArg, "ii:i", "i32.atomic.rmw8.xchg_u i32.atomic.rmw16.xchg_u"},
	{0x45, immMemArg, "il:l", `i64.atomic.rmw8.xchg_u i64.atomic.rmw16.xchg_u
		i64.atomic.rmw32.xchg_u`},
	{0x48, immMemArg, "iii:i", "i32.atomic.rmw.cmpxchg"},
	{0x49, immMemArg, "ill:l", "i64.atomic.rmw.cmpxchg"},
	{0x4a, immMemArg, "iii:i", "i32.atomic.rmw8.cmpxchg_u i32.atomic.rmw16.cmpxchg_u"},
	{0x4c, immMemArg, "ill:l", `i64.atomic.rmw8.cmpxchg_u i64.atomic.rmw16.cmpxchg_u
		i64.atomic.rmw32.cmpxchg_u`},
}

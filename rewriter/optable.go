package rewriter

import (
	"fmt"
	"strings"
)

// opcode is the byte of an instruction, or for prefixed ones prefix<<16 | number.
type opcode uint32

// The instructions that this package tells apart or writes.
const (
	opUnreachable  opcode = 0x00
	opBlock        opcode = 0x02
	opLoop         opcode = 0x03
	opIf           opcode = 0x04
	opElse         opcode = 0x05
	opTry          opcode = 0x06
	opEnd          opcode = 0x0b
	opBr           opcode = 0x0c
	opReturn       opcode = 0x0f
	opCall         opcode = 0x10
	opDelegate     opcode = 0x18
	opTryTable     opcode = 0x1f
	opLocalGet     opcode = 0x20
	opLocalSet     opcode = 0x21
	opGlobalGet    opcode = 0x23
	opGlobalSet    opcode = 0x24
	opTableGet     opcode = 0x25
	opTableSet     opcode = 0x26
	opI32Const     opcode = 0x41
	opI64Const     opcode = 0x42
	opF32Const     opcode = 0x43
	opF64Const     opcode = 0x44
	opI32Eqz       opcode = 0x45
	opI32Eq        opcode = 0x46
	opI32Add       opcode = 0x6a
	opI32Sub       opcode = 0x6b
	opI32Mul       opcode = 0x6c
	opI64Add       opcode = 0x7c
	opI64Sub       opcode = 0x7d
	opI64Mul       opcode = 0x7e
	opRefNull      opcode = 0xd0
	opRefIsNull    opcode = 0xd1
	opRefFunc      opcode = 0xd2
	opRefAsNonNull opcode = 0xd4

	opMemoryInit opcode = 0xfc<<16 | 8
	opDataDrop   opcode = 0xfc<<16 | 9
	opTableInit  opcode = 0xfc<<16 | 12
	opElemDrop   opcode = 0xfc<<16 | 13
	opTableCopy  opcode = 0xfc<<16 | 14
	opTableGrow  opcode = 0xfc<<16 | 15
	opTableSize  opcode = 0xfc<<16 | 16
	opTableFill  opcode = 0xfc<<16 | 17

	opV128Const        opcode = 0xfd<<16 | 12
	opI64x2Splat       opcode = 0xfd<<16 | 18
	opI64x2ExtractLane opcode = 0xfd<<16 | 29
	opI64x2ReplaceLane opcode = 0xfd<<16 | 30
)

func (op opcode) String() string {
	info := &plainOps[op&0xff]
	if prefix := byte(op >> 16); prefix != 0 {
		info = &prefixedOps[prefix][op&0xffff]
	}
	return info.name
}

const (
	gcPrefix     = 0xfb
	miscPrefix   = 0xfc
	vecPrefix    = 0xfd
	atomicPrefix = 0xfe
)

// opInfo says what follows an opcode.
type opInfo struct {
	name string
	imm  immediate
}

type immediate byte

const (
	immUnknown immediate = iota // no such instruction
	immRefused                  // of a proposal that is not supported
	immNone
	immPrefix     // the instruction's number follows
	immIndex      // an index: local, global, function, table, type, tag, label, segment
	immIndex2     // two of them
	immMemory     // index of a memory
	immMemArg     // alignment and offset
	immMemArgLane // and a lane
	immByte       // a lane, or a reserved byte
	immI32
	immI64
	imm4Bytes
	imm8Bytes
	imm16Bytes
	immBlockType
	immHeapType
	immLabels  // of br_table
	immTypes   // of select
	immCatches // of try_table: a block type and its clauses
)

// ops is a run of instructions with consecutive numbers and the same immediates. A name "-" leaves its number out.
type ops struct {
	first int
	imm   immediate
	names string
}

func (o ops) fill(table []opInfo) {
	for i, name := range strings.Fields(o.names) {
		if name == "-" {
			continue
		}
		if table[o.first+i].imm != immUnknown {
			panic(fmt.Sprintf("instruction table: %s: %#x is taken", name, o.first+i))
		}
		table[o.first+i] = opInfo{name, o.imm}
	}
}

var plainOps = func() (table [256]opInfo) {
	for _, o := range []ops{
		{0x00, immNone, "unreachable nop"},
		{0x02, immBlockType, "block loop if"},
		{0x05, immNone, "else"},
		{0x06, immBlockType, "try"},
		{0x07, immIndex, "catch throw rethrow"},
		{0x0a, immNone, "throw_ref end"},
		{0x0c, immIndex, "br br_if"},
		{0x0e, immLabels, "br_table"},
		{0x0f, immNone, "return"},
		{0x10, immIndex, "call"},
		{0x11, immIndex2, "call_indirect"},
		{0x12, immIndex, "return_call"},
		{0x13, immIndex2, "return_call_indirect"},
		{0x14, immIndex, "call_ref return_call_ref"},
		{0x18, immIndex, "delegate"},
		{0x19, immNone, "catch_all drop select"},
		{0x1c, immTypes, "select"},
		{0x1f, immCatches, "try_table"},
		{0x20, immIndex, "local.get local.set local.tee global.get global.set table.get table.set"},
		{0x28, immMemArg, `i32.load i64.load f32.load f64.load i32.load8_s i32.load8_u i32.load16_s i32.load16_u
			i64.load8_s i64.load8_u i64.load16_s i64.load16_u i64.load32_s i64.load32_u
			i32.store i64.store f32.store f64.store i32.store8 i32.store16 i64.store8 i64.store16 i64.store32`},
		{0x3f, immMemory, "memory.size memory.grow"},
		{0x41, immI32, "i32.const"},
		{0x42, immI64, "i64.const"},
		{0x43, imm4Bytes, "f32.const"},
		{0x44, imm8Bytes, "f64.const"},
		{0x45, immNone, `i32.eqz i32.eq i32.ne i32.lt_s i32.lt_u i32.gt_s i32.gt_u i32.le_s i32.le_u i32.ge_s i32.ge_u
			i64.eqz i64.eq i64.ne i64.lt_s i64.lt_u i64.gt_s i64.gt_u i64.le_s i64.le_u i64.ge_s i64.ge_u
			f32.eq f32.ne f32.lt f32.gt f32.le f32.ge f64.eq f64.ne f64.lt f64.gt f64.le f64.ge
			i32.clz i32.ctz i32.popcnt i32.add i32.sub i32.mul i32.div_s i32.div_u i32.rem_s i32.rem_u
			i32.and i32.or i32.xor i32.shl i32.shr_s i32.shr_u i32.rotl i32.rotr
			i64.clz i64.ctz i64.popcnt i64.add i64.sub i64.mul i64.div_s i64.div_u i64.rem_s i64.rem_u
			i64.and i64.or i64.xor i64.shl i64.shr_s i64.shr_u i64.rotl i64.rotr
			f32.abs f32.neg f32.ceil f32.floor f32.trunc f32.nearest f32.sqrt
			f32.add f32.sub f32.mul f32.div f32.min f32.max f32.copysign
			f64.abs f64.neg f64.ceil f64.floor f64.trunc f64.nearest f64.sqrt
			f64.add f64.sub f64.mul f64.div f64.min f64.max f64.copysign
			i32.wrap_i64 i32.trunc_f32_s i32.trunc_f32_u i32.trunc_f64_s i32.trunc_f64_u
			i64.extend_i32_s i64.extend_i32_u i64.trunc_f32_s i64.trunc_f32_u i64.trunc_f64_s i64.trunc_f64_u
			f32.convert_i32_s f32.convert_i32_u f32.convert_i64_s f32.convert_i64_u f32.demote_f64
			f64.convert_i32_s f64.convert_i32_u f64.convert_i64_s f64.convert_i64_u f64.promote_f32
			i32.reinterpret_f32 i64.reinterpret_f64 f32.reinterpret_i32 f64.reinterpret_i64
			i32.extend8_s i32.extend16_s i64.extend8_s i64.extend16_s i64.extend32_s`},
		{0xd0, immHeapType, "ref.null"},
		{0xd1, immNone, "ref.is_null"},
		{0xd2, immIndex, "ref.func"},
		{0xd3, immRefused, "ref.eq"},
		{0xd4, immNone, "ref.as_non_null"},
		{0xd5, immIndex, "br_on_null br_on_non_null"},
		{0xe0, immRefused, "cont.new cont.bind suspend resume resume_throw resume_throw_ref switch"},
		{gcPrefix, immPrefix, "gc misc vec atomic"},
	} {
		o.fill(table[:])
	}
	return table
}()

// prefixedOps holds the instructions behind each prefix, by their number.
var prefixedOps = func() (tables [256][]opInfo) {
	for prefix, runs := range map[byte][]ops{gcPrefix: gcOps, miscPrefix: miscOps, vecPrefix: vecOps, atomicPrefix: atomicOps} {
		table := make([]opInfo, 0x114)
		for _, o := range runs {
			o.fill(table)
		}
		tables[prefix] = table
	}
	return tables
}()

var gcOps = []ops{
	{0x00, immRefused, `struct.new struct.new_default struct.get struct.get_s struct.get_u struct.set
		array.new array.new_default array.new_fixed array.new_data array.new_elem array.get array.get_s array.get_u
		array.set array.len array.fill array.copy array.init_data array.init_elem ref.test ref.test_null ref.cast
		ref.cast_null br_on_cast br_on_cast_fail any.convert_extern extern.convert_any ref.i31 i31.get_s i31.get_u`},
}

var miscOps = []ops{
	{0x00, immNone, `i32.trunc_sat_f32_s i32.trunc_sat_f32_u i32.trunc_sat_f64_s i32.trunc_sat_f64_u
		i64.trunc_sat_f32_s i64.trunc_sat_f32_u i64.trunc_sat_f64_s i64.trunc_sat_f64_u`},
	{0x08, immIndex2, "memory.init"},
	{0x09, immIndex, "data.drop"},
	{0x0a, immIndex2, "memory.copy"},
	{0x0b, immMemory, "memory.fill"},
	{0x0c, immIndex2, "table.init"},
	{0x0d, immIndex, "elem.drop"},
	{0x0e, immIndex2, "table.copy"},
	{0x0f, immIndex, "table.grow table.size table.fill"},
	{0x12, immRefused, "memory.discard i64.add128 i64.sub128 i64.mul_wide_s i64.mul_wide_u"},
}

var vecOps = []ops{
	{0x00, immMemArg, `v128.load v128.load8x8_s v128.load8x8_u v128.load16x4_s v128.load16x4_u
		v128.load32x2_s v128.load32x2_u v128.load8_splat v128.load16_splat v128.load32_splat v128.load64_splat v128.store`},
	{0x0c, imm16Bytes, "v128.const i8x16.shuffle"},
	{0x0e, immNone, "i8x16.swizzle i8x16.splat i16x8.splat i32x4.splat i64x2.splat f32x4.splat f64x2.splat"},
	{0x15, immByte, `i8x16.extract_lane_s i8x16.extract_lane_u i8x16.replace_lane
		i16x8.extract_lane_s i16x8.extract_lane_u i16x8.replace_lane i32x4.extract_lane i32x4.replace_lane
		i64x2.extract_lane i64x2.replace_lane f32x4.extract_lane f32x4.replace_lane f64x2.extract_lane f64x2.replace_lane`},
	{0x23, immNone, `i8x16.eq i8x16.ne i8x16.lt_s i8x16.lt_u i8x16.gt_s i8x16.gt_u i8x16.le_s i8x16.le_u i8x16.ge_s i8x16.ge_u
		i16x8.eq i16x8.ne i16x8.lt_s i16x8.lt_u i16x8.gt_s i16x8.gt_u i16x8.le_s i16x8.le_u i16x8.ge_s i16x8.ge_u
		i32x4.eq i32x4.ne i32x4.lt_s i32x4.lt_u i32x4.gt_s i32x4.gt_u i32x4.le_s i32x4.le_u i32x4.ge_s i32x4.ge_u
		f32x4.eq f32x4.ne f32x4.lt f32x4.gt f32x4.le f32x4.ge f64x2.eq f64x2.ne f64x2.lt f64x2.gt f64x2.le f64x2.ge
		v128.not v128.and v128.andnot v128.or v128.xor v128.bitselect v128.any_true`},
	{0x54, immMemArgLane, `v128.load8_lane v128.load16_lane v128.load32_lane v128.load64_lane
		v128.store8_lane v128.store16_lane v128.store32_lane v128.store64_lane`},
	{0x5c, immMemArg, "v128.load32_zero v128.load64_zero"},
	{0x5e, immNone, `f32x4.demote_f64x2_zero f64x2.promote_low_f32x4
		i8x16.abs i8x16.neg i8x16.popcnt i8x16.all_true i8x16.bitmask i8x16.narrow_i16x8_s i8x16.narrow_i16x8_u
		f32x4.ceil f32x4.floor f32x4.trunc f32x4.nearest
		i8x16.shl i8x16.shr_s i8x16.shr_u i8x16.add i8x16.add_sat_s i8x16.add_sat_u i8x16.sub i8x16.sub_sat_s i8x16.sub_sat_u
		f64x2.ceil f64x2.floor i8x16.min_s i8x16.min_u i8x16.max_s i8x16.max_u f64x2.trunc i8x16.avgr_u
		i16x8.extadd_pairwise_i8x16_s i16x8.extadd_pairwise_i8x16_u i32x4.extadd_pairwise_i16x8_s i32x4.extadd_pairwise_i16x8_u
		i16x8.abs i16x8.neg i16x8.q15mulr_sat_s i16x8.all_true i16x8.bitmask i16x8.narrow_i32x4_s i16x8.narrow_i32x4_u
		i16x8.extend_low_i8x16_s i16x8.extend_high_i8x16_s i16x8.extend_low_i8x16_u i16x8.extend_high_i8x16_u
		i16x8.shl i16x8.shr_s i16x8.shr_u i16x8.add i16x8.add_sat_s i16x8.add_sat_u i16x8.sub i16x8.sub_sat_s i16x8.sub_sat_u
		f64x2.nearest i16x8.mul i16x8.min_s i16x8.min_u i16x8.max_s i16x8.max_u - i16x8.avgr_u
		i16x8.extmul_low_i8x16_s i16x8.extmul_high_i8x16_s i16x8.extmul_low_i8x16_u i16x8.extmul_high_i8x16_u
		i32x4.abs i32x4.neg - i32x4.all_true i32x4.bitmask - - i32x4.extend_low_i16x8_s i32x4.extend_high_i16x8_s
		i32x4.extend_low_i16x8_u i32x4.extend_high_i16x8_u i32x4.shl i32x4.shr_s i32x4.shr_u i32x4.add - - i32x4.sub
		- - - i32x4.mul i32x4.min_s i32x4.min_u i32x4.max_s i32x4.max_u i32x4.dot_i16x8_s -
		i32x4.extmul_low_i16x8_s i32x4.extmul_high_i16x8_s i32x4.extmul_low_i16x8_u i32x4.extmul_high_i16x8_u
		i64x2.abs i64x2.neg - i64x2.all_true i64x2.bitmask - - i64x2.extend_low_i32x4_s i64x2.extend_high_i32x4_s
		i64x2.extend_low_i32x4_u i64x2.extend_high_i32x4_u i64x2.shl i64x2.shr_s i64x2.shr_u i64x2.add - - i64x2.sub
		- - - i64x2.mul i64x2.eq i64x2.ne i64x2.lt_s i64x2.gt_s i64x2.le_s i64x2.ge_s
		i64x2.extmul_low_i32x4_s i64x2.extmul_high_i32x4_s i64x2.extmul_low_i32x4_u i64x2.extmul_high_i32x4_u
		f32x4.abs f32x4.neg - f32x4.sqrt f32x4.add f32x4.sub f32x4.mul f32x4.div f32x4.min f32x4.max f32x4.pmin f32x4.pmax
		f64x2.abs f64x2.neg - f64x2.sqrt f64x2.add f64x2.sub f64x2.mul f64x2.div f64x2.min f64x2.max f64x2.pmin f64x2.pmax
		i32x4.trunc_sat_f32x4_s i32x4.trunc_sat_f32x4_u f32x4.convert_i32x4_s f32x4.convert_i32x4_u
		i32x4.trunc_sat_f64x2_s_zero i32x4.trunc_sat_f64x2_u_zero f64x2.convert_low_i32x4_s f64x2.convert_low_i32x4_u`},
	{0x100, immRefused, `i8x16.relaxed_swizzle i32x4.relaxed_trunc_f32x4_s i32x4.relaxed_trunc_f32x4_u
		i32x4.relaxed_trunc_f64x2_s_zero i32x4.relaxed_trunc_f64x2_u_zero
		f32x4.relaxed_madd f32x4.relaxed_nmadd f64x2.relaxed_madd f64x2.relaxed_nmadd
		i8x16.relaxed_laneselect i16x8.relaxed_laneselect i32x4.relaxed_laneselect i64x2.relaxed_laneselect
		f32x4.relaxed_min f32x4.relaxed_max f64x2.relaxed_min f64x2.relaxed_max
		i16x8.relaxed_q15mulr_s i16x8.relaxed_dot_i8x16_i7x16_s i32x4.relaxed_dot_i8x16_i7x16_add_s`},
}

var atomicOps = []ops{
	{0x00, immMemArg, "memory.atomic.notify memory.atomic.wait32 memory.atomic.wait64"},
	{0x03, immByte, "atomic.fence"},
	{0x10, immMemArg, `i32.atomic.load i64.atomic.load i32.atomic.load8_u i32.atomic.load16_u
		i64.atomic.load8_u i64.atomic.load16_u i64.atomic.load32_u
		i32.atomic.store i64.atomic.store i32.atomic.store8 i32.atomic.store16
		i64.atomic.store8 i64.atomic.store16 i64.atomic.store32
		i32.atomic.rmw.add i64.atomic.rmw.add i32.atomic.rmw8.add_u i32.atomic.rmw16.add_u
		i64.atomic.rmw8.add_u i64.atomic.rmw16.add_u i64.atomic.rmw32.add_u
		i32.atomic.rmw.sub i64.atomic.rmw.sub i32.atomic.rmw8.sub_u i32.atomic.rmw16.sub_u
		i64.atomic.rmw8.sub_u i64.atomic.rmw16.sub_u i64.atomic.rmw32.sub_u
		i32.atomic.rmw.and i64.atomic.rmw.and i32.atomic.rmw8.and_u i32.atomic.rmw16.and_u
		i64.atomic.rmw8.and_u i64.atomic.rmw16.and_u i64.atomic.rmw32.and_u
		i32.atomic.rmw.or i64.atomic.rmw.or i32.atomic.rmw8.or_u i32.atomic.rmw16.or_u
		i64.atomic.rmw8.or_u i64.atomic.rmw16.or_u i64.atomic.rmw32.or_u
		i32.atomic.rmw.xor i64.atomic.rmw.xor i32.atomic.rmw8.xor_u i32.atomic.rmw16.xor_u
		i64.atomic.rmw8.xor_u i64.atomic.rmw16.xor_u i64.atomic.rmw32.xor_u
		i32.atomic.rmw.xchg i64.atomic.rmw.xchg i32.atomic.rmw8.xchg_u i32.atomic.rmw16.xchg_u
		i64.atomic.rmw8.xchg_u i64.atomic.rmw16.xchg_u i64.atomic.rmw32.xchg_u
		i32.atomic.rmw.cmpxchg i64.atomic.rmw.cmpxchg i32.atomic.rmw8.cmpxchg_u i32.atomic.rmw16.cmpxchg_u
		i64.atomic.rmw8.cmpxchg_u i64.atomic.rmw16.cmpxchg_u i64.atomic.rmw32.cmpxchg_u`},
}

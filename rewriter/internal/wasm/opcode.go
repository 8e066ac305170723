package wasm

import (
	"fmt"
	"strings"
)

// Op is the byte of an instruction, or for prefixed ones prefix<<16 | number.
type Op uint32

// The instructions that passes tell apart or write.
const (
	OpUnreachable  Op = 0x00
	OpNop          Op = 0x01
	OpBlock        Op = 0x02
	OpLoop         Op = 0x03
	OpIf           Op = 0x04
	OpElse         Op = 0x05
	OpTry          Op = 0x06
	OpCatch        Op = 0x07
	OpThrow        Op = 0x08
	OpRethrow      Op = 0x09
	OpThrowRef     Op = 0x0a
	OpEnd          Op = 0x0b
	OpBr           Op = 0x0c
	OpBrIf         Op = 0x0d
	OpBrTable      Op = 0x0e
	OpReturn       Op = 0x0f
	OpCall         Op = 0x10
	OpCallIndirect Op = 0x11
	OpReturnCall   Op = 0x12
	OpReturnCallIn Op = 0x13
	OpCallRef      Op = 0x14
	OpReturnCallRf Op = 0x15
	OpDelegate     Op = 0x18
	OpCatchAll     Op = 0x19
	OpDrop         Op = 0x1a
	OpSelect       Op = 0x1b
	OpSelectTyped  Op = 0x1c
	OpTryTable     Op = 0x1f
	OpLocalGet     Op = 0x20
	OpLocalSet     Op = 0x21
	OpLocalTee     Op = 0x22
	OpGlobalGet    Op = 0x23
	OpGlobalSet    Op = 0x24
	OpTableGet     Op = 0x25
	OpTableSet     Op = 0x26
	OpI32Load      Op = 0x28
	OpI32Store     Op = 0x36
	OpI64Store     Op = 0x37
	OpF32Store     Op = 0x38
	OpF64Store     Op = 0x39
	OpI32Store8    Op = 0x3a
	OpI32Store16   Op = 0x3b
	OpI64Store8    Op = 0x3c
	OpI64Store16   Op = 0x3d
	OpI64Store32   Op = 0x3e
	OpMemorySize   Op = 0x3f
	OpMemoryGrow   Op = 0x40
	OpI32Const     Op = 0x41
	OpI64Const     Op = 0x42
	OpF32Const     Op = 0x43
	OpF64Const     Op = 0x44
	OpI32Eqz       Op = 0x45
	OpI32Eq        Op = 0x46
	OpI32Ne        Op = 0x47
	OpI32LtU       Op = 0x49
	OpI32GtU       Op = 0x4b
	OpI32LeU       Op = 0x4d
	OpI32GeU       Op = 0x4f
	OpI32Add       Op = 0x6a
	OpI32Sub       Op = 0x6b
	OpI32Mul       Op = 0x6c
	OpI32And       Op = 0x71
	OpI32Or        Op = 0x72
	OpI32Xor       Op = 0x73
	OpI32Shl       Op = 0x74
	OpI32ShrU      Op = 0x76
	OpI64Add       Op = 0x7c
	OpI64Sub       Op = 0x7d
	OpI64Mul       Op = 0x7e
	OpRefNull      Op = 0xd0
	OpRefIsNull    Op = 0xd1
	OpRefFunc      Op = 0xd2
	OpRefAsNonNull Op = 0xd4
	OpBrOnNull     Op = 0xd5
	OpBrOnNonNull  Op = 0xd6

	OpMemoryInit Op = miscPrefix<<16 | 8
	OpDataDrop   Op = miscPrefix<<16 | 9
	OpMemoryCopy Op = miscPrefix<<16 | 10
	OpMemoryFill Op = miscPrefix<<16 | 11
	OpTableInit  Op = miscPrefix<<16 | 12
	OpElemDrop   Op = miscPrefix<<16 | 13
	OpTableCopy  Op = miscPrefix<<16 | 14
	OpTableGrow  Op = miscPrefix<<16 | 15
	OpTableSize  Op = miscPrefix<<16 | 16
	OpTableFill  Op = miscPrefix<<16 | 17

	OpV128Store        Op = vecPrefix<<16 | 11
	OpV128Const        Op = vecPrefix<<16 | 12
	OpI64x2Splat       Op = vecPrefix<<16 | 18
	OpI64x2ExtractLane Op = vecPrefix<<16 | 29
	OpI64x2ReplaceLane Op = vecPrefix<<16 | 30
)

const (
	gcPrefix     = 0xfb
	miscPrefix   = 0xfc
	vecPrefix    = 0xfd
	atomicPrefix = 0xfe
)

func (op Op) info() *opInfo {
	if prefix := byte(op >> 16); prefix != 0 {
		return &prefixedOps[prefix][op&0xffff]
	}
	return &plainOps[op&0xff]
}

func (op Op) String() string { return op.info().name }

// opInfo says what an instruction takes and gives.
type opInfo struct {
	name string
	imm  immediate

	// stack is what the instruction pops and pushes, by letters: i32, l for i64, f32, d for f64,
	// v128; the last one before the colon is on top. It is empty where that depends on more than
	// the instruction.
	stack string
}

type immediate byte

const (
	immUnknown immediate = iota // no such instruction
	immRefused                  // of a proposal that is not supported
	immNone
	immPrefix // the instruction's number follows
	immLocal
	immGlobal
	immFunc
	immTable
	immType
	immTag
	immLabel
	immElem
	immData
	immTypeTable  // of call_indirect
	immTableTable // destination and source
	immElemTable  // of table.init
	immDataMemory // of memory.init
	immMemory     // index of a memory
	immMemory2    // destination and source
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

// ops is a run of instructions with consecutive numbers, the same immediates and the same effect on
// the stack. A name "-" leaves its number out.
type ops struct {
	first int
	imm   immediate
	stack string
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
		table[o.first+i] = opInfo{name, o.imm, o.stack}
	}
}

// Stack is what the instruction pops and pushes, if it says so by itself.
func (op Op) Stack() (pops, pushes string, ok bool) {
	return strings.Cut(op.info().stack, ":")
}

package rewriter

// code is a sequence of encoded instructions.
type code []byte

// op appends an instruction whose immediates are indices.
func (c code) op(op opcode, immediates ...uint32) code {
	if prefix := byte(op >> 16); prefix != 0 {
		c = appendU32(append(c, prefix), uint32(op&0xffff))
	} else {
		c = append(c, byte(op))
	}
	for _, i := range immediates {
		c = appendU32(c, i)
	}
	return c
}

func (c code) i32(v int32) code { return appendS32(c.op(opI32Const), v) }

func (c code) refNull(t valType) code { return t.appendHeap(c.op(opRefNull)) }

// Block types.
const (
	noValue  = 0x40
	i32Value = byte(I32)
)

// block opens a block, loop or if.
func (c code) block(op opcode, blockType byte) code { return append(c.op(op), blockType) }

func (c code) add(more code) code { return append(c, more...) }

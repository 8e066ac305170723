package wasm

// Code is a sequence of encoded instructions.
type Code []byte

// Op appends an instruction whose immediates are indices.
func (c Code) Op(op Op, immediates ...uint32) Code {
	if prefix := byte(op >> 16); prefix != 0 {
		c = AppendU32(append(c, prefix), uint32(op&0xffff))
	} else {
		c = append(c, byte(op))
	}
	for _, i := range immediates {
		c = AppendU32(c, i)
	}
	return c
}

// I32 appends i32.const.
func (c Code) I32(v int32) Code { return AppendS64(c.Op(OpI32Const), int64(v)) }

// RefNull appends ref.null of a type.
func (c Code) RefNull(t Type) Code { return t.appendHeap(c.Op(OpRefNull)) }

// Types of blocks.
const (
	noValue  = 0x40
	NoValue  = Kind(noValue)
	I32Value = I32
)

// Block appends the start of a block, loop or if.
func (c Code) Block(op Op, result Kind) Code { return append(c.Op(op), byte(result)) }

// Add appends more code.
func (c Code) Add(more Code) Code { return append(c, more...) }

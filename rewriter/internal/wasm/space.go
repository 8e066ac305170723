package wasm

// Space is an index space.
type Space byte

const (
	SpaceType Space = iota
	SpaceFunc
	SpaceTable
	SpaceMemory
	SpaceGlobal
	SpaceTag
	SpaceElem
	SpaceData
	SpaceLocal // of one function
	SpaceLabel // of one place in a function
	numSpaces
)

var spaceNames = [numSpaces]string{
	"type", "function", "table", "memory", "global", "tag", "element segment", "data segment",
	"local", "label",
}

func (s Space) String() string { return spaceNames[s] }

// bounds says how many there are of each space, so far as the decoder has come.
type bounds [numSpaces]uint32

// indexRef is an index where it lies in the bytes that were read.
type indexRef struct {
	space      Space
	start, end int
	index      uint32
}

// Package eventnote says of a commit when it was made, and what for.
package eventnote

import (
	"encoding/binary"
	"time"
)

/*
The section of time and function:

	bytes
	    1  version of this layout, 1
	    8  when the event ended, nanoseconds since 1970
	    4  how long it took, microseconds
	       what it called first, up to the end
*/
const (
	layout = 1
	head   = 13
)

// Note is about one commit.
type Note struct {
	Time     time.Time
	Took     time.Duration
	Function string
}

// Append is the section.
func (n Note) Append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint64(append(b, layout), uint64(n.Time.UnixNano()))
	b = binary.LittleEndian.AppendUint32(b, uint32(min(n.Took.Microseconds(), 1<<32-1)))
	return append(b, n.Function...)
}

// Decode reads it; ok is false for anything else.
func Decode(b []byte) (n Note, ok bool) {
	if len(b) < head || b[0] != layout {
		return n, false
	}
	n.Time = time.Unix(0, int64(binary.LittleEndian.Uint64(b[1:])))
	n.Took = time.Duration(binary.LittleEndian.Uint32(b[9:])) * time.Microsecond
	n.Function = string(b[head:])
	return n, true
}

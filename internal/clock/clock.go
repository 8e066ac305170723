// Package clock gives a guest a monotonic clock that goes on where its state left it, on whatever
// machine, boot or day that is resumed.
package clock

import (
	"encoding/binary"
	"sync/atomic"
	"time"
)

/*
The section of the clock:

	bytes
	    1  version of this layout, 1
	    8  the last reading that the guest was given, nanoseconds
	    8  the wall clock then, nanoseconds since 1970
*/
const (
	layout = 1
	length = 17
)

// MostDowntime bounds what a guest is told to have passed while it was down: a wall clock can be
// wrong by anything.
const MostDowntime = 366 * 24 * time.Hour

// Clock is a monotonic clock of a guest. Read is safe for concurrent use.
type Clock struct {
	monotonic func() time.Duration // of this process; where it begins means nothing
	wall      func() time.Time
	offset    atomic.Int64 // what makes a reading of it the guest's
	read      atomic.Bool  // since Changed was last asked
}

// New is a clock that begins at 0, or goes on when Resume is called.
func New(monotonic func() time.Duration, wall func() time.Time) *Clock {
	c := &Clock{monotonic: monotonic, wall: wall}
	c.offset.Store(-int64(monotonic()))
	return c
}

// Resume goes on where the section says that the guest was, plus the time that it was down if that
// is to be counted. Any bytes but those of a clock begin at 0.
func (c *Clock) Resume(section []byte, countDowntime bool) {
	last, wall, ok := decode(section)
	if !ok {
		return
	}
	if countDowntime {
		down := c.wall().Sub(time.Unix(0, wall))
		last += int64(min(max(down, 0), MostDowntime))
	}
	c.offset.Store(last - int64(c.monotonic()))
}

// Read is the guest's time in nanoseconds.
func (c *Clock) Read() int64 {
	if !c.read.Load() {
		c.read.Store(true)
	}
	return c.offset.Load() + int64(c.monotonic())
}

// Changed tells whether the clock was read since it was last asked, and if so what is to be
// committed: no reading that the guest has in its memory is later than that.
func (c *Clock) Changed(b []byte) ([]byte, bool) {
	if !c.read.Swap(false) {
		return b, false
	}
	b = append(b, layout)
	b = binary.LittleEndian.AppendUint64(b, uint64(c.offset.Load()+int64(c.monotonic())))
	return binary.LittleEndian.AppendUint64(b, uint64(c.wall().UnixNano())), true
}

func decode(b []byte) (last, wall int64, ok bool) {
	if len(b) != length || b[0] != layout {
		return 0, 0, false
	}
	last = int64(binary.LittleEndian.Uint64(b[1:]))
	return last, int64(binary.LittleEndian.Uint64(b[9:])), last >= 0
}

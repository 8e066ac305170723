package main

import (
	"math"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// collector moves Go's garbage collections between events. A guest's loop cannot be interrupted: a
// collection that begins in it, and the runtime begins one every two minutes, stops everything
// else until the loop returns, signals and checkpoints included. Guests that call the host, and
// only they make garbage, pass through code that can be interrupted.
type collector struct {
	heap    []metrics.Sample // bytes of the heap, garbage included
	next    uint64           // where the next collection is due
	events  int
	restore func()
}

const (
	// leastGarbage is what collecting is worth, in bytes: it takes about a millisecond.
	leastGarbage = 4 << 20
	// eventsAtOnce is how many events may go by unseen: to ask for the heap's size costs as much as
	// a small event.
	eventsAtOnce = 32
	// mostInEvent is where the runtime collects nevertheless, in bytes.
	mostInEvent = 1 << 30
)

// newCollector waits for a collection that is going on.
func newCollector() *collector {
	percent := debug.SetGCPercent(-1)
	limit := debug.SetMemoryLimit(-1)
	if limit == math.MaxInt64 { // nobody has set one
		debug.SetMemoryLimit(mostInEvent)
	}
	return &collector{
		heap: []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}},
		restore: func() {
			debug.SetGCPercent(percent)
			debug.SetMemoryLimit(limit)
		},
	}
}

// betweenEvents collects if it is time to.
func (c *collector) betweenEvents() {
	c.events++
	if c.events%eventsAtOnce != 1 || c.size() < c.next {
		return
	}
	runtime.GC()
	c.next = 2*c.size() + leastGarbage
}

func (c *collector) size() uint64 {
	metrics.Read(c.heap)
	return c.heap[0].Value.Uint64()
}

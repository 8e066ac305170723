package engine

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
)

// gate lets one event in at a time, in the order in which they came. It is a mutex whose waiting
// can be given up: a free gate costs one compare-and-swap, as a mutex does.
type gate struct {
	state atomic.Int32

	mu    sync.Mutex
	queue []chan struct{} // of those who wait, the first one first
}

const (
	gateFree int32 = iota
	gateHeld
	gateWanted // held, and somebody may wait: it is handed over, and never free in between
)

func newGate() *gate { return &gate{} }

// enter waits for the gate, or for the end of ctx, which is then the error.
func (g *gate) enter(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if g.tryEnter() {
		return nil
	}
	turn := g.enqueue()
	if turn == nil {
		return nil
	}
	select {
	case <-turn:
		return nil
	case <-ctx.Done():
	}
	if !g.giveUp(turn) {
		g.leave() // its turn has come meanwhile
	}
	return ctx.Err()
}

func (g *gate) tryEnter() bool { return g.state.CompareAndSwap(gateFree, gateHeld) }

// enqueue gives a channel that is closed when the turn has come, nil if it has come already.
func (g *gate) enqueue() chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	for !g.tryEnter() {
		if g.state.Load() == gateWanted || g.state.CompareAndSwap(gateHeld, gateWanted) {
			turn := make(chan struct{})
			g.queue = append(g.queue, turn)
			return turn
		}
	}
	return nil
}

// giveUp takes one who waits out of the queue. It is false if its turn has come.
func (g *gate) giveUp(turn chan struct{}) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	i := slices.Index(g.queue, turn)
	if i < 0 {
		return false
	}
	g.queue = slices.Delete(g.queue, i, i+1)
	return true
}

// leave opens the gate, or hands it to the next one.
func (g *gate) leave() {
	if g.state.CompareAndSwap(gateHeld, gateFree) {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.queue) == 0 { // all have given up
		g.state.Store(gateFree)
		return
	}
	next := g.queue[0]
	g.queue = slices.Delete(g.queue, 0, 1)
	if len(g.queue) == 0 {
		g.state.Store(gateHeld)
	}
	close(next)
}

package engine

import (
	"context"
	"sync/atomic"
)

// gate lets one event in at a time. It is a mutex whose waiting can be given up: a free gate costs
// one compare-and-swap, as a mutex does.
type gate struct {
	state atomic.Int32
	// wake holds at most one token, put there by whoever leaves while somebody may wait. A token
	// that nobody needed makes a later waiter look once more in vain.
	wake chan struct{}
}

const (
	gateFree int32 = iota
	gateHeld
	gateWanted // held, and somebody may wait
)

func newGate() *gate { return &gate{wake: make(chan struct{}, 1)} }

// enter waits for the gate, or for the end of ctx, which is then the error.
func (g *gate) enter(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if g.tryEnter() {
		return nil
	}
	for g.state.Swap(gateWanted) != gateFree {
		select {
		case <-g.wake:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (g *gate) tryEnter() bool { return g.state.CompareAndSwap(gateFree, gateHeld) }

// leave opens the gate for the next one.
func (g *gate) leave() {
	if g.state.Swap(gateFree) == gateWanted {
		select {
		case g.wake <- struct{}{}:
		default:
		}
	}
}

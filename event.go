package mmrun

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/mmrun/mmrun/internal/engine"
	"github.com/mmrun/mmrun/internal/eventnote"
	"github.com/mmrun/mmrun/internal/receipts"
	"github.com/mmrun/mmrun/internal/section"
)

// event is what belongs to the event in progress. Its number tells a Tx of this event from one
// that was kept from an earlier one.
type event struct {
	id    atomic.Uint64 // 0 between events
	count uint64        // events begun

	view       bool
	started    bool      // _start has been called in it
	begun      time.Time // if notes are made
	first      string    // function that was called first
	failed     error     // the first call that failed: what it left behind must not be committed
	extras     engine.Extras
	receipt    *receipts.Table // has a receipt planned
	onCommit   []func()
	onRollback []func()
}

// outcome is what is left to do when an event is over and others may run.
type outcome struct {
	durable uint64 // commit that has to survive power loss before anything is told; 0 for none
	hooks   []func()
	printed []byte // by an event that is not a handler's
}

// enter waits for the instance. Whatever runs guest code calls it first and defers leave.
func (in *Instance) enter(ctx context.Context) error {
	if err := in.refuseNested(ctx); err != nil {
		return err
	}
	return in.store.Enter(ctx)
}

// leave lets the next event in. An event that has not come to its end, because its goroutine panics
// or exits, is undone by the store.
func (in *Instance) leave(done *outcome) {
	unwinding := in.event.id.Load() != 0
	if unwinding {
		in.closeEvent(done, false)
	}
	in.store.Leave()
	if unwinding {
		runHooks(done)
	}
}

// begin starts an event.
func (in *Instance) begin(view bool) error {
	if err := in.store.Begin(); err != nil {
		return err
	}
	in.event.count++
	in.event.id.Store(in.event.count)
	in.event.view, in.event.started = view, false
	if in.notes {
		in.event.begun, in.event.first = time.Now(), ""
	}
	return nil
}

// end commits an event that ended with err == nil and aborts any other, and each query. The error
// of the event, if any, is the one returned.
func (in *Instance) end(ctx context.Context, err error, done *outcome) error {
	if err == nil && ctx.Err() != nil {
		err = fmt.Errorf("state %s: the event's context has ended: %w", in.Dir(), ctx.Err())
	}
	if in.event.view {
		undone := in.store.EndView()
		in.closeEvent(done, false)
		done.durable = in.store.Seq() // what the query saw
		return in.settle(err, undone)
	}
	if err == nil {
		if in.clock != nil {
			in.keepClock()
		}
		if in.notes {
			in.keepNote()
		}
		err = in.store.Commit(in.event.extras)
		in.closeEvent(done, err == nil)
		done.durable = in.store.Seq()
		return err
	}
	undone := in.store.Abort()
	in.closeEvent(done, false)
	return in.settle(err, undone)
}

// keepClock commits what the guest has been told of the time, if it was told.
func (in *Instance) keepClock() {
	b, changed := in.clock.Changed(in.reading[:0])
	if in.reading = b; changed {
		in.keep(engine.Change{ID: section.Clock, Bytes: b})
	}
}

// keepNote has the commit say when it was made, and what for.
func (in *Instance) keepNote() {
	e := &in.event
	now := time.Now()
	note := eventnote.Note{Time: now, Took: now.Sub(e.begun), Function: e.first}
	in.note = note.Append(in.note[:0])
	in.keep(engine.Change{ID: section.TimeAndFunction, Bytes: in.note})
}

// settle completes the error of an event that was aborted.
func (in *Instance) settle(err, undone error) error {
	if undone != nil {
		return errors.Join(err, undone)
	}
	var failed *EventError
	if errors.As(err, &failed) {
		failed.Seq, failed.RolledBack = in.store.Seq(), in.store.RollsBack()
	}
	return err
}

// closeEvent ends the validity of the event's Tx.
func (in *Instance) closeEvent(done *outcome, committed bool) {
	e := &in.event
	e.id.Store(0)
	if committed {
		done.hooks = e.onCommit
	} else {
		done.hooks = e.onRollback
	}
	if committed && e.receipt != nil {
		e.receipt.Done()
	}
	e.receipt = nil
	if io := in.io; io != nil {
		if committed || e.view {
			done.printed = io.take()
		}
		io.reset()
	}
	e.failed, e.onCommit, e.onRollback = nil, nil, nil
	e.extras.MetaSet, e.extras.Kept = false, e.extras.Kept[:0]
}

// release lets the effect of an event out: it waits for the sync that the policy asks for.
func (in *Instance) release(err error, done *outcome) error {
	if err == nil && done.durable != 0 {
		err = in.store.Durable(done.durable)
	}
	if done.printed != nil && err == nil {
		_ = in.io.release(done.printed) // the event is committed, whoever reads that or not
	}
	if err == nil || !errors.Is(err, ErrPoisoned) {
		runHooks(done)
	}
	return err
}

func runHooks(done *outcome) {
	for _, hook := range done.hooks {
		hook()
	}
}

// EventError is the error of an event of which a call into the guest failed.
type EventError struct {
	Function   string // that was called
	Seq        uint64 // of the last commit, which is where the state stands
	RolledBack bool   // false in Continuous mode: the state is as the guest left it
	Err        error  // wazero's, or of the context
}

func (e *EventError) Error() string { return fmt.Sprintf("function %s: %v", e.Function, e.Err) }

// Unwrap gives the cause, and ErrTrap if that is a trap.
func (e *EventError) Unwrap() []error {
	if isTrap(e.Err) {
		return []error{e.Err, ErrTrap}
	}
	return []error{e.Err}
}

// isTrap tells a trap from an exit, the end of a context and a panic of a host function. wazero has
// no exported type for it; its text begins so since version 1.0.
func isTrap(err error) bool { return strings.HasPrefix(err.Error(), "wasm error: ") }

// Package mmrun runs WebAssembly modules whose memory never dies.
//
// A guest keeps its data in plain variables. [Open] resumes it where its last event left it, in
// this process or after a kill -9, a crash or a power cut; there is nothing to save and nothing
// to load.
//
// # Events
//
// The state moves in events: one call into the guest ([Instance.Call]), or a group of calls
// under one [Instance.Update]. Between two events no guest code is on the stack, and the whole
// state is then the linear memory, the mutable globals, the tables and the dropped-segment
// flags; mmrun keeps all of it, and the user's own bytes ([Tx.SetMeta]) with it.
//
// # Modes
//
// In [Atomic] mode an event that completes is committed, and what comes back after a crash at
// any instant is the last commit. An event that traps or fails is rolled back. In [Continuous]
// mode every store is kept at once and nothing is ever copied, but a process that dies inside an
// event leaves a torn state, which Open refuses ([ErrTorn]).
//
// A killed process loses no commit. What a power cut can cost is chosen with [WithSync].
//
// # Caveats
//
// What a guest has outside of itself is not kept: open files, buffered output of the host,
// effects of host functions. A host function must not call the same instance: it would wait for
// itself. Guest memory may be touched only inside an event.
//
// The state directory must be on a local file system, and nobody else may cut its files while
// they are open: a page that is gone is a fault inside compiled code, which ends the process.
package mmrun

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/mmrun/mmrun/globalsfile"
	"github.com/mmrun/mmrun/internal/statedir"
	"github.com/mmrun/mmrun/mmapmem"
)

// Instance is a running module with its persistent state. Its methods are safe for concurrent
// use; events run one after the other.
type Instance struct {
	dir  string
	mode Mode
	opts *options

	mu     sync.Mutex // held during an event
	guest  *guest
	mem    *mmapmem.Memory    // nil if the module has no memory
	state  *globalsfile.State // the small state as of the last commit
	keeper keeper
	tx     Tx
	closed bool
	files  closers
	lock   *statedir.Lock

	functions    map[string]*Function
	lastFunction *Function // saves the look-up for a guest with one kind of event (BenchmarkEvent in bench)
	poison       atomic.Pointer[error]
	counters     counters
}

// keeper is what differs between the modes: how the state of an instance is kept. All methods
// but sync are called with Instance.mu held.
type keeper interface {
	// begin is called before an event.
	begin() error
	// commit keeps what a completed event did. If it returns an error that does not poison, the
	// event must be rolled back.
	commit() error
	// abort ends an event that failed: by rollback, or by keeping what it did.
	abort() error
	// view tells whether abort is a rollback.
	view() bool
	// sync makes all commits so far survive power loss.
	sync() error
	// seal starts a checkpoint, or tells that another one is in progress and that it has to be
	// called again. The function returned waits for the end of either, without the lock.
	seal() (wait func() error, sealed bool, err error)
	// close makes a last checkpoint.
	close() error
	stats(*Stats)
}

// Call runs one exported function as one event and commits. The results have the encoding of
// wazero's api package. If the function traps, the state is rolled back (Atomic) or stays as the
// guest left it (Continuous), and the error wraps wazero's.
//
// Call allocates the results; [Instance.Update] with [Function.CallWithStack] does not.
func (in *Instance) Call(ctx context.Context, name string, params ...uint64) ([]uint64, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if err := in.usable(); err != nil {
		return nil, err
	}
	f, err := in.function(name, len(params))
	if err != nil {
		return nil, err
	}
	if err := in.begin(); err != nil {
		return nil, err
	}
	results, err := f.call(ctx, params)
	if err = in.end(err); err != nil {
		return nil, err
	}
	return results, nil
}

// Update runs fn as one event: its calls are committed together. If fn returns an error, or one
// of its calls trapped, the whole event is rolled back (Atomic) and the error is returned.
func (in *Instance) Update(_ context.Context, fn func(tx *Tx) error) error {
	return in.run(fn, false)
}

// View runs fn as a query: whatever it changes is rolled back, whether fn succeeds or not.
// Nothing is written to any file. Continuous mode has no rollback and refuses (ErrUnsupported).
func (in *Instance) View(_ context.Context, fn func(tx *Tx) error) error {
	return in.run(fn, true)
}

func (in *Instance) run(fn func(tx *Tx) error, view bool) error {
	in.mu.Lock()
	defer in.unlock()
	if err := in.usable(); err != nil {
		return err
	}
	if view && !in.keeper.view() {
		return asKind(ErrUnsupported, fmt.Errorf("state %s: a %s state has no rollback, which View needs", in.dir, in.mode))
	}
	tx := &in.tx
	if err := in.begin(); err != nil {
		return err
	}
	tx.open, tx.failed = true, nil
	err := fn(tx)
	tx.open = false
	if err == nil {
		err = tx.failed
	}
	if view {
		in.counters.views++
		return in.abort(err)
	}
	return in.end(err)
}

// unlock is called when run ends. If the event's function has panicked it leaves no half event behind.
func (in *Instance) unlock() {
	if in.tx.open {
		in.tx.open = false
		_ = in.end(errPanicked)
	}
	in.mu.Unlock()
}

var errPanicked = errors.New("the event's function panicked")

// begin starts an event.
func (in *Instance) begin() error {
	in.tx.metaSet = false
	return in.keeper.begin()
}

// end commits an event that ended with err == nil and aborts any other.
func (in *Instance) end(err error) error {
	if err != nil {
		return in.endAborted(err)
	}
	if err = in.keeper.commit(); err != nil {
		return in.endUncommitted(err)
	}
	in.counters.commits++
	return nil
}

// endUncommitted ends an event whose commit has failed.
func (in *Instance) endUncommitted(err error) error {
	if in.poison.Load() != nil {
		return err
	}
	return in.endAborted(err)
}

func (in *Instance) endAborted(err error) error {
	in.counters.aborts++
	return in.abort(err)
}

// abort ends an event without a commit. The error of the event, if any, is the one to return.
func (in *Instance) abort(cause error) error {
	in.tx.metaSet = false
	if err := in.keeper.abort(); err != nil {
		return errors.Join(cause, in.poisonWith(err))
	}
	return cause
}

// usable tells whether the instance takes events.
func (in *Instance) usable() error {
	if in.closed || in.poison.Load() != nil {
		return in.refusal()
	}
	return nil
}

// refusal says why no events are taken.
func (in *Instance) refusal() error {
	if in.closed {
		return in.closedError()
	}
	return in.poisoned()
}

func (in *Instance) closedError() error {
	return asKind(ErrClosed, fmt.Errorf("state %s: %w", in.dir, ErrClosed))
}

// poisonWith makes err the reason why nothing is accepted any more.
func (in *Instance) poisonWith(err error) error {
	if in.poison.CompareAndSwap(nil, &err) {
		if in.mode == Atomic { // the globals file of a continuous state says that a sync has failed
			_ = in.lock.SayFailed()
		}
	}
	in.opts.logger.Error("instance is poisoned", "state", in.dir, "error", err)
	return in.poisoned()
}

func (in *Instance) poisoned() error {
	if p := in.poison.Load(); p != nil {
		return asKind(ErrPoisoned, fmt.Errorf("state %s: %w (close it and open it again): %w", in.dir, ErrPoisoned, *p))
	}
	return nil
}

// Seq is the sequence number of the last commit. The first run of a module is commit 1, and each
// event that is committed adds one, also when it changed nothing.
func (in *Instance) Seq() uint64 {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.state.Seq
}

// Meta returns a copy of the user's bytes that were committed with the state, nil if none were.
func (in *Instance) Meta() []byte {
	in.mu.Lock()
	defer in.mu.Unlock()
	return append([]byte(nil), in.state.Meta...)
}

// Dir is the state directory.
func (in *Instance) Dir() string { return in.dir }

// Mode is the mode the state is in.
func (in *Instance) Mode() Mode { return in.mode }

// Sync makes all commits so far survive power loss. An error poisons the instance: nothing is
// known then about what is on the disk, and trying again would not tell.
func (in *Instance) Sync() error {
	in.mu.Lock()
	err := in.usable()
	in.mu.Unlock()
	if err != nil {
		return err
	}
	return in.keeper.sync()
}

// Checkpoint folds the wal into the memory file and the globals file and returns when that
// is durable. Events go on meanwhile; what they commit is not part of it. In Continuous mode it
// is Sync.
func (in *Instance) Checkpoint() error {
	for {
		in.mu.Lock()
		err := in.usable()
		var wait func() error
		var sealed bool
		if err == nil {
			wait, sealed, err = in.keeper.seal()
		}
		in.mu.Unlock()
		if err == nil {
			err = wait()
		}
		if err != nil || sealed {
			return err
		}
	}
}

// Close makes a checkpoint, ends the guest and releases the state directory. It must not be
// called while an event runs on the same goroutine. A second Close does nothing.
//
// The instance is closed also when an error is returned, and nothing that was committed is
// lost: the next Open recovers it.
func (in *Instance) Close(context.Context) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.closed {
		return nil
	}
	in.closed = true
	err := in.keeper.close()
	if p := in.poisoned(); p != nil && err == nil {
		err = p
	}
	if err == nil {
		_ = in.lock.SayClosed()
	}
	return errors.Join(err, in.guest.close(), in.files.close())
}

// closers are closed in the reverse order of their opening.
type closers []func() error

func (c *closers) add(f func() error) { *c = append(*c, f) }

func (c *closers) close() error {
	var errs []error
	for i := len(*c) - 1; i >= 0; i-- {
		errs = append(errs, (*c)[i]())
	}
	*c = nil
	return errors.Join(errs...)
}

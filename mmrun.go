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
// However an event ends (it returns, traps, exits, panics, its goroutine ends, its context ends),
// it is committed whole or not at all.
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
// # Contexts
//
// Every method that takes a context gives up waiting for the instance when it ends. An event whose
// context has ended is not committed. Guest code that is running is stopped only if the runtime was
// made with WithCloseOnContextDone; otherwise the event ends when the guest returns, by rollback.
//
// A context carries the event it belongs to into host functions: [TxFrom] finds it, and a second
// event on the same instance under such a context is refused ([ErrNested]) instead of waiting for
// itself.
//
// # Caveats
//
// What a guest has outside of itself is not kept: open files, buffered output of the host,
// effects of host functions. Guest memory may be touched only inside an event.
//
// The state directory must be on a local file system, and nobody else may cut its files while
// they are open: a page that is gone is a fault inside compiled code, which ends the process.
package mmrun

import (
	"context"
	"fmt"

	"github.com/tetratelabs/wazero/api"

	"github.com/mmrun/mmrun/internal/clock"
	"github.com/mmrun/mmrun/internal/engine"
	"github.com/mmrun/mmrun/internal/errs"
	"github.com/mmrun/mmrun/internal/receipts"
	"github.com/mmrun/mmrun/mmapmem"
)

// Instance is a running module with its persistent state. Its methods are safe for concurrent
// use; events run one after the other.
type Instance struct {
	store *engine.Store
	event event // the one in progress; of whoever has entered the store

	functions map[string]*Function
	// lastFunction saves the look-up for a guest with one kind of event (BenchmarkEvent in bench).
	lastFunction *Function
	// hostCalls tells that the guest can reach host functions that may look for their event.
	hostCalls bool

	io        *stdio // nil unless opened with WithHandler
	notes     bool   // commits say when they were made, and what for
	note      []byte
	program   *program        // nil unless opened with WithProgram
	clock     *clock.Clock    // nil unless opened with WithClock
	reading   []byte          // of it, that is being committed
	receipted *receipts.Table // as of the last commit, nil until it is needed
	history   *historyKeeper
}

// Call runs one exported function as one event and commits. The results have the encoding of
// wazero's api package. If the function traps, the state is rolled back (Atomic) or stays as the
// guest left it (Continuous), and the error is an [EventError] that wraps wazero's.
//
// Call allocates the results; [Instance.Update] with [Function.CallWithStack] does not.
func (in *Instance) Call(ctx context.Context, name string, params ...uint64) ([]uint64, error) {
	var done outcome
	results, err := in.callEvent(ctx, name, params, &done)
	if err = in.release(err, &done); err != nil {
		return nil, err
	}
	return results, nil
}

func (in *Instance) callEvent(ctx context.Context, name string, params []uint64,
	done *outcome) ([]uint64, error) {
	if err := in.enter(ctx); err != nil {
		return nil, err
	}
	defer in.leave(done)
	f, err := in.callFunction(ctx, name, params, done)
	if err != nil {
		return nil, err
	}
	return f.copyResults(), nil
}

// callFunction is one call as one event, from begin to end. The results are on the function's
// stack.
func (in *Instance) callFunction(ctx context.Context, name string, params []uint64,
	done *outcome) (*Function, error) {
	f, err := in.function(name, len(params))
	if err != nil {
		return nil, err
	}
	if err := in.begin(false); err != nil {
		return nil, err
	}
	err = f.call(ctx, params)
	return f, in.end(ctx, err, done)
}

// Update runs fn as one event: its calls are committed together. If fn returns an error, or one
// of its calls trapped, or ctx has ended, the whole event is rolled back (Atomic) and the error is
// returned.
func (in *Instance) Update(ctx context.Context, fn func(tx *Tx) error) error {
	return in.run(ctx, fn, false)
}

// View runs fn as a query: whatever it changes is rolled back, whether fn succeeds or not.
// Nothing is written to any file. Continuous mode has no rollback and refuses (ErrUnsupported).
func (in *Instance) View(ctx context.Context, fn func(tx *Tx) error) error {
	return in.run(ctx, fn, true)
}

func (in *Instance) run(ctx context.Context, fn func(tx *Tx) error, view bool) error {
	var done outcome
	err := in.runEvent(ctx, fn, view, &done)
	return in.release(err, &done)
}

func (in *Instance) runEvent(ctx context.Context, fn func(tx *Tx) error, view bool,
	done *outcome) error {
	if err := in.enter(ctx); err != nil {
		return err
	}
	defer in.leave(done)
	if view && !in.store.RollsBack() {
		return errs.As(ErrUnsupported, fmt.Errorf(
			"state %s: a %s state has no rollback, which View needs", in.Dir(), in.Mode()))
	}
	if err := in.begin(view); err != nil {
		return err
	}
	err := fn(&Tx{in: in, id: in.event.id.Load()})
	if err == nil {
		err = in.event.failed
	}
	return in.end(ctx, err, done)
}

// Seq is the sequence number of the last commit. The first run of a module is commit 1, and each
// event that is committed adds one, also when it changed nothing. It does not wait for an event in
// progress.
func (in *Instance) Seq() uint64 { return in.store.Seq() }

// Meta returns a copy of the user's bytes that were committed with the state, nil if none were. It
// does not wait for an event in progress.
func (in *Instance) Meta() []byte { return in.store.Meta() }

// Dir is the state directory.
func (in *Instance) Dir() string { return in.store.Dir() }

// Mode is the mode the state is in.
func (in *Instance) Mode() Mode { return in.store.Mode() }

// Functions lists the module's exported functions, by name.
func (in *Instance) Functions() map[string]api.FunctionDefinition {
	return exportedFunctions(in.store.Guest().Code())
}

// Sync makes all commits so far survive power loss. An error poisons the instance: nothing is
// known then about what is on the disk, and trying again would not tell. In Continuous mode it
// waits for the event in progress.
func (in *Instance) Sync(ctx context.Context) error {
	if err := in.refuseNested(ctx); err != nil {
		return err
	}
	return in.store.Sync(ctx)
}

// Checkpoint brings the memory file and the globals file forward to the last commit, releases the
// log, and returns when that is durable. Events go on meanwhile; what they commit is not part of
// it. In Continuous mode it is Sync.
func (in *Instance) Checkpoint(ctx context.Context) error {
	if err := in.refuseNested(ctx); err != nil {
		return err
	}
	return in.store.Checkpoint(ctx)
}

// Close makes a checkpoint, ends the guest and releases the state directory. It waits for an event
// in progress; if ctx ends meanwhile, the instance stays open. A second Close does nothing.
//
// Otherwise the instance is closed also when an error is returned, and nothing that was committed
// is lost: the next Open recovers it.
func (in *Instance) Close(ctx context.Context) error {
	if err := in.refuseNested(ctx); err != nil {
		return err
	}
	in.history.close()
	return in.store.Close(ctx)
}

// Stats is what an instance has done since it was opened and what it holds now.
type Stats struct {
	Mode        string `json:"mode"`
	Seq         uint64 `json:"seq"`         // of the last commit
	MemoryBytes uint64 `json:"memoryBytes"` // size of the linear memory
	Tracker     string `json:"tracker"`     // how changed pages are found; see package mmapmem
	// TrackerReason is why that way was chosen when the state was opened.
	TrackerReason string `json:"trackerReason"`
	// ComparedPages is how many 4 KiB pages each commit compares.
	ComparedPages int `json:"comparedPages"`
	// ComparedAll is how many events have had all pages compared, since Open: with the tracker
	// Barrier those in which a host function was called that may have written anything.
	ComparedAll uint64 `json:"comparedAll"`

	// PrivatePages is how many 4 KiB pages are held in memory twice: the guest's and a shadow.
	PrivatePages int `json:"privatePages"`

	Commits     uint64 `json:"commits"`     // since Open, as all below
	Aborts      uint64 `json:"aborts"`      // events that trapped or failed
	Views       uint64 `json:"views"`       // queries
	Checkpoints uint64 `json:"checkpoints"` // finished ones
	// CheckpointFailures is how many have failed, for instance for want of disk. They are tried
	// again.
	CheckpointFailures uint64 `json:"checkpointFailures"`

	WALBytes uint64 `json:"walBytes"` // written to the log
	// WALUsed is how many bytes of the active segment a recovery would have to replay.
	WALUsed   int64  `json:"walUsed"`
	Recovered uint64 `json:"recovered"` // commits that Open replayed from the log
}

// Stats returns a snapshot. It does not wait for an event in progress: meanwhile the sizes are
// those of an earlier quiescent point, the counters those of now.
func (in *Instance) Stats() Stats { return Stats(in.store.Stats()) }

// PageLook is how a part of the memory looks from outside.
type PageLook = mmapmem.Look

// How a part of the memory looks; the later ones count more where a part has several pages.
const (
	PageUntouched = mmapmem.Untouched // it was never written
	PageClean     = mmapmem.Clean     // its bytes are in the memory file
	PageDirty     = mmapmem.Dirty     // the memory file has older bytes
	PageWritten   = mmapmem.Written   // one of the last commits has changed it
)

// Picture is what can be seen of an instance between two events.
type Picture struct {
	Seq         uint64
	MemoryBytes uint64
	Cells       []PageLook // each stands for PagesEach pages of 4 KiB
	PagesEach   uint32
	Globals     []GlobalValue // the mutable ones, by index
}

// GlobalValue is a mutable global as of a commit. Only a v128 uses Hi; a function reference is the
// index of its function, -1 for null.
type GlobalValue struct {
	Name   string // from the module's names or exports, "" if it has none
	Type   api.ValueType
	Lo, Hi uint64
}

// Picture waits for the event in progress and tells how the instance looks, its memory in cells at
// most. What was changed behind the commit since counts as just written.
func (in *Instance) Picture(ctx context.Context, cells int, since uint64) (Picture, error) {
	if err := in.refuseNested(ctx); err != nil {
		return Picture{}, err
	}
	p, err := in.store.Picture(ctx, cells, since)
	if err != nil {
		return Picture{}, err
	}
	out := Picture{Seq: p.State.Seq, MemoryBytes: uint64(p.State.MemoryPages) << 16, Cells: p.Looks,
		PagesEach: p.PagesEach}
	info := &in.store.Guest().Code().Info
	for i, v := range p.State.Globals {
		out.Globals = append(out.Globals, GlobalValue{info.Globals[i].Name, api.ValueType(v.Type),
			v.Lo, v.Hi})
	}
	return out, nil
}

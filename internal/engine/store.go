// Package engine keeps the state of one running guest in a directory, in one of two ways: atomic
// (a log of commits, checkpoints behind it) or continuous (the memory file itself).
//
// An event goes through a [Store] from top to bottom:
//
//	Enter     wait for the gate                              gate.go
//	Begin     the event has begun                            store.go
//	Commit    collect what changed, append it, keep it       atomic.go (or continuous.go)
//	Abort     or put everything back                         rollback in atomic.go
//	Leave     whatever happened, nothing is left half done   store.go
//	Durable   wait for the sync that the policy asks for     store.go
//
// Behind the events the checkpointer (checkpoint.go) brings the files forward. [Open] (open.go)
// creates or recovers (recover.go) a state. What is known of a state that nobody opens is in
// view.go.
package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/mmrun/mmrun/globalsfile"
	"github.com/mmrun/mmrun/internal/errs"
	"github.com/mmrun/mmrun/internal/guest"
	"github.com/mmrun/mmrun/internal/pagefile"
	"github.com/mmrun/mmrun/internal/section"
	"github.com/mmrun/mmrun/internal/statedir"
	"github.com/mmrun/mmrun/mmapmem"
)

// Store is an open state and the guest that runs on it.
//
// Between Enter and Leave it belongs to one goroutine. Seq, Meta, Stats, Usable, Sync, Checkpoint
// and Durable may be called at any time, by anybody.
type Store struct {
	core
	statsKeeper
	keep   keeper
	gate   *gate
	closed atomic.Bool
}

// core is what both ways of keeping a state work on.
type core struct {
	dir   string
	opts  *Options
	mode  globalsfile.Mode
	guest *guest.Guest
	mem   *mmapmem.Memory    // nil if the module has no memory
	state *globalsfile.State // the small state as of the last commit
	lock  *statedir.Lock
	files closers
	phase phase // of the event in progress

	trackerWhy string // why the tracker was chosen

	poison   atomic.Pointer[error]
	counters counters
	seq      atomic.Uint64 // of the last commit
	// held while state.Meta changes, and by those who read it outside of events
	metaMu sync.Mutex
}

// keeper is what differs between the modes. All methods but sync are called at a quiescent point,
// with the gate held.
type keeper interface {
	// begin is called before an event.
	begin() error
	// commit keeps what a completed event did. It sets the phase to keeping when that cannot be
	// undone any more. An error that does not poison leaves the event to be aborted.
	commit(x Extras) error
	// abort ends an event that failed: by rollback, or by keeping what it did.
	abort() error
	// rollsBack tells which.
	rollsBack() bool
	// sync makes all commits so far survive power loss, waitDurable those up to seq. They are
	// called without the gate; a sync that has to wait for it gives up when ctx ends.
	sync(ctx context.Context) error
	waitDurable(seq uint64) error
	// seal starts a checkpoint, or tells that another one is in progress and that it has to be
	// called again. The function returned waits for the end of either, without the gate.
	seal() (wait func() error, sealed bool, err error)
	// close makes a last checkpoint.
	close() error
	// release gives back what runs in the background, without making a checkpoint.
	release()
	stats(*Stats)
}

// Extras are what an event makes of the part of the small state that is not the guest's own.
type Extras struct {
	MetaSet bool // otherwise the user's bytes stay
	Meta    []byte
	Kept    []Change // in ascending order of their ids, one an id
}

// Change is what becomes of one of the byte strings that belong to the host's side of a state.
type Change struct {
	ID     section.ID
	Bytes  []byte
	Append bool // to what is there; otherwise they take its place
}

// phase is how far an event has come. It tells what is left to do for one that does not come back.
type phase int

const (
	idle    phase = iota
	running       // guest or host code, or the collecting of what it changed
	keeping       // the commit may be in the log already
)

var errUnwound = errors.New("the event's goroutine panicked or exited while it was committed")

// Enter waits until no event runs, or until ctx ends. Unless it returns an error, Leave must
// follow, deferred: it is what ends an event that panics.
func (s *Store) Enter(ctx context.Context) error {
	if err := s.gate.enter(ctx); err != nil {
		return fmt.Errorf("state %s: not begun: %w", s.dir, err)
	}
	return nil
}

// Leave lets the next event in. An event that neither Commit nor Abort has ended, because its
// goroutine panics or exits, is undone first.
func (s *Store) Leave() {
	defer s.gate.leave()
	if s.phase != idle {
		s.unwind()
	}
	if s.statsWanted.Load() {
		s.refreshStats()
	}
}

func (s *Store) unwind() {
	// A rollback that does not come to its end either leaves nothing to go on with.
	done := false
	defer func() {
		if !done {
			_ = s.poisonWith(errUnwound)
		}
	}()
	if s.phase == keeping {
		s.phase = idle
		return // poisoned: whether the log holds the commit is for a recovery to find out
	}
	err := s.Abort()
	if err == nil {
		// The stack of the wazero instance has been left in the middle of a call.
		err = s.guest.Renew(s.state)
	}
	done = err == nil
}

// Begin starts an event.
func (s *Store) Begin() error {
	if err := s.Usable(); err != nil {
		return err
	}
	if s.guest.Closed() {
		if err := s.revive(); err != nil {
			return err
		}
	}
	if err := s.keep.begin(); err != nil {
		return err
	}
	s.phase = running
	return nil
}

// revive makes a new wazero instance where host code has closed the one before between two events.
func (s *Store) revive() error {
	if err := s.guest.Renew(s.state); err != nil {
		return fmt.Errorf("state %s: the guest's module was closed from outside, by its runtime's "+
			"Close or a host function, and cannot be made anew (close the instance, then open the "+
			"state in another runtime): %w", s.dir, err)
	}
	return nil
}

// Commit makes what the event did the state that recovery brings back. If it fails, the event has
// been aborted, or the store is poisoned.
func (s *Store) Commit(x Extras) error {
	err := s.keep.commit(x)
	if err == nil {
		s.phase = idle
		s.counters.commits.Add(1)
		s.seq.Store(s.state.Seq)
		return nil
	}
	if s.poison.Load() != nil {
		s.phase = idle
		return err
	}
	return errors.Join(err, s.Abort())
}

// Abort ends an event without a commit: by rollback, or in Continuous mode by keeping what it did.
func (s *Store) Abort() error {
	s.counters.aborts.Add(1)
	return s.abort()
}

// EndView ends an event that was a query, by rollback.
func (s *Store) EndView() error {
	s.counters.views.Add(1)
	return s.abort()
}

func (s *Store) abort() error {
	err := s.keep.abort()
	if err != nil {
		err = s.poisonWith(err)
	}
	s.phase = idle
	s.seq.Store(s.state.Seq)
	return err
}

// RollsBack tells whether Abort is a rollback.
func (s *Store) RollsBack() bool { return s.keep.rollsBack() }

// Guest is what runs. Its methods are for between Enter and Leave.
func (s *Store) Guest() *guest.Guest { return s.guest }

// Memory is the guest's memory, nil if it has none.
func (s *Store) Memory() *mmapmem.Memory { return s.mem }

// State is the small state as of the last commit; not to be changed.
func (s *Store) State() *globalsfile.State { return s.state }

// Mode is the mode that the state is in.
func (s *Store) Mode() globalsfile.Mode { return s.mode }

// Dir is the state directory.
func (s *Store) Dir() string { return s.dir }

// Seq is the number of the last commit.
func (s *Store) Seq() uint64 { return s.seq.Load() }

// Meta is a copy of the user's bytes as of the last commit, nil if there are none.
func (s *Store) Meta() []byte {
	s.metaMu.Lock()
	defer s.metaMu.Unlock()
	return append([]byte(nil), s.state.Meta...)
}

// Kept is a byte string of the host's side, as of the last commit; not to be changed. It is for
// between Enter and Leave.
func (s *Store) Kept(id section.ID) []byte { return s.state.Kept[id-section.FirstKept] }

// Usable is an error if no events are taken any more.
func (s *Store) Usable() error {
	if s.closed.Load() {
		return s.closedError()
	}
	return s.poisoned()
}

// Sync makes all commits so far survive power loss. An error poisons: nothing is known then about
// what is on the disk, and trying again would not tell.
func (s *Store) Sync(ctx context.Context) error {
	if err := s.ready(ctx); err != nil {
		return err
	}
	return s.keep.sync(ctx)
}

// Durable waits until the commits up to seq survive power loss, if the policy is that of syncing
// each. It is called after Leave: other events run meanwhile, and one sync serves all who wait.
func (s *Store) Durable(seq uint64) error {
	if !s.opts.SyncAlways {
		return nil
	}
	return s.keep.waitDurable(seq)
}

func (s *Store) ready(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("state %s: %w", s.dir, err)
	}
	return s.Usable()
}

// Checkpoint brings the files forward to the last commit and returns when that is durable. Events
// go on meanwhile. If ctx ends first, the checkpoint goes on behind.
func (s *Store) Checkpoint(ctx context.Context) error {
	for {
		wait, sealed, err := s.seal(ctx)
		if err == nil {
			err = wait()
		}
		if err != nil || sealed {
			return err
		}
	}
}

func (s *Store) seal(ctx context.Context) (func() error, bool, error) {
	if err := s.Enter(ctx); err != nil {
		return nil, false, err
	}
	defer s.Leave()
	if err := s.Usable(); err != nil {
		return nil, false, err
	}
	return s.keep.seal()
}

// Close makes a checkpoint, ends the guest and releases the directory. If ctx ends while an event
// runs, nothing is closed. Otherwise the store is closed, also when there is an error, and nothing
// that was committed is lost.
func (s *Store) Close(ctx context.Context) error {
	if err := s.Enter(ctx); err != nil {
		return err
	}
	defer s.Leave()
	if s.closed.Swap(true) {
		return nil
	}
	err := s.keep.close()
	if p := s.poisoned(); p != nil && err == nil {
		err = p
	}
	if err == nil {
		// Without the note the next opening takes longer.
		_ = s.lock.SayClosed()
	}
	return errors.Join(err, s.guest.Close(), s.files.close())
}

// LeaveOutChecksums makes the checkpoints of an atomic state forget the page checksums, to measure
// what they cost. The state cannot be opened afterwards.
func (s *Store) LeaveOutChecksums() {
	if k, ok := s.keep.(*atomicKeeper); ok && k.checkpoint.memory != nil {
		k.checkpoint.patcher = pagefile.NewPatcher(k.checkpoint.memory, nil)
	}
}

// Abandon leaves a store as the death of its process would: files closed, nothing written.
func (s *Store) Abandon() {
	_ = s.gate.enter(context.Background())
	defer s.gate.leave()
	if s.closed.Swap(true) {
		return
	}
	s.keep.release()
	_ = s.guest.Close()
	_ = s.files.close()
}

func (c *core) closedError() error {
	return errs.As(errs.ErrClosed, fmt.Errorf("state %s: %w", c.dir, errs.ErrClosed))
}

// poisonWith makes err the reason why nothing is accepted any more.
func (c *core) poisonWith(err error) error {
	if c.poison.CompareAndSwap(nil, &err) {
		if c.mode == Atomic { // the globals file of a continuous state says that a sync has failed
			_ = c.lock.SayFailed()
		}
	}
	c.opts.Logger.Error("instance is poisoned", "state", c.dir, "error", err)
	return c.poisoned()
}

func (c *core) poisoned() error {
	if p := c.poison.Load(); p != nil {
		return errs.As(errs.ErrPoisoned, fmt.Errorf(
			"state %s: %w (close it and open it again): %w", c.dir, errs.ErrPoisoned, *p))
	}
	return nil
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

package mmrun

import "github.com/mmrun/mmrun/internal/errs"

// Errors that callers test for with errors.Is. What is returned wraps one of them and says
// which file or function it is about, what was found and what to do.
var (
	// ErrLocked: another process, or another Instance of this one, has the state open.
	ErrLocked = errs.ErrLocked
	// ErrModuleMismatch: the state was created by another module than the one given.
	ErrModuleMismatch = errs.ErrModuleMismatch
	// ErrTorn: a continuous state was killed inside an event, or lost power since its last
	// sync. WithAcceptTorn opens it as it is.
	ErrTorn = errs.ErrTorn
	// ErrCorrupt: a file of the state holds what mmrun did not write.
	ErrCorrupt = errs.ErrCorrupt
	// ErrUnsupported: the module, the mode or the platform does not allow what was asked.
	ErrUnsupported = errs.ErrUnsupported
	// ErrClosed: the instance has been closed.
	ErrClosed = errs.ErrClosed
	// ErrPoisoned: an earlier error, such as a failed sync, left it unknown what is on the
	// disk. Nothing more is accepted; close the instance and open the state again.
	ErrPoisoned = errs.ErrPoisoned
	// ErrNotExist: there is no state in the directory and no module to create one from.
	ErrNotExist = errs.ErrNotExist
	// ErrNoFunction: the module exports no function of that name.
	ErrNoFunction = errs.ErrNoFunction
	// ErrRunsOnce: the function runs once in the life of a state, and has: _initialize when the
	// state was created, _start as its first event.
	ErrRunsOnce = errs.ErrRunsOnce
	// ErrNested: an event was begun, or the instance closed, from inside an event of the same
	// instance, as its context tells.
	ErrNested = errs.ErrNested
	// ErrNotInEvent: a Tx or a Function was used when its event was over.
	ErrNotInEvent = errs.ErrNotInEvent
	// ErrTrap: the guest trapped. The error that wraps it is an EventError.
	ErrTrap = errs.ErrTrap
	// ErrRefused: the guest's handler has refused the event. The error that wraps it is a
	// RefusedError.
	ErrRefused = errs.ErrRefused
	// ErrKeyReused: the key of a request belongs to another request.
	ErrKeyReused = errs.ErrKeyReused
	// ErrEffectTooLarge: an event has printed more than can be kept.
	ErrEffectTooLarge = errs.ErrEffectTooLarge
)

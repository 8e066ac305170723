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
)

// StateError is an error about a state directory: which one, what was being done, and the cause.
// Most errors of this package hold one, for errors.As.
type StateError = errs.StateError

func asKind(kind, err error) error { return errs.As(kind, err) }

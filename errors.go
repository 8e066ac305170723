package mmrun

import "errors"

// Errors that callers test for with errors.Is. What is returned wraps one of them and says
// which file or function it is about, what was found and what to do.
var (
	// ErrLocked: another process, or another Instance of this one, has the state open.
	ErrLocked = errors.New("state is in use")
	// ErrModuleMismatch: the state was created by another module than the one given.
	ErrModuleMismatch = errors.New("state belongs to another module")
	// ErrTorn: a continuous state was killed inside an event, or lost power since its last
	// sync. WithAcceptTorn opens it as it is.
	ErrTorn = errors.New("state is torn")
	// ErrCorrupt: a file of the state holds what mmrun did not write.
	ErrCorrupt = errors.New("state is damaged")
	// ErrUnsupported: the module, the mode or the platform does not allow what was asked.
	ErrUnsupported = errors.New("unsupported")
	// ErrClosed: the instance has been closed.
	ErrClosed = errors.New("instance is closed")
	// ErrPoisoned: an earlier error, such as a failed sync, left it unknown what is on the
	// disk. Nothing more is accepted; close the instance and open the state again.
	ErrPoisoned = errors.New("instance is poisoned")
	// ErrNotExist: there is no state in the directory and no module to create one from.
	ErrNotExist = errors.New("no such state")
	// ErrNoFunction: the module exports no function of that name.
	ErrNoFunction = errors.New("no such function")
	// ErrRunsOnce: the function runs once in the life of a state, and has: _initialize when the
	// state was created, _start as its first event.
	ErrRunsOnce = errors.New("runs once in the life of a state")
)

// kindError ties a message to one of the errors above: Error is the message alone, Is and
// Unwrap find both.
type kindError struct {
	kind error
	err  error
}

func (e *kindError) Error() string   { return e.err.Error() }
func (e *kindError) Unwrap() []error { return []error{e.kind, e.err} }

func asKind(kind, err error) error { return &kindError{kind, err} }

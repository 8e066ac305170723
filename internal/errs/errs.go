// Package errs has the kinds of errors that callers of mmrun test for, and the type that ties a
// message to one of them. The root package re-exports the kinds.
package errs

import (
	"errors"
	"fmt"
)

// Kinds, for errors.Is. What is returned wraps one of them and says which file or function it is
// about, what was found and what to do.
var (
	// ErrLocked: another process, or another Instance of this one, has the state open.
	ErrLocked = errors.New("state is in use")
	// ErrModuleMismatch: the state was created by another module than the one given.
	ErrModuleMismatch = errors.New("state belongs to another module")
	// ErrTorn: a continuous state was killed inside an event, lost power since its last sync, or
	// was copied while it was open.
	ErrTorn = errors.New("state is torn")
	// ErrCorrupt: a file of the state holds what mmrun did not write.
	ErrCorrupt = errors.New("state is damaged")
	// ErrUnsupported: the module, the mode or the platform does not allow what was asked.
	ErrUnsupported = errors.New("unsupported")
	// ErrClosed: the instance has been closed.
	ErrClosed = errors.New("instance is closed")
	// ErrPoisoned: an earlier error, such as a failed sync, left it unknown what is on the disk.
	ErrPoisoned = errors.New("instance is poisoned")
	// ErrNotExist: there is no state in the directory and no module to create one from.
	ErrNotExist = errors.New("no such state")
	// ErrNoFunction: the module exports no function of that name.
	ErrNoFunction = errors.New("no such function")
	// ErrRunsOnce: the function runs once in the life of a state, and has.
	ErrRunsOnce = errors.New("runs once in the life of a state")
	// ErrNested: an event was begun from inside an event of the same instance.
	ErrNested = errors.New("inside an event already")
	// ErrNotInEvent: what belongs to an event was used when it was over.
	ErrNotInEvent = errors.New("not inside the event")
	// ErrTrap: the guest trapped.
	ErrTrap = errors.New("trap")
	// ErrRefused: the guest's handler has refused the event.
	ErrRefused = errors.New("refused by the guest")
	// ErrKeyReused: the key of a request belongs to another request.
	ErrKeyReused = errors.New("key used for another request")
	// ErrEffectTooLarge: an event has printed more than can be kept.
	ErrEffectTooLarge = errors.New("effect too large")
)

// kinded ties a message to a kind: Error is the message alone, Is and As find both.
type kinded struct {
	kind error
	err  error
}

func (e *kinded) Error() string   { return e.err.Error() }
func (e *kinded) Unwrap() []error { return []error{e.kind, e.err} }

// As gives err a kind without changing its message.
func As(kind, err error) error { return &kinded{kind, err} }

// StateError is an error about a state directory, as fs.PathError is one about a file.
type StateError struct {
	Dir string // the state directory, as the caller named it
	Op  string // what was being done, such as "lock" or "checkpoint"; empty if the cause says it
	Err error  // the cause
}

func (e *StateError) Error() string {
	if e.Op == "" {
		return fmt.Sprintf("state %s: %v", e.Dir, e.Err)
	}
	return fmt.Sprintf("state %s: %s: %v", e.Dir, e.Op, e.Err)
}

func (e *StateError) Unwrap() error { return e.Err }

// State says which state err is about. An error that says so already stays as it is, and so does
// nil: each layer may call State without knowing whether another has.
func State(dir, op string, err error) error {
	if err == nil {
		return nil
	}
	if said := (*StateError)(nil); errors.As(err, &said) && said.Dir == dir {
		return err
	}
	return &StateError{Dir: dir, Op: op, Err: err}
}

// Statef is State for a cause of a kind, put into words here. Format and args are those of
// fmt.Errorf.
func Statef(kind error, dir, format string, args ...any) error {
	return As(kind, &StateError{Dir: dir, Err: fmt.Errorf(format, args...)})
}

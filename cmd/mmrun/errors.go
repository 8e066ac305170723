package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/tetratelabs/wazero/sys"

	"github.com/mmrun/mmrun"
)

// The exit status.
const (
	exitDone   = 0
	exitFailed = 1 // a trap, a damaged or refused state, I/O
	exitUsage  = 2 // the command line was wrong
)

// usageError is an error of the command line.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// renamed is err under another message.
type renamed struct {
	message string
	error
}

func (e renamed) Error() string { return e.message }
func (e renamed) Unwrap() error { return e.error }

// eventError is an error of an event, or after one, in a state that is open: it says what has
// become of the event.
type eventError struct {
	committed bool   // the event was
	seq       uint64 // of the last commit
	error
}

func (e eventError) Unwrap() error { return e.error }

// failure is an error as JSON. It is an object of its own on standard output, where the answer
// would have been.
type failure struct {
	Error string `json:"error"` // the sentences that standard error has as well
	Kind  string `json:"kind"`  // see kinds

	// Committed says whether the event that the command was for is committed all the same. If it
	// is, the command must not be run again for the same event.
	Committed bool   `json:"committed"`
	Seq       uint64 `json:"seq,omitempty"` // of the last commit, if the state was opened
}

// kinds are what programs tell errors apart by, the first that fits. They do not change.
var kinds = []struct {
	err  error
	name string
}{
	{mmrun.ErrLocked, "locked"},
	{mmrun.ErrModuleMismatch, "module-mismatch"},
	{mmrun.ErrTorn, "torn"},
	{mmrun.ErrCorrupt, "corrupt"},
	{mmrun.ErrUnsupported, "unsupported"},
	{mmrun.ErrPoisoned, "poisoned"},
	{mmrun.ErrNotExist, "no-state"},
	{mmrun.ErrNoFunction, "no-function"},
	{mmrun.ErrRunsOnce, "runs-once"},
	{mmrun.ErrRefused, "refused"},
	{mmrun.ErrEffectTooLarge, "effect-too-large"},
	{context.DeadlineExceeded, "timeout"},
}

const (
	kindUsage  = "usage"  // the command line, or a line of input, was wrong
	kindExit   = "exit"   // the guest has ended itself: proc_exit
	kindTrap   = "trap"   // the guest has trapped, or a host function that it called has failed
	kindOutput = "output" // the answer could not be written
	kindFailed = "failed" // anything else
)

func kindOf(err error) string {
	for _, k := range kinds {
		if errors.Is(err, k.err) {
			return k.name
		}
	}
	var exit *sys.ExitError
	var usage usageError
	var event eventError
	switch {
	case errors.As(err, &usage):
		return kindUsage
	case errors.As(err, &exit):
		return kindExit
	case errors.As(err, &event) && event.committed:
		return kindOutput
	case errors.As(err, &event):
		return kindTrap
	}
	return kindFailed
}

// printFailure writes an error as JSON.
func (a *app) printFailure(err error) {
	f := failure{Error: err.Error(), Kind: kindOf(err)}
	if event := (eventError{}); errors.As(err, &event) {
		f.Committed, f.Seq = event.committed, event.seq
	}
	// A standard output that takes nothing leaves the sentence on standard error.
	_ = a.printJSON(f)
}

// inModule puts the path of the module into an error about it.
func inModule(path string, err error) error {
	if rest, ok := strings.CutPrefix(err.Error(), "module: "); ok && path != "" {
		return renamed{"module " + path + ": " + strings.TrimPrefix(rest, "unsupported module: "),
			err}
	}
	return err
}

// explainEvent adds to the error of an event what a user may not know of it.
func explainEvent(err error) error {
	var exit *sys.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 0 {
		return fmt.Errorf("%w\nthe guest has ended itself with exit status 0 (proc_exit), as a "+
			"command "+
			"does at the end of its main function: an event has to return, or it is not committed "+
			"(export functions from the guest, and build it as a reactor)", err)
	}
	return err
}

// firstLine is what an answer of one line has room for. The rest is a stack trace.
func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

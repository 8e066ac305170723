package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/term"
)

// output is standard output: it remembers whether all that was written has arrived. An answer that
// has not must not be taken for one that has, or a caller tries an event again that was committed.
type output struct {
	to      io.Writer
	written bool // something was
	closed  bool
	err     error
}

var errClosedOutput = errors.New("standard output is closed, or is /dev/null opened for " +
	"reading and writing as it looks when it was closed (use > /dev/null to discard answers)")

func (o *output) Write(p []byte) (int, error) {
	if f, ok := o.to.(*os.File); ok && !o.written && o.err == nil && wasClosed(f) {
		o.err = errClosedOutput
	}
	if o.err != nil {
		return 0, o.err
	}
	o.written = true
	n, err := o.to.Write(p)
	o.err = err
	return n, err
}

// close ends the output. Some file systems tell only here that they have no room left.
func (o *output) close() error {
	if c, ok := o.to.(io.Closer); ok && o.err == nil && !o.closed {
		o.err, o.closed = c.Close(), true
	}
	return o.err
}

// wasClosed tells whether standard output was closed when the process started. The Go runtime
// then opens /dev/null in its place, before any code of ours, for reading and writing; a shell's
// > /dev/null and the DEVNULL of most languages are opened for writing only. Nothing in the
// descriptor tells it from Python's subprocess.DEVNULL, so one that comes with a standard error
// of the same kind is taken for what its caller wants: nobody is there to be told.
func wasClosed(f *os.File) bool {
	return isNullForBoth(f) && !isNullForBoth(os.Stderr)
}

// isTerminal tells whether people read what is written to w.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// done is said before what went wrong with the answer: it is what a caller must not do again.
func (a *app) done(format string, args ...any) { a.work = fmt.Sprintf(format, args...) }

// lostAnswer is the error of an answer that could not be written.
func (a *app) lostAnswer(err error) error {
	if a.work != "" {
		return fmt.Errorf("%s, but its answer could not be written: %w", a.work, err)
	}
	return fmt.Errorf("the answer could not be written: %w", err)
}

// lostPrint is the error of what a guest printed and could not be written.
func (a *app) lostPrint(err error) error {
	if a.work != "" {
		return fmt.Errorf("%s, but what the guest printed could not be written: %w", a.work, err)
	}
	return fmt.Errorf("what the guest printed could not be written: %w", err)
}

// keepPipeErrors makes a reader that went away an error of writing instead of the end of the
// process: whoever changes a state has something to say about it then.
func keepPipeErrors() { signal.Ignore(syscall.SIGPIPE) }

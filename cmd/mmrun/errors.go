package main

import (
	"fmt"
	"strings"
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

// inModule puts the path of the module into an error about it.
func inModule(path string, err error) error {
	if rest, ok := strings.CutPrefix(err.Error(), "module: "); ok && path != "" {
		return renamed{"module " + path + ": " + strings.TrimPrefix(rest, "unsupported module: "), err}
	}
	return err
}

// firstLine is what an answer of one line has room for. The rest is a stack trace.
func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

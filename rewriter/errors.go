package rewriter

import (
	"errors"
	"fmt"

	"github.com/mmrun/mmrun/rewriter/internal/wasm"
)

// FormatError says that the input is no valid WebAssembly module, and where.
type FormatError struct {
	Offset int // bytes from the start of the module
	Reason string
}

func (e *FormatError) Error() string {
	return fmt.Sprintf("malformed wasm module at offset %d: %s", e.Offset, e.Reason)
}

// UnsupportedError says that the module is one whose state cannot be kept, or that uses an
// instruction or a type that the rewriter does not know. It is a property of the module, not of its
// encoding.
type UnsupportedError struct {
	Reason string // a full sentence without its final dot
	Offset int    // bytes from the start of the module; 0 when no single place is to blame
}

func (e *UnsupportedError) Error() string {
	if e.Offset > 0 {
		return fmt.Sprintf("unsupported module (offset %d): %s", e.Offset, e.Reason)
	}
	return "unsupported module: " + e.Reason
}

// publicError makes the errors of the decoder and of passes those of this package.
func publicError(err error) error {
	var f *wasm.FormatError
	var u *wasm.UnsupportedError
	switch {
	case errors.As(err, &f):
		return &FormatError{Offset: f.Offset, Reason: f.Reason}
	case errors.As(err, &u):
		return &UnsupportedError{Reason: u.Reason, Offset: u.Offset}
	}
	return err
}

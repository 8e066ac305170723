package wasm

import "fmt"

// FormatError says that the input is no valid WebAssembly module, and where.
type FormatError struct {
	Offset int // bytes from the start of the module
	Reason string
}

func (e *FormatError) Error() string { return fmt.Sprintf("offset %d: %s", e.Offset, e.Reason) }

// UnsupportedError says that a module is one that cannot be rewritten.
type UnsupportedError struct {
	Reason string // a full sentence without its final dot
	Offset int    // bytes from the start of the module; 0 when no single place is to blame
}

func (e *UnsupportedError) Error() string { return e.Reason }

// Malformed makes a *FormatError.
func Malformed(offset int, format string, args ...any) error {
	return &FormatError{Offset: offset, Reason: fmt.Sprintf(format, args...)}
}

// Unsupported makes an *UnsupportedError.
func Unsupported(offset int, format string, args ...any) error {
	return &UnsupportedError{Offset: offset, Reason: fmt.Sprintf(format, args...)}
}

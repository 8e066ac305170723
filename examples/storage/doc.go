// Package storage shows the packages below mmrun at work without it, as a program outside of the
// project would use them: it is a Go module of its own and imports public packages alone.
package storage

//go:build !linux

package mmapmem

import "errors"

// Kernel is for Linux.
func Kernel(*Memory) (Tracker, error) {
	return nil, errors.New("this operating system does not tell which pages were written")
}

//go:build !unix

package registry

import "strings"

// syncDir has no counterpart here.
func syncDir(string) error { return nil }

// isFull tells whether a file has as many names as it may have.
func isFull(err error) bool { return strings.Contains(err.Error(), "too many links") }

//go:build !linux

package engine

import (
	"errors"
	"os"
)

// cloneFile is not known how to do here.
func cloneFile(_, _ *os.File) error { return errors.ErrUnsupported }

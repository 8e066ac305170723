//go:build unix

package registry

import (
	"errors"
	"os"
	"syscall"
)

// syncDir makes the names in a directory durable.
func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// isFull tells whether a file has as many names as it may have.
func isFull(err error) bool { return errors.Is(err, syscall.EMLINK) }

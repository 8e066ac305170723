//go:build unix

package main

import (
	"os"

	"golang.org/x/sys/unix"
)

// isNullForBoth tells whether f is the null device, opened for reading and writing.
func isNullForBoth(f *os.File) bool {
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
	if err != nil || flags&unix.O_ACCMODE != unix.O_RDWR {
		return false
	}
	info, err := f.Stat()
	if err != nil {
		return false
	}
	null, err := os.Stat(os.DevNull)
	return err == nil && os.SameFile(info, null)
}

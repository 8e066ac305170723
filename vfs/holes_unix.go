//go:build unix

package vfs

import (
	"io/fs"
	"syscall"
)

// hasHoles tells whether a file may have holes.
func hasHoles(fi fs.FileInfo) bool {
	s, ok := fi.Sys().(*syscall.Stat_t)
	return !ok || int64(s.Blocks)*512 < fi.Size()
}

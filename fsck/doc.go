// Package fsck looks after states that nobody has open: [Inspect] tells what is in one (also while
// somebody has it open), [Verify] checks every byte of it, and [Repair] brings a damaged one to its
// last intact commit.
//
// What Verify calls sound, Open opens, given what the module imports and large enough limits; what
// Open refuses as damaged, Verify finds. Damage of pages that no commit in the log names is found
// by Verify alone: Open does not read the memory.
package fsck

import (
	"github.com/mmrun/mmrun/internal/statedir"
	"github.com/mmrun/mmrun/mmapmem"
	"github.com/mmrun/mmrun/vfs"
)

// Checker verifies and repairs as the functions of the package do, on another file system or as in
// another boot of the machine: that is how tests cut the power. The zero value is this machine.
type Checker struct {
	FS   vfs.FS   // nil: vfs.OS
	Boot [16]byte // zeros: the present boot
}

func (c Checker) orDefault() Checker {
	if c.FS == nil {
		c.FS = vfs.OS
	}
	if c.Boot == ([16]byte{}) {
		c.Boot = statedir.Boot()
	}
	return c
}

const (
	pageSize     = mmapmem.PageSize
	wasmPageSize = mmapmem.WasmPageSize
)

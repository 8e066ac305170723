package faultfs

import (
	"fmt"
	"io/fs"
	"sync"
	"syscall"
)

// Fault is how an operation fails.
type Fault int

const (
	// EIO: the operation has no effect and returns EIO.
	EIO Fault = iota
	// ENOSPC: the operation has no effect and returns ENOSPC.
	ENOSPC
	// Short: half of a write is written, then ENOSPC. Other operations fail as with ENOSPC.
	Short
	// After: the operation takes effect and returns EIO all the same.
	After
)

var faultNames = [...]string{"EIO", "ENOSPC", "short write", "EIO after the effect"}

func (f Fault) String() string { return faultNames[f] }

// Injector counts operations and fails the k-th one. It is safe for concurrent use.
type Injector struct {
	fault   Fault
	forever bool

	mu     sync.Mutex
	k      int // 0: none is failed
	count  int
	failed []Op
}

// NewInjector fails the k-th operation, counted from 1, and if forever every one after it. Closing
// is an exception to the latter: a program must be able to give back what it holds. Unmap is not
// counted; the system call does not fail for a mapping that there is.
func NewInjector(k int, fault Fault, forever bool) *Injector {
	return &Injector{k: k, fault: fault, forever: forever}
}

// Failed lists the operations that were failed.
func (i *Injector) Failed() []Op {
	i.mu.Lock()
	defer i.mu.Unlock()
	return append([]Op(nil), i.failed...)
}

// Note counts an operation that another layer has failed.
func (i *Injector) Note(op *Op) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.failed = append(i.failed, *op)
}

// Heal ends the failures.
func (i *Injector) Heal() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.k = 0
}

// Layer implements the type [Layer].
func (i *Injector) Layer(op *Op, do func() error) error {
	if op.Kind == Unmap || op.Kind == UnmapShared {
		return do()
	}
	i.mu.Lock()
	i.count++
	k := i.k
	fail := k > 0 && (i.count == k || i.forever && i.count > k && op.Kind != Close)
	if fail {
		i.failed = append(i.failed, *op)
	}
	i.mu.Unlock()
	if !fail {
		return do()
	}
	// A failed close has given up the file, as on Linux.
	if i.fault == After || op.Kind == Close {
		_ = do()
	}
	if i.fault == Short && op.Kind == WriteAt {
		op.Length /= 2
		_ = do()
	}
	errno := syscall.EIO
	if i.fault == ENOSPC || i.fault == Short {
		errno = syscall.ENOSPC
	}
	return &fs.PathError{Op: fmt.Sprintf("injected: %v", op.Kind), Path: op.Path, Err: errno}
}

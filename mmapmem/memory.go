// Package mmapmem puts the linear memory of a WebAssembly module on a memory-mapped file and
// tells which of its pages have changed.
//
// A [Memory] is one of two kinds.
//
// A Shared memory is the file: each store of the guest is in the file's page cache at once, and
// there is nothing to track.
//
// A Private memory is a copy-on-write view of the file: the kernel copies a page when it is first
// written, and the file keeps the bytes of the last checkpoint. What is known of each 4 KiB page
// is in a page table (see pagetable.go): a page that was written has a shadow, its bytes as of
// the last commit, until they are in the file and the page has come to rest. A [Tracker] says
// which pages may have been written.
//
// An event ends in one of three ways. [Memory.Changes] finds what it has changed and returns a
// [Pending]; when that is safe in a log, [Pending.Keep] makes it the reference for the next
// event, or [Pending.KeepInFile] when it is in the file as well. [Memory.Rollback] puts the old
// bytes back.
//
// A Memory is a wazero [experimental.MemoryAllocator]: give it to the context of one
// instantiation at a time. It reserves the address space of the largest memory once, so that the
// memory never moves, and Free is a no-op, because a call on a closed module still runs compiled
// code over the mapping; [Memory.Close] unmaps.
//
// A Memory is not safe for concurrent use. Another goroutine may write to the file meanwhile, to
// pages that are held (Pending.Keep).
package mmapmem

import (
	"errors"
	"fmt"

	"github.com/tetratelabs/wazero/experimental"

	"github.com/mmrun/mmrun/vfs"
)

// PageSize is the unit of tracking in bytes: 4 KiB, whatever the machine's page size.
const PageSize = 4096

// WasmPageSize is the unit of growth in bytes.
const WasmPageSize = 65536

// MaxWasmPages is the largest memory, in wasm pages: one less than 4 GiB, which wazero's
// compiler does not survive.
const MaxWasmPages = 65535

// Kind says how a Memory lies on its file.
type Kind int

const (
	// Shared maps the file itself.
	Shared Kind = iota
	// Private maps a copy-on-write view of the file.
	Private
)

// Memory is one linear memory on one file.
type Memory struct {
	file    vfs.File
	kind    Kind
	live    []byte // the whole reservation; the guest reaches live[:size]
	reserve bool   // blocks are reserved before the guest can reach them
	size    uint64 // bytes
	fileEnd uint64 // length of the file in bytes, never less than size
	growErr error  // why the last growth was refused

	private // the state of a Private memory, see pending.go
}

// Open maps f for a memory of at most maxWasmPages (more than MaxWasmPages is cut to that). The
// memory has no size until wazero asks for one. The file may be of any length; it is extended
// when the memory grows and never cut. A Private memory uses the first of the trackers that works,
// without any given that is [Best].
//
// The caller keeps f open until Close and closes it then. The memory makes no descriptors of its
// own; the process keeps two for all of them.
//
// An error of a mapping says which limit of the process or the system was met.
func Open(f vfs.File, kind Kind, maxWasmPages uint32, trackers ...NewTracker) (*Memory, error) {
	length := max(uint64(min(maxWasmPages, MaxWasmPages)), 1) * WasmPageSize
	fileEnd, err := f.Size()
	if err != nil {
		return nil, err
	}
	m := &Memory{file: f, kind: kind, fileEnd: uint64(fileEnd)}
	m.reserve = kind == Shared || holesTakeRoom(f.OSFile())
	if err := spareMappings(); err != nil {
		return nil, fmt.Errorf("%s: map: %w", f.Name(), err)
	}
	if m.live, err = mapLive(f.OSFile(), int(length), kind); err != nil {
		return nil, fmt.Errorf("%s: map %d bytes of address space: %w", f.Name(), length,
			mapLimit(err))
	}
	if kind == Private {
		if err := m.openPrivate(int(length), trackers); err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name(), errors.Join(err, unmap(m.live)))
		}
	}
	return m, nil
}

// Close unmaps. The slices that the memory gave out, the guest's included, must not be used
// afterwards: a store to them kills the process.
func (m *Memory) Close() error {
	if m.live == nil {
		return nil
	}
	errs := []error{m.closePrivate(), unmap(m.live)}
	m.live = nil
	return errors.Join(errs...)
}

// Size is the length of the memory in bytes as the guest sees it.
func (m *Memory) Size() uint64 { return m.size }

// Bytes is the memory as the guest sees it, until the next growth.
func (m *Memory) Bytes() []byte { return m.live[:m.size:m.size] }

// GrowError returns why the last growth was refused, nil if it was not.
func (m *Memory) GrowError() error { return m.growErr }

// EnsureFile extends the file to hold a memory of size bytes. For a Shared memory it also
// reserves every block up to there, so that no store of the guest can fail for want of room
// (which would be a SIGBUS inside compiled code, and that cannot be caught). So it does for a
// Private one on a file system where even reading a hole takes a block, as on tmpfs.
func (m *Memory) EnsureFile(size uint64) error {
	switch {
	case m.reserve:
		if err := m.file.Allocate(0, int64(size)); err != nil {
			return err
		}
	case size > m.fileEnd:
		if err := m.file.Truncate(int64(size)); err != nil {
			return err
		}
	}
	m.fileEnd = max(m.fileEnd, size)
	return nil
}

// Allocate implements [experimental.MemoryAllocator].
func (m *Memory) Allocate(_, _ uint64) experimental.LinearMemory { return (*linear)(m) }

// linear is the view of a Memory that wazero has.
type linear Memory

// Reallocate gives the memory size bytes, or returns nil if it cannot, which wazero turns into
// the guest's -1. The bytes that are in the file appear as they are: this is what makes a
// resume free of copying.
func (l *linear) Reallocate(size uint64) []byte {
	m := (*Memory)(l)
	m.growErr = nil
	switch {
	case size > uint64(len(m.live)):
		m.growErr = fmt.Errorf("memory of %d bytes: the limit is %d", size, len(m.live))
		return nil
	case size > m.fileEnd:
		if m.growErr = m.extend(size); m.growErr != nil {
			return nil
		}
	}
	m.size = size
	return m.live[:size:size]
}

// Free does nothing; see the package comment.
func (l *linear) Free() {}

// extend lengthens the file from fileEnd to size.
func (m *Memory) extend(size uint64) error {
	if !m.reserve {
		return m.EnsureFile(size)
	}
	if err := m.file.Allocate(int64(m.fileEnd), int64(size-m.fileEnd)); err != nil {
		return err
	}
	m.fileEnd = size
	return nil
}

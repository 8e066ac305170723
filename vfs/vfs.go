// Package vfs is the seam between mmrun and the file system: every operation that a state
// directory sees goes through [FS] and [File]. Production code uses [OS]; tests put a layer
// in between that fails the k-th operation or records what a power cut could leave behind.
//
// Stores through a mapping are not operations of this package, they are plain memory copies.
// A layer that wants to see them keeps the slice that [File.Map] returned and compares.
package vfs

import (
	"io/fs"
	"os"
)

// FS is the set of operations on names. Implementations are safe for concurrent use.
type FS interface {
	// OpenFile is os.OpenFile for regular files: flag holds os.O_* values.
	OpenFile(path string, flag int, perm fs.FileMode) (File, error)
	// Mkdir makes one directory; its parent must exist.
	Mkdir(path string, perm fs.FileMode) error
	// Rename replaces newPath by oldPath atomically.
	Rename(oldPath, newPath string) error
	// Remove removes a file or an empty directory.
	Remove(path string) error
	// SyncDir makes the entries of a directory durable: files created, renamed or
	// removed in it before the call are found so after a power cut.
	SyncDir(path string) error
}

// File is an open file. Offsets and lengths are in bytes. Methods are safe for concurrent use
// on disjoint ranges.
type File interface {
	// Name is the path given to OpenFile.
	Name() string
	// Size is the current length of the file.
	Size() (int64, error)
	// ReadAt is io.ReaderAt.
	ReadAt(p []byte, offset int64) (int, error)
	// WriteAt is io.WriterAt; a write past the end extends the file.
	WriteAt(p []byte, offset int64) (int, error)
	// Truncate sets the length; bytes added read as zero and need not have blocks.
	Truncate(size int64) error
	// Allocate reserves blocks for [offset, offset+length) and extends the file to hold
	// them; bytes added read as zero, bytes present stay. After it returns nil no store to
	// the range, through a mapping or not, can fail for want of room.
	Allocate(offset, length int64) error
	// Map maps the first length bytes, shared and writable. The file must be at least that
	// long and stay so. The mapping lasts until Unmap or Close.
	Map(length int64) ([]byte, error)
	// Unmap releases a slice that Map returned; it must not be used afterwards.
	Unmap(mapping []byte) error
	// MapShared is Map with a result that outlives Close.
	MapShared(length int64) (Mapping, error)
	// Sync makes the content durable: bytes written by WriteAt and bytes stored through
	// mappings before the call, and the length. An error means that nothing is known about
	// what is on the disk; a later Sync that returns nil does not change that.
	Sync() error
	// OSFile is the open file, for calls that this interface does not have (mmap with other
	// flags). It is valid until Close, and its owner alone closes it.
	OSFile() *os.File
	// Close unmaps and closes. It does not sync.
	Close() error
}

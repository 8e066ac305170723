// Package faultfs puts layers between a program and its file system that make faults happen: an
// [Injector] fails the k-th operation, a [Recorder] knows what a power cut could leave on the disk
// after each one. Both are for tests.
//
// A layer sees the operations of the interfaces [vfs.FS] and [vfs.File]. Stores through a
// mapping are none of these; the Recorder finds them by comparing contents.
package faultfs

import (
	"fmt"
	"io/fs"
	"os"
	"sync/atomic"

	"github.com/mmrun/mmrun/vfs"
)

// Kind says which operation an [Op] is.
type Kind int

// One kind for each method of vfs.FS, vfs.File and vfs.Mapping that can fail. Sync is that of a
// file or of a mapping.
const (
	OpenFile Kind = iota
	Mkdir
	Rename
	Remove
	SyncDir
	Size
	ReadAt
	WriteAt
	Truncate
	Allocate
	Map
	Unmap
	Sync
	Close
	MapShared
	UnmapShared
)

var kindNames = [...]string{"open", "mkdir", "rename", "remove", "syncdir", "size", "read",
	"write", "truncate", "allocate", "map", "unmap", "sync", "close", "map shared", "unmap shared"}

func (k Kind) String() string { return kindNames[k] }

// Op is one operation on its way to the file system.
type Op struct {
	Kind    Kind
	Path    string // for an open file the path it was opened by
	NewPath string // Rename
	Flag    int    // OpenFile
	// Handle is the open file: the same number from its OpenFile to its Close. A vfs.Mapping has a
	// number of its own, from its MapShared to its UnmapShared.
	Handle int64
	File   int64 // MapShared: the handle of the file
	Offset int64 // ReadAt, WriteAt, Allocate
	// Length in bytes: of ReadAt, WriteAt, Allocate, Map and MapShared, or the new one of Truncate.
	// A layer that lowers it cuts a WriteAt short.
	Length int64
}

func (op *Op) String() string {
	s := fmt.Sprintf("%v %s", op.Kind, op.Path)
	switch op.Kind {
	case Rename:
		s += " to " + op.NewPath
	case ReadAt, WriteAt, Allocate:
		s += fmt.Sprintf(" [%d,+%d)", op.Offset, op.Length)
	case Truncate, Map, MapShared:
		s += fmt.Sprintf(" %d", op.Length)
	}
	return s
}

// Layer is called for each operation. do performs it in the layer below; a layer may call it or
// not, and its error or another one becomes the operation's. Calls may be concurrent.
type Layer func(op *Op, do func() error) error

// Wrap puts a layer on top of a file system.
func Wrap(below vfs.FS, layer Layer) vfs.FS { return &layered{below: below, layer: layer} }

type layered struct {
	below   vfs.FS
	layer   Layer
	handles atomic.Int64
}

func (l *layered) OpenFile(path string, flag int, perm fs.FileMode) (vfs.File, error) {
	op := &Op{Kind: OpenFile, Path: path, Flag: flag, Handle: l.handles.Add(1)}
	var f vfs.File
	err := l.layer(op, func() (err error) {
		f, err = l.below.OpenFile(path, flag, perm)
		return err
	})
	if err != nil {
		if f != nil { // it was opened, and the layer says that it was not
			_ = f.Close()
		}
		return nil, err
	}
	return &layeredFile{below: f, layers: l, layer: l.layer, handle: op.Handle}, nil
}

func (l *layered) Mkdir(path string, perm fs.FileMode) error {
	return l.layer(&Op{Kind: Mkdir, Path: path}, func() error { return l.below.Mkdir(path, perm) })
}

func (l *layered) Rename(oldPath, newPath string) error {
	return l.layer(&Op{Kind: Rename, Path: oldPath, NewPath: newPath},
		func() error { return l.below.Rename(oldPath, newPath) })
}

func (l *layered) Remove(path string) error {
	return l.layer(&Op{Kind: Remove, Path: path}, func() error { return l.below.Remove(path) })
}

func (l *layered) SyncDir(path string) error {
	return l.layer(&Op{Kind: SyncDir, Path: path}, func() error { return l.below.SyncDir(path) })
}

type layeredFile struct {
	below  vfs.File
	layers *layered
	layer  Layer
	handle int64
}

func (f *layeredFile) do(op Op, do func(op *Op) error) error {
	op.Path, op.Handle = f.below.Name(), f.handle
	return f.layer(&op, func() error { return do(&op) })
}

func (f *layeredFile) Name() string     { return f.below.Name() }
func (f *layeredFile) OSFile() *os.File { return f.below.OSFile() }

func (f *layeredFile) Size() (size int64, err error) {
	err = f.do(Op{Kind: Size}, func(*Op) (err error) {
		size, err = f.below.Size()
		return err
	})
	return size, err
}

func (f *layeredFile) ReadAt(p []byte, offset int64) (n int, err error) {
	err = f.do(Op{Kind: ReadAt, Offset: offset, Length: int64(len(p))}, func(*Op) (err error) {
		n, err = f.below.ReadAt(p, offset)
		return err
	})
	return n, err
}

func (f *layeredFile) WriteAt(p []byte, offset int64) (n int, err error) {
	err = f.do(Op{Kind: WriteAt, Offset: offset, Length: int64(len(p))}, func(op *Op) (err error) {
		n, err = f.below.WriteAt(p[:op.Length], offset)
		return err
	})
	return n, err
}

// Punch counts as a write of zeros.
func (f *layeredFile) Punch(offset, length int64) error {
	return f.do(Op{Kind: WriteAt, Offset: offset, Length: length}, func(op *Op) error {
		return vfs.Punch(f.below, offset, op.Length)
	})
}

func (f *layeredFile) Truncate(size int64) error {
	return f.do(Op{Kind: Truncate, Length: size}, func(*Op) error { return f.below.Truncate(size) })
}

func (f *layeredFile) Allocate(offset, length int64) error {
	return f.do(Op{Kind: Allocate, Offset: offset, Length: length},
		func(*Op) error { return f.below.Allocate(offset, length) })
}

func (f *layeredFile) Map(length int64) (mapping []byte, err error) {
	err = f.do(Op{Kind: Map, Length: length}, func(*Op) (err error) {
		mapping, err = f.below.Map(length)
		return err
	})
	if err != nil && mapping != nil {
		_ = f.below.Unmap(mapping)
		mapping = nil
	}
	return mapping, err
}

func (f *layeredFile) Unmap(mapping []byte) error {
	return f.do(Op{Kind: Unmap}, func(*Op) error { return f.below.Unmap(mapping) })
}

func (f *layeredFile) Sync() error {
	return f.do(Op{Kind: Sync}, func(*Op) error { return f.below.Sync() })
}

func (f *layeredFile) Close() error {
	return f.do(Op{Kind: Close}, func(*Op) error { return f.below.Close() })
}

func (f *layeredFile) MapShared(length int64) (vfs.Mapping, error) {
	op := Op{Kind: MapShared, Path: f.Name(), Length: length,
		Handle: f.layers.handles.Add(1), File: f.handle}
	var below vfs.Mapping
	err := f.layer(&op, func() (err error) {
		below, err = f.below.MapShared(length)
		return err
	})
	if err != nil {
		if below != nil {
			_ = below.Unmap()
		}
		return nil, err
	}
	return &layeredMapping{Mapping: below, path: f.Name(), layer: f.layer, handle: op.Handle}, nil
}

type layeredMapping struct {
	vfs.Mapping
	path   string
	layer  Layer
	handle int64
}

func (m *layeredMapping) Sync() error {
	return m.layer(&Op{Kind: Sync, Path: m.path, Handle: m.handle}, m.Mapping.Sync)
}

func (m *layeredMapping) Unmap() error {
	return m.layer(&Op{Kind: UnmapShared, Path: m.path, Handle: m.handle}, m.Mapping.Unmap)
}

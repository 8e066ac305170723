package globalsfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/mmrun/mmrun/vfs"
)

// memFS is a file system in memory that knows what a power cut would leave: for each file the
// content of its last sync, for each name the file it had at the last sync of the directory. Like
// Windows it refuses to rename open files.
type memFS struct {
	names   map[string]*inode
	durable map[string]*inode
	ops     []string // every operation so far that could change something
	before  func(op string) error
}

type inode struct {
	data    []byte
	durable []byte
	open    int
}

func newMemFS() *memFS {
	return &memFS{names: map[string]*inode{}, durable: map[string]*inode{}}
}

// memFSWith has one file, durable.
func memFSWith(path string, data []byte) *memFS {
	m := newMemFS()
	m.names[path] = &inode{data: slices.Clone(data), durable: slices.Clone(data)}
	m.durable[path] = m.names[path]
	return m
}

func (m *memFS) op(format string, args ...any) error {
	op := fmt.Sprintf(format, args...)
	if m.before != nil {
		if err := m.before(op); err != nil {
			return err
		}
	}
	m.ops = append(m.ops, op)
	return nil
}

// sector is how many bytes reach the disk together. Disks promise 512, but the kernel may write a
// page while a process stores to it, so that any piece of a sector may be there.
const sector = 16

// crash is a disk after a power cut now. Of what was not synced, each sector and each name is there
// or not, as keep decides.
func (m *memFS) crash(keep func() bool) *memFS {
	c := newMemFS()
	names := map[string]bool{}
	for name := range m.names {
		names[name] = true
	}
	for name := range m.durable {
		names[name] = true
	}
	for name := range names {
		node := m.durable[name]
		if live := m.names[name]; live != node && keep() {
			node = live
		}
		if node == nil {
			continue
		}
		data := slices.Clone(node.durable)
		if len(data) != len(node.data) && keep() {
			data = append(data, make([]byte, max(0, len(node.data)-len(data)))...)[:len(node.data)]
		}
		for at, end := 0, min(len(data), len(node.data)); at < end; at += sector {
			to := min(at+sector, end)
			if !bytes.Equal(data[at:to], node.data[at:to]) && keep() {
				copy(data[at:to], node.data[at:to])
			}
		}
		c.names[name] = &inode{data: data, durable: slices.Clone(data)}
		c.durable[name] = c.names[name]
	}
	return c
}

// kill is the disk after the death of the process: everything is there.
func (m *memFS) kill() *memFS { return m.crash(func() bool { return true }) }

// crashes are power cuts that keep nothing, everything and random parts.
func (m *memFS) crashes(n int, rnd *rand.Rand) []*memFS {
	all := []*memFS{m.kill(), m.crash(func() bool { return false })}
	for range n {
		odds := rnd.Float64()
		all = append(all, m.crash(func() bool { return rnd.Float64() < odds }))
	}
	return all
}

func (m *memFS) OpenFile(path string, flag int, _ fs.FileMode) (vfs.File, error) {
	node := m.names[path]
	if node == nil && flag&os.O_CREATE == 0 {
		return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	if flag&(os.O_CREATE|os.O_TRUNC) != 0 {
		if err := m.op("create %s", filepath.Base(path)); err != nil {
			return nil, err
		}
	}
	if node == nil {
		node = &inode{}
		m.names[path] = node
	}
	if flag&os.O_TRUNC != 0 {
		node.data = nil
	}
	node.open++
	return &memFile{fs: m, path: path, inode: node}, nil
}

func (m *memFS) Mkdir(string, fs.FileMode) error { return errors.New("not needed here") }

func (m *memFS) Rename(from, to string) error {
	if m.names[from].open > 0 || m.names[to] != nil && m.names[to].open > 0 {
		return errors.New("rename: a file is open")
	}
	if err := m.op("rename"); err != nil {
		return err
	}
	m.names[to] = m.names[from]
	delete(m.names, from)
	return nil
}

func (m *memFS) Remove(path string) error {
	if m.names[path] == nil {
		return fs.ErrNotExist
	}
	if err := m.op("remove %s", filepath.Base(path)); err != nil {
		return err
	}
	delete(m.names, path)
	return nil
}

func (m *memFS) SyncDir(string) error {
	if err := m.op("sync directory"); err != nil {
		return err
	}
	clear(m.durable)
	for name, node := range m.names {
		m.durable[name] = node
	}
	return nil
}

type memFile struct {
	fs     *memFS
	path   string
	closed bool
	*inode
	vfs.File // nil: what is not below is not used here
}

func (f *memFile) Name() string         { return f.path }
func (f *memFile) Size() (int64, error) { return int64(len(f.data)), nil }

func (f *memFile) ReadAt(p []byte, offset int64) (int, error) {
	if offset >= int64(len(f.data)) {
		return 0, io.EOF
	}
	n := copy(p, f.data[offset:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) WriteAt(p []byte, offset int64) (int, error) {
	if err := f.fs.op("write %s at %d", filepath.Base(f.path), offset); err != nil {
		return 0, err
	}
	return copy(f.data[offset:], p), nil // this package writes only what it allocated
}

func (f *memFile) Allocate(offset, length int64) error {
	if err := f.fs.op("allocate %s", filepath.Base(f.path)); err != nil {
		return err
	}
	if missing := offset + length - int64(len(f.data)); missing > 0 {
		f.data = append(f.data, make([]byte, missing)...)
	}
	return nil
}

func (f *memFile) MapShared(length int64) (vfs.Mapping, error) {
	if int64(len(f.data)) < length {
		return nil, errors.New("map: past the end")
	}
	if err := f.fs.op("map"); err != nil {
		return nil, err
	}
	f.open++
	return &memMapping{file: &memFile{fs: f.fs, path: f.path, inode: f.inode}, length: length}, nil
}

type memMapping struct {
	file   *memFile // of its own
	length int64
}

func (m *memMapping) Bytes() []byte         { return m.file.data[:m.length:m.length] }
func (m *memMapping) Sync() error           { return m.file.Sync() }
func (m *memMapping) Prefault(int64, int64) {}
func (m *memMapping) Unmap() error          { return m.file.Close() }

func (f *memFile) Sync() error {
	if err := f.fs.op("sync %s", filepath.Base(f.path)); err != nil {
		return err
	}
	f.durable = slices.Clone(f.data)
	return nil
}

func (f *memFile) Close() error {
	if f.closed {
		return fs.ErrClosed
	}
	f.closed = true
	f.open--
	return nil
}

// must is for the steps of a test that are not its claim.
func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

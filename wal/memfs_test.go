package wal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/mmrun/mmrun/vfs"
)

const sectorSize = 512

// memFS is a disk in memory that remembers every content that a sector has had since it was
// last synced, which is what a power cut can leave.
type memFS struct {
	files map[string]*memFile
	// before is called before each operation on a file, with its name; an error fails it.
	before func(op string, f *memFile) error
}

func newMemFS() *memFS { return &memFS{files: map[string]*memFile{}} }

type memFile struct {
	vfs.File // nil: what is not below is not used here
	fs       *memFS
	name     string
	data     []byte
	mapped   int        // mappings that there are
	seen     []byte     // content at the last look
	versions [][][]byte // of each sector: all contents that may be on the disk
	lengths  []int      // all lengths that may be on the disk
}

func (m *memFS) OpenFile(path string, flag int, _ fs.FileMode) (vfs.File, error) {
	f := m.files[path]
	if f == nil {
		if flag&os.O_CREATE == 0 {
			return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
		}
		f = &memFile{fs: m, name: path, data: []byte{}}
		f.setSynced()
		m.files[path] = f
	}
	if flag&os.O_TRUNC != 0 {
		f.setLength(0)
	}
	return f, nil
}

func (m *memFS) Mkdir(string, fs.FileMode) error { return nil }
func (m *memFS) Rename(string, string) error     { return errors.New("not used") }
func (m *memFS) Remove(string) error             { return errors.New("not used") }
func (m *memFS) SyncDir(string) error            { return nil }

func (f *memFile) op(name string) error {
	f.look()
	if f.fs.before != nil {
		return f.fs.before(name, f)
	}
	return nil
}

func (f *memFile) Name() string         { return f.name }
func (f *memFile) Size() (int64, error) { return int64(len(f.data)), nil }
func (f *memFile) OSFile() *os.File     { return nil }
func (f *memFile) Close() error         { return nil }

func (f *memFile) ReadAt(p []byte, offset int64) (int, error) {
	n := copy(p, f.data[min(offset, int64(len(f.data))):])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) WriteAt(p []byte, offset int64) (int, error) {
	if err := f.op("write"); err != nil {
		return 0, err
	}
	f.setLength(max(len(f.data), int(offset)+len(p)))
	return copy(f.data[offset:], p), nil
}

func (f *memFile) Truncate(size int64) error {
	if err := f.op("truncate"); err != nil {
		return err
	}
	f.setLength(int(size))
	return nil
}

func (f *memFile) Allocate(offset, length int64) error {
	if err := f.op("allocate"); err != nil {
		return err
	}
	f.setLength(max(len(f.data), int(offset+length)))
	return nil
}

// setLength keeps the place of a mapped file, which may become longer only.
func (f *memFile) setLength(n int) {
	switch {
	case n == len(f.data):
		return
	case f.mapped > 0 && n < len(f.data):
		panic("a mapped file is cut")
	case n <= cap(f.data):
		old := len(f.data)
		f.data = f.data[:n]
		clear(f.data[min(old, n):])
	case f.mapped > 0:
		panic("a mapped file grows beyond what Map has set aside")
	default:
		data := make([]byte, n)
		copy(data, f.data)
		f.data = data
	}
	f.look()
}

type memMapping struct {
	f     *memFile
	bytes []byte
}

func (f *memFile) MapShared(length int64) (vfs.Mapping, error) {
	if err := f.op("map"); err != nil {
		return nil, err
	}
	if length > int64(len(f.data)) {
		return nil, fmt.Errorf("map %d bytes of %d", length, len(f.data))
	}
	if f.mapped == 0 {
		data := make([]byte, len(f.data), 4*len(f.data)+1<<19)
		copy(data, f.data)
		f.data = data
	}
	f.mapped++
	return &memMapping{f, f.data[:length:length]}, nil
}

func (m *memMapping) Bytes() []byte         { return m.bytes }
func (m *memMapping) Sync() error           { return m.f.Sync() }
func (m *memMapping) Prefault(int64, int64) {}
func (m *memMapping) Unmap() error          { m.f.mapped--; return nil }

func (f *memFile) Sync() error {
	if err := f.op("sync"); err != nil {
		return err
	}
	f.setSynced()
	return nil
}

func (f *memFile) setSynced() {
	f.seen = bytes.Clone(f.data)
	f.lengths = []int{len(f.data)}
	f.versions = nil
	for at := 0; at < len(f.data); at += sectorSize {
		f.versions = append(f.versions, [][]byte{f.seen[at:min(at+sectorSize, len(f.seen))]})
	}
}

// look remembers what has been stored since the last look.
func (f *memFile) look() {
	now := bytes.Clone(f.data)
	if len(now) != len(f.seen) {
		f.lengths = append(f.lengths, len(now))
	}
	for at := 0; at < len(now); at += sectorSize {
		i := at / sectorSize
		if i == len(f.versions) {
			f.versions = append(f.versions, [][]byte{make([]byte, sectorSize)})
		}
		sector := now[at:min(at+sectorSize, len(now))]
		if at+len(sector) > len(f.seen) || !bytes.Equal(sector, f.seen[at:at+len(sector)]) {
			f.versions[i] = append(f.versions[i], sector)
		}
	}
	f.seen = now
}

// killed is the disk as it is found after the process was killed.
func (m *memFS) killed() *memFS {
	k := newMemFS()
	for name, f := range m.files {
		k.put(name, f.data)
	}
	return k
}

func (m *memFS) put(name string, data []byte) {
	f := &memFile{fs: m, name: name, data: bytes.Clone(data)}
	f.setSynced()
	m.files[name] = f
}

// cut is the disk as a power cut may leave it: of each sector one of its versions.
func (m *memFS) cut(r *rand.Rand) *memFS {
	c := newMemFS()
	for _, name := range []string{"wal.0", "wal.1"} {
		f := m.files[name]
		f.look()
		data := make([]byte, f.lengths[r.IntN(len(f.lengths))])
		keep := r.IntN(4) // 0: nothing new, 1: all, else at random
		for at := 0; at < len(data); at += sectorSize {
			if at/sectorSize >= len(f.versions) {
				break
			}
			v := f.versions[at/sectorSize]
			n := 0
			switch keep {
			case 0:
			case 1:
				n = len(v) - 1
			default:
				n = r.IntN(len(v))
			}
			copy(data[at:], v[n])
		}
		c.put(name, data)
	}
	return c
}

func mustCreate(t testing.TB, fsys vfs.FS, size int64, base uint64) *Log {
	t.Helper()
	l, err := Create(fsys, "", size, base)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

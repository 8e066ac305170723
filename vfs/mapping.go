package vfs

import (
	"fmt"
	"io/fs"
	"os"
	"sync"

	"github.com/edsrzf/mmap-go"
)

// Mapping is a shared, writable mapping that outlives the [File] it was made from: while it is
// all that is left of the file, Linux keeps no descriptor for it. Sync may run while others store
// to the mapping, and so may Prefault; nothing may run during Unmap or after it.
type Mapping interface {
	// Bytes is the mapped part of the file: its first bytes, as many as were asked for.
	Bytes() []byte
	// Sync makes durable what was stored before the call. It is [File.Sync] for the mapped part
	// of the file, with the same meaning of an error.
	Sync() error
	// Prefault makes the pages of [offset, offset+length) ready to be stored to, as far as the
	// system can: a store to one that is not costs a page fault. It marks them as changed, so
	// that the next Sync writes them.
	Prefault(offset, length int64)
	// Unmap gives the mapping back. It does not sync.
	Unmap() error
}

// osMapping is a mapping of the operating system.
type osMapping struct {
	file   *osFile // nil where the mapping alone keeps the file
	name   string
	mapped mmap.MMap
}

func (f *osFile) MapShared(length int64) (Mapping, error) {
	m, err := f.mapRegion(length)
	if err != nil {
		return nil, err
	}
	if mappingKeepsFile {
		return &osMapping{name: f.Name(), mapped: m}, nil
	}
	f.users.add()
	return &osMapping{file: f, name: f.Name(), mapped: m}, nil
}

func (f *osFile) mapRegion(length int64) (mmap.MMap, error) {
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	if size < length {
		return nil, &fs.PathError{Op: "map", Path: f.Name(),
			Err: fmt.Errorf("the file has %d bytes, %d are needed", size, length)}
	}
	m, err := mmap.MapRegion(f.File, int(length), mmap.RDWR, 0, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "map", Path: f.Name(), Err: explainMapping(err)}
	}
	return m, nil
}

func (m *osMapping) Bytes() []byte { return m.mapped }

func (m *osMapping) Sync() error {
	if err := m.sync(); err != nil {
		return &fs.PathError{Op: "sync", Path: m.name, Err: err}
	}
	return nil
}

func (m *osMapping) Unmap() error {
	err := m.mapped.Unmap()
	if m.file != nil {
		if closeErr := m.file.users.done(m.file.File); err == nil {
			err = closeErr
		}
	}
	if err != nil {
		return &fs.PathError{Op: "unmap", Path: m.name, Err: err}
	}
	return nil
}

// users counts who needs an open file beside the one that opened it, where a mapping does.
type users struct {
	mu     sync.Mutex
	count  int
	closed bool // by the one that opened it
}

func (u *users) add() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.count++
}

// done closes f after the last user has gone, if it would have been closed before.
func (u *users) done(f *os.File) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.count--; u.count == 0 && u.closed {
		return f.Close()
	}
	return nil
}

// close closes f, now or after the last user.
func (u *users) close(f *os.File) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case u.closed:
		return fs.ErrClosed
	case u.count > 0:
		u.closed = true
		return nil
	}
	return f.Close()
}

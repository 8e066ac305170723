package vfs

import (
	"errors"
	"io/fs"
	"os"
	"sync"
	"unsafe"

	"github.com/edsrzf/mmap-go"
)

// OS is the file system of the operating system. It opens regular files alone: a link in the last
// element of a path is not followed, and with anything else in the place the error wraps
// ErrNotRegular. An error that stands for a limit of the machine says what to do; see Explain.
var OS FS = osFS{}

type osFS struct{}

func (osFS) OpenFile(path string, flag int, perm fs.FileMode) (File, error) {
	f, err := openRegular(path, flag, perm)
	if err != nil {
		return nil, Explain(err)
	}
	return &osFile{File: f}, nil
}

func (osFS) Mkdir(path string, perm fs.FileMode) error {
	return Explain(os.Mkdir(path, perm))
}

func (osFS) Rename(oldPath, newPath string) error {
	return Explain(os.Rename(oldPath, newPath))
}

func (osFS) Remove(path string) error { return Explain(os.Remove(path)) }

func (osFS) SyncDir(path string) error {
	if !dirSyncWorks {
		return nil
	}
	d, err := os.Open(path)
	if err != nil {
		return Explain(err)
	}
	defer d.Close()
	return Explain(d.Sync())
}

type osFile struct {
	*os.File
	mu       sync.Mutex
	mappings []mmap.MMap
	users    users
}

func (f *osFile) OSFile() *os.File { return f.File }

func (f *osFile) Size() (int64, error) {
	fi, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return fi.Size(), nil
}

// WriteAt is without an allocation where it succeeds.
func (f *osFile) WriteAt(p []byte, offset int64) (int, error) {
	n, err := f.File.WriteAt(p, offset)
	if err != nil {
		err = Explain(err)
	}
	return n, err
}

func (f *osFile) Truncate(size int64) error {
	if err := checkSize(size); err != nil {
		return Explain(&fs.PathError{Op: "truncate", Path: f.Name(), Err: err})
	}
	return Explain(f.File.Truncate(size))
}

func (f *osFile) Allocate(offset, length int64) error {
	if length <= 0 {
		return nil
	}
	if err := allocate(f.File, offset, length); err != nil {
		return Explain(&fs.PathError{Op: "allocate", Path: f.Name(), Err: err})
	}
	return nil
}

func (f *osFile) Map(length int64) ([]byte, error) {
	m, err := f.mapRegion(length)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	f.mappings = append(f.mappings, m)
	f.mu.Unlock()
	return m, nil
}

func (f *osFile) Unmap(mapping []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, m := range f.mappings {
		if unsafe.SliceData(m) == unsafe.SliceData(mapping) {
			f.mappings = append(f.mappings[:i], f.mappings[i+1:]...)
			return m.Unmap()
		}
	}
	return &fs.PathError{Op: "unmap", Path: f.Name(), Err: errors.New("not a mapping of this file")}
}

func (f *osFile) Sync() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := syncData(f.File, f.mappings); err != nil {
		return Explain(&fs.PathError{Op: "sync", Path: f.Name(), Err: err})
	}
	return nil
}

func (f *osFile) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var errs []error
	for _, m := range f.mappings {
		errs = append(errs, m.Unmap())
	}
	f.mappings = nil
	errs = append(errs, f.users.close(f.File))
	return errors.Join(errs...)
}

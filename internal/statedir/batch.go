package statedir

import (
	"errors"
	"io/fs"
	"os"
	"sync"

	"github.com/mmrun/mmrun/vfs"
)

// batch is a file system for files that nobody needs before all of them are there: it puts off
// their syncs, and those of their directory, until a file gets another name. All are written by
// then, and a file system with a journal commits them together (BenchmarkCreate).
type batch struct {
	vfs.FS
	dir string

	mu    sync.Mutex
	due   []*batchFile
	names bool // of dir, have changed since they were last synced
}

func newBatch(fsys vfs.FS, dir string) *batch { return &batch{FS: fsys, dir: dir} }

func (b *batch) OpenFile(path string, flag int, perm fs.FileMode) (vfs.File, error) {
	f, err := b.FS.OpenFile(path, flag, perm)
	if err != nil {
		return nil, err
	}
	if flag&os.O_CREATE != 0 {
		b.changed()
	}
	return &batchFile{File: f, batch: b}, nil
}

func (b *batch) Remove(path string) error {
	b.changed()
	return b.FS.Remove(path)
}

// Rename is where order matters: what the new name stands for is on the disk before, and so is
// everything else.
func (b *batch) Rename(oldPath, newPath string) error {
	if err := b.flush(); err != nil {
		return err
	}
	b.changed()
	return b.FS.Rename(oldPath, newPath)
}

// SyncDir does what flush will do for dir.
func (b *batch) SyncDir(path string) error {
	if path != b.dir {
		return b.FS.SyncDir(path)
	}
	b.changed()
	return nil
}

func (b *batch) changed() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.names = true
}

// flush makes the syncs that were put off.
func (b *batch) flush() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, f := range b.due {
		startWriteback(f.OSFile())
	}
	var errs []error
	for _, f := range b.due {
		errs = append(errs, f.File.Sync(), f.settle())
	}
	b.due = nil
	err := errors.Join(errs...)
	if err == nil && b.names {
		err = b.FS.SyncDir(b.dir)
		b.names = err != nil
	}
	return err
}

// close gives back the files that were not synced because something failed before.
func (b *batch) close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	var errs []error
	for _, f := range b.due {
		errs = append(errs, f.settle())
	}
	b.due = nil
	return errors.Join(errs...)
}

// batchFile is a file of a batch. It stays open until its sync.
type batchFile struct {
	vfs.File
	batch       *batch
	due, closed bool // a sync is due; its user has closed it
}

func (f *batchFile) Sync() error {
	f.batch.mu.Lock()
	defer f.batch.mu.Unlock()
	if !f.due {
		f.due = true
		f.batch.due = append(f.batch.due, f)
	}
	return nil
}

func (f *batchFile) Close() error {
	f.batch.mu.Lock()
	defer f.batch.mu.Unlock()
	f.closed = true
	if f.due {
		return nil
	}
	return f.File.Close()
}

// settle ends the wait for a sync.
func (f *batchFile) settle() error {
	f.due = false
	if !f.closed {
		return nil
	}
	return f.File.Close()
}

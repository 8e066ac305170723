package statedir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/mmrun/mmrun/internal/errs"
	"github.com/mmrun/mmrun/vfs"
)

// Lock is the exclusive lock of a state directory. It ends with the process, however it ends, and
// is not inherited by programs it starts. Its methods are not safe for concurrent use.
type Lock struct {
	Last LastExit // how the state was left before

	dir  string
	f    *os.File
	boot BootID
}

// Acquire takes the lock of a state directory, before anything in it is read. The error wraps
// errs.ErrLocked if somebody else has it.
func Acquire(dir string, boot BootID) (*Lock, error) {
	f, err := lockFile(dir)
	if err != nil {
		return nil, err
	}
	l := &Lock{dir: dir, f: f, boot: boot}
	if err := l.begin(); err != nil {
		return nil, errors.Join(err, unlock(f))
	}
	return l, nil
}

// begin reads what the last owner has said, and takes its place.
func (l *Lock) begin() error {
	status := readLock(l.f).status
	l.Last = lastExit(status, identify(l.f, l.boot))
	var err error
	if word, _, _ := parseStatus(status); word == statusClosed || status == "" {
		err = l.say(statusBegun) // closed, but not any more
	} else {
		// What was said of an open state stays until this owner can say as much: it may be killed
		// while it recovers. What a later version has said is not for this one to take back.
		err = writeLock(l.f, status)
	}
	if err == nil {
		err = held.add(l.f)
	}
	return lockFailed(l.dir, vfs.Explain(err))
}

// lockFile opens and locks the lock file of a directory, which is made if there is none.
func lockFile(dir string) (*os.File, error) {
	path := filepath.Join(dir, LockName)
	for attempt := 1; ; attempt++ {
		f, err := openLock(path, os.O_RDWR|os.O_CREATE)
		if err != nil {
			return nil, lockFailed(dir, err)
		}
		err = tryLock(f)
		if errors.Is(err, errWouldBlock) && attempt <= 10 {
			f.Close()
			time.Sleep(time.Millisecond) // Inspect holds the lock for an instant
			continue
		}
		if err != nil {
			defer f.Close()
			return nil, lockError(dir, f, err)
		}
		// A creation that has failed removes its lock file. A lock of that one is worth nothing.
		if isFile(f, path) {
			return f, nil
		}
		if err := unlock(f); err != nil || attempt == 100 {
			return nil, errs.Statef(errs.ErrLocked, dir, "its lock file is being replaced: %w", err)
		}
	}
}

func openLock(path string, flag int) (*os.File, error) {
	f, err := vfs.OS.OpenFile(path, flag, FilePerm)
	if err != nil {
		return nil, err
	}
	return f.OSFile(), nil
}

// isFile tells whether f is what has the name.
func isFile(f *os.File, path string) bool {
	named, err := os.Lstat(path)
	if err != nil {
		return false
	}
	opened, err := f.Stat()
	return err == nil && os.SameFile(named, opened)
}

// SayOpen tells the next owner that the state has been recovered, and that all that is stored to it
// from here on is in the page cache. Without it less damage is found after a kill; that is the only
// harm an error does.
func (l *Lock) SayOpen() error {
	err := l.say(statusOpen)
	if err == nil && l.Last.CopiedOpen {
		// The status that was copied must not come back with a power cut: it condemns the state.
		err = l.f.Sync()
	}
	return err
}

// SayClosed tells the next owner that all of the state is on the disk. Without it the next opening
// takes longer.
func (l *Lock) SayClosed() error { return l.say(statusClosed) }

// SayFailed takes back what was said: after a failed sync, pages that are not on the disk may be
// gone from the page cache, too.
func (l *Lock) SayFailed() error { return l.say(statusBegun) }

func (l *Lock) say(status string) error {
	return writeLock(l.f, status+" "+identify(l.f, l.boot).String())
}

// Close gives the lock up.
func (l *Lock) Close() error {
	held.remove(l.f)
	return unlock(l.f)
}

// KeepOut keeps owners out of a state until release is called, and lets other readers in;
// permission to read is enough. A state without a lock file was never opened.
func KeepOut(dir string, boot BootID) (release func(), last LastExit, err error) {
	f, err := openLock(filepath.Join(dir, LockName), os.O_RDONLY)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return func() {}, last, nil
	case err != nil:
		return nil, last, lockFailed(dir, err)
	}
	if err := lockShared(f); err != nil {
		defer f.Close()
		return nil, last, lockError(dir, f, err)
	}
	return func() { unlock(f) }, lastExit(readLock(f).status, identify(f, boot)), nil
}

// Usage is whether somebody has a state open.
type Usage struct {
	InUse bool
	Owner int      // process id, 0 if it is not known
	Last  LastExit // if it is not in use
}

// Use tells whether somebody has the state open. It holds the lock itself for an instant, shared.
func Use(dir string, boot BootID) (u Usage, err error) {
	f, err := openLock(filepath.Join(dir, LockName), os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return u, nil
	}
	if err != nil {
		return u, lockFailed(dir, err)
	}
	defer func() { err = errors.Join(err, unlock(f)) }()
	err = lockShared(f)
	if errors.Is(err, errWouldBlock) {
		return Usage{InUse: true, Owner: readLock(f).pid}, nil
	}
	return Usage{Last: lastExit(readLock(f).status, identify(f, boot))}, err
}

func lockFailed(dir string, err error) error {
	if errors.Is(err, vfs.ErrNotRegular) {
		err = errs.As(errs.ErrCorrupt, err)
	}
	return errs.State(dir, "lock", err)
}

// lockError says why the lock file f could not be locked.
func lockError(dir string, f *os.File, err error) error {
	if !errors.Is(err, errWouldBlock) {
		return lockFailed(dir, err)
	}
	owner := "another process"
	if pid := readLock(f).pid; held.has(f) {
		owner = "this process: close the instance that has it open, or share it"
	} else if pid != 0 {
		owner = fmt.Sprintf("process %d", pid)
	}
	return errs.Statef(errs.ErrLocked, dir, "in use by %s", owner)
}

// held are the lock files of which this process has the lock. The process id in the file would not
// tell: it may be that of a process in another container.
var held lockSet

type lockSet struct {
	mu    sync.Mutex
	files map[*os.File]fs.FileInfo
}

func (s *lockSet) add(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.files == nil {
		s.files = make(map[*os.File]fs.FileInfo)
	}
	s.files[f] = info
	return nil
}

func (s *lockSet) remove(f *os.File) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.files, f)
}

// has tells whether a file that f is another opening of is in the set.
func (s *lockSet) has(f *os.File) bool {
	info, err := f.Stat()
	if err != nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, other := range s.files {
		if os.SameFile(info, other) {
			return true
		}
	}
	return false
}

package statedir

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/mmrun/mmrun/internal/errs"
)

// The lock file of a state holds two lines: the process id of its owner, and a status for the next
// one, which is one of
//
//	closed GENERATION FILE   the state was closed: all of it is on the disk
//	open GENERATION FILE     it was recovered, and all that was stored since is in the page cache
//
// or empty. GENERATION stands for the boot of the machine and the mount of the file system: as long
// as both are the same, nothing that is in the page cache is lost. FILE stands for the lock file
// itself, by its number and the time when it was made: a copy of the state has another one, and its
// files may not be on the disk, whatever the status says.
//
// What is not needed of the file is line ends, so that one write in place changes all of it.
const lockLength = 96 // bytes

const statusClosed, statusOpen = "closed", "open"

// LastExit is what the lock file tells of the owner before.
type LastExit struct {
	CleanClose  bool // it has closed the state: all of it is on the disk
	CacheIntact bool // all that it has stored is there, on the disk or in the page cache
	// FilesSynced: on the disk is what an owner puts there as it goes on: the files, up to the
	// last checkpoint.
	FilesSynced bool
}

// Lock is the exclusive lock of a state directory. It ends with the process, however it ends, and
// is not inherited by programs it starts. Its methods are not safe for concurrent use.
type Lock struct {
	Last LastExit // how the state was left before

	dir  string
	f    *os.File
	boot BootID
}

// Acquire takes the lock of a state directory, before anything in it is read. The error wraps
// errs.Locked if somebody else has it.
func Acquire(dir string, boot BootID) (*Lock, error) {
	f, err := os.OpenFile(filepath.Join(dir, LockName), os.O_RDWR|os.O_CREATE, FilePerm)
	if err != nil {
		return nil, errs.State(dir, "lock", err)
	}
	err = tryLock(f)
	for i := 0; i < 10 && errors.Is(err, errWouldBlock); i++ {
		time.Sleep(time.Millisecond) // Owner holds the lock for an instant
		err = tryLock(f)
	}
	if err != nil {
		defer f.Close()
		return nil, lockError(dir, f, err)
	}
	l := &Lock{dir: dir, f: f, boot: boot}
	status := readLock(f).status
	l.Last = lastExit(f, status, boot)
	// The status of an open state stays until this owner can say the same: it may be killed while
	// it recovers.
	if !strings.HasPrefix(status, statusOpen) {
		status = "" // closed, but not any more
	}
	if err := writeLock(f, status); err != nil {
		return nil, errors.Join(errs.State(dir, "lock", err), f.Close())
	}
	return l, nil
}

// SayOpen tells the next owner that the state has been recovered, and that all that is stored to it
// from here on is in the page cache. Without it less damage is found after a kill; that is the only
// harm an error does.
func (l *Lock) SayOpen() error { return l.say(statusOpen) }

// SayClosed tells the next owner that all of the state is on the disk. Without it the next opening
// takes longer.
func (l *Lock) SayClosed() error { return l.say(statusClosed) }

// SayNothing takes back what was said: after a failed sync, pages that are not on the disk may be
// gone from the page cache, too.
func (l *Lock) SayNothing() error { return writeLock(l.f, "") }

// say says nothing where the system does not tell what it takes.
func (l *Lock) say(status string) error {
	own := identity(l.f, l.boot)
	if own == "" {
		return l.SayNothing()
	}
	return writeLock(l.f, status+" "+own)
}

// Close gives the lock up.
func (l *Lock) Close() error { return unlock(l.f) }

// KeepOut keeps owners out of a state until release is called, and lets other readers in;
// permission to read is enough. A state without a lock file was never opened.
func KeepOut(dir string, boot BootID) (release func(), last LastExit, err error) {
	f, err := os.Open(filepath.Join(dir, LockName))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return func() {}, last, nil
	case err != nil:
		return nil, last, errs.State(dir, "lock", err)
	}
	if err := lockShared(f); err != nil {
		defer f.Close()
		return nil, last, lockError(dir, f, err)
	}
	return func() { f.Close() }, lastExit(f, readLock(f).status, boot), nil
}

// Owner tells whether somebody has the state open, and the process id, 0 if that is not known. It
// holds the lock itself for an instant, shared.
func Owner(dir string) (inUse bool, pid int, err error) {
	f, err := os.Open(filepath.Join(dir, LockName))
	if errors.Is(err, fs.ErrNotExist) {
		return false, 0, nil
	}
	if err != nil {
		return false, 0, errs.State(dir, "lock", err)
	}
	defer f.Close()
	err = lockShared(f)
	if errors.Is(err, errWouldBlock) {
		return true, readLock(f).pid, nil
	}
	return false, 0, err
}

// lockError says why the lock file f could not be locked.
func lockError(dir string, f *os.File, err error) error {
	if !errors.Is(err, errWouldBlock) {
		return errs.State(dir, "lock", err)
	}
	owner := "another process"
	if pid := readLock(f).pid; pid != 0 {
		owner = fmt.Sprintf("process %d", pid)
	}
	return errs.Statef(errs.Locked, dir, "in use by %s", owner)
}

// lockFile is the content of a lock file.
type lockFile struct {
	pid    int // of the owner; 0 if there is none
	status string
}

func readLock(f *os.File) (content lockFile) {
	var buf [lockLength]byte
	n, _ := f.ReadAt(buf[:], 0)
	owner, rest, _ := strings.Cut(string(buf[:n]), "\n")
	content.status, _, _ = strings.Cut(rest, "\n")
	content.pid, _ = strconv.Atoi(owner)
	return content
}

func writeLock(f *os.File, status string) error {
	text := bytes.Repeat([]byte("\n"), lockLength)
	copy(text, strconv.Itoa(os.Getpid())+"\n"+status)
	_, err := f.WriteAt(text, 0)
	return err
}

// lastExit is what a status in the lock file f tells in this boot.
func lastExit(f *os.File, status string, boot BootID) LastExit {
	found, own := strings.Fields(status), strings.Fields(identity(f, boot))
	if len(found) != 3 || len(own) != 2 || found[1] != own[0] {
		return LastExit{}
	}
	same := found[2] == own[1]
	switch found[0] {
	case statusClosed:
		return LastExit{CleanClose: same, CacheIntact: true, FilesSynced: same}
	case statusOpen:
		return LastExit{CacheIntact: true, FilesSynced: same}
	}
	return LastExit{}
}

// identity is GENERATION and FILE for an owner in this boot, empty if they cannot be told.
func identity(f *os.File, boot BootID) string {
	id, ok := identify(f)
	if !ok || boot == (BootID{}) {
		return ""
	}
	h := sha256.New()
	fmt.Fprint(h, boot, id.mount)
	generation := h.Sum(nil)[:8]
	h.Reset()
	fmt.Fprint(h, id.inode, id.made)
	return fmt.Sprintf("%x %x", generation, h.Sum(nil)[:8])
}

// fileID tells a file from any other, and from itself on a file system that was mounted again.
type fileID struct {
	mount, inode uint64
	made         int64 // nanoseconds
}

// BootID identifies a boot of the machine; all zeros is one that is not known.
type BootID = [16]byte

package mmrun

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/mmrun/mmrun/wal"
)

// The lock file of a state holds two lines: the process id of its owner, and a note for the next one, which is one of
//
//	closed LIFE FILE   the state was closed: all of it is on the disk
//	open LIFE FILE     it was recovered, and all that was stored to it since is in the page cache
//
// or empty. LIFE stands for the boot of the machine and the mount of the file system: as long as both are the same, nothing that
// is in the page cache is lost. FILE stands for the lock file itself, by its number and the time when it was made: a copy of the
// state has another one, and its files may not be on the disk, whatever the note says.
//
// What is not needed of the file is line ends, so that one write in place changes all of it.
const lockLength = 96 // bytes

// lastOwner is what the lock file tells of the owner before.
type lastOwner struct {
	closed bool // it has closed the state: all of it is on the disk
	cached bool // all that it has stored is there, on the disk or in the page cache
	synced bool // and on the disk is what an owner puts there as it goes on: the files, up to the last checkpoint
}

// unexplained is an error if the wal breaks off and that cannot be what a power cut has left.
func (l lastOwner) unexplained(rec wal.Recovery) error {
	if !rec.Torn || !l.cached {
		return nil
	}
	return fmt.Errorf("commit %d and those behind it cannot be read, and no power cut has come between that would explain it (the log goes on up to commit %d)",
		rec.LastSeq+1, rec.SeenSeq)
}

// lockDir takes the exclusive lock of a state directory, before anything in it is read. The
// lock ends with the process, however it ends, and is not inherited by programs it starts.
func lockDir(dir string, boot [16]byte) (*os.File, lastOwner, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, filePerm)
	if err != nil {
		return nil, lastOwner{}, fmt.Errorf("state %s: lock: %w", dir, err)
	}
	err = tryLock(f)
	for i := 0; i < 10 && errors.Is(err, errWouldBlock); i++ {
		time.Sleep(time.Millisecond) // Inspect holds the lock for an instant
		err = tryLock(f)
	}
	if err != nil {
		defer f.Close()
		return nil, lastOwner{}, lockError(dir, f, err)
	}
	// A note of an open state stays until this owner can say the same: it may be killed while it recovers.
	note, last := readNote(f, boot)
	if !strings.HasPrefix(note, openNote) {
		note = "" // closed, but not any more
	}
	if err := writeLock(f, note); err != nil {
		return nil, lastOwner{}, errors.Join(fmt.Errorf("state %s: lock: %w", dir, err), f.Close())
	}
	return f, last, nil
}

// lockError says why the lock file f could not be locked.
func lockError(dir string, f *os.File, err error) error {
	if !errors.Is(err, errWouldBlock) {
		return fmt.Errorf("state %s: lock: %w", dir, err)
	}
	owner := "another process"
	if pid := lockOwner(f); pid != 0 {
		owner = fmt.Sprintf("process %d", pid)
	}
	return asKind(ErrLocked, fmt.Errorf("state %s: in use by %s", dir, owner))
}

// lockOwner is the process id in a lock file, 0 if there is none.
func lockOwner(f *os.File) int {
	pid, _ := readLock(f)
	return pid
}

func readLock(f *os.File) (pid int, note string) {
	var buf [lockLength]byte
	n, _ := f.ReadAt(buf[:], 0)
	owner, rest, _ := strings.Cut(string(buf[:n]), "\n")
	note, _, _ = strings.Cut(rest, "\n")
	pid, _ = strconv.Atoi(owner)
	return pid, note
}

func writeLock(f *os.File, note string) error {
	text := bytes.Repeat([]byte("\n"), lockLength)
	copy(text, strconv.Itoa(os.Getpid())+"\n"+note)
	_, err := f.WriteAt(text, 0)
	return err
}

const closedNote, openNote = "closed", "open"

// readNote reads the note in a lock file, and what it tells in this boot.
func readNote(f *os.File, boot [16]byte) (note string, last lastOwner) {
	_, note = readLock(f)
	found, own := strings.Fields(note), strings.Fields(ownNote(f, boot))
	if len(found) != 3 || len(own) != 2 || found[1] != own[0] {
		return note, last
	}
	same := found[2] == own[1]
	switch found[0] {
	case closedNote:
		last = lastOwner{closed: same, cached: true, synced: same}
	case openNote:
		last = lastOwner{cached: true, synced: same}
	}
	return note, last
}

// note writes what this owner says of the state. It says nothing where the system does not tell what that takes.
func (in *Instance) note(kind string) error {
	own := ownNote(in.lock, in.opts.bootID())
	if own == "" || kind == "" {
		return writeLock(in.lock, "")
	}
	return writeLock(in.lock, kind+" "+own)
}

// ownNote is LIFE and FILE for an owner in this boot, empty if they cannot be told.
func ownNote(f *os.File, boot [16]byte) string {
	id, ok := identify(f)
	if !ok || boot == ([16]byte{}) {
		return ""
	}
	h := sha256.New()
	fmt.Fprint(h, boot, id.mount)
	life := h.Sum(nil)[:8]
	h.Reset()
	fmt.Fprint(h, id.inode, id.made)
	return fmt.Sprintf("%x %x", life, h.Sum(nil)[:8])
}

// fileID tells a file from any other, and from itself on a file system that was mounted again.
type fileID struct {
	mount, inode uint64
	made         int64 // nanoseconds
}

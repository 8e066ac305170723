package mmrun

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// The lock file of a state holds two lines: the process id of its owner, and a note for the next one, which is one of
//
//	closed BOOT       the state was closed: all of it is on the disk
//	open BOOT MOUNT   it was recovered, and all that was stored to it since is in the page cache
//
// or empty. BOOT and MOUNT are the numbers, in hexadecimal, of the boot of the machine and of the mount of the file system. As
// long as both are the same, nothing that is in the page cache is lost.
//
// What is not needed of the file is line ends, so that one write in place changes all of it.
const lockLength = 96 // bytes

// lastOwner is what the lock file tells of the owner before.
type lastOwner struct {
	closed bool // it has closed the state: all of it is on the disk
	cached bool // all that it has stored is there, on the disk or in the page cache
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
	_, note := readLock(f)
	last := readNote(f, boot)
	if last.closed {
		note = "" // not any more
	}
	// A note of an open state stays until this owner can say the same: it may be killed while it recovers.
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

func readNote(f *os.File, boot [16]byte) lastOwner {
	_, note := readLock(f)
	is := func(own string) bool { return own != "" && own == note }
	return lastOwner{closed: is(closedNote(boot)), cached: is(openNote(f, boot))}
}

// closedNote and openNote are the notes of an owner in this boot, empty if it has no number.
func closedNote(boot [16]byte) string {
	if boot == ([16]byte{}) {
		return ""
	}
	return fmt.Sprintf("closed %x", boot)
}

func openNote(f *os.File, boot [16]byte) string {
	mount := mountID(f)
	if boot == ([16]byte{}) || mount == 0 {
		return ""
	}
	return fmt.Sprintf("open %x %x", boot, mount)
}

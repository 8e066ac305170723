package statedir

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
)

// The lock file of a state holds two lines: the process id of its owner, and a status for the next
// one, of three words:
//
//	closed GENERATION FILE   the state was closed: all of it is on the disk
//	open GENERATION FILE     it was recovered, and all that was stored since is in the page cache
//	begun GENERATION FILE    it is being created or recovered, or a sync has failed
//
// GENERATION stands for the boot of the machine and the mount of the file system: as long as both
// are the same, nothing that is in the page cache is lost. FILE stands for the lock file itself, by
// its number and the time when it was made: a copy of the state has another one, and its files may
// not be on the disk, whatever the status says. What is not known is "-".
//
// What is not needed of the file is line ends, so that one write in place changes all of it.
// Another status is as good as none, and stays until this owner says something itself. The file is
// not synced: after a power cut nothing but FILE counts, and of a file that is not a copy FILE is
// right at any age.
const lockLength = 96 // bytes

const statusClosed, statusOpen, statusBegun = "closed", "open", "begun"

var statuses = []string{statusClosed, statusOpen, statusBegun}

// LastExit is what the lock file tells of the owner before. The zero value is that of an owner of
// whom nothing is known.
type LastExit struct {
	CleanClose  bool // it has closed the state: all of it is on the disk
	CacheIntact bool // all that it has stored is there, on the disk or in the page cache
	// FilesSynced: on the disk is what an owner puts there as it goes on: the files, up to the
	// last checkpoint. So it is not a copy.
	FilesSynced bool
	// CopiedOpen: the files are a copy that was made while the state was not closed. Those of a
	// state in use may be of different times.
	CopiedOpen bool
}

// lastExit is what a status says to an owner that would write own.
func lastExit(status string, own identity) (last LastExit) {
	word, said, ok := parseStatus(status)
	if !ok {
		return last
	}
	sameGeneration := said.generation == own.generation && own.generation != unknown
	sameFile := said.file == own.file && own.file != unknown
	otherFile := said.file != own.file && said.file != unknown && own.file != unknown
	switch word {
	case statusClosed:
		last.CleanClose = sameGeneration && sameFile
		last.CacheIntact = sameGeneration
		last.FilesSynced = sameGeneration && sameFile
	case statusOpen:
		last.CacheIntact = sameGeneration
		last.FilesSynced = sameGeneration && sameFile
		last.CopiedOpen = otherFile
	case statusBegun:
		last.CopiedOpen = otherFile
	}
	return last
}

// parseStatus is not ok with a status that this version does not know.
func parseStatus(status string) (word string, said identity, ok bool) {
	words := strings.Split(status, " ")
	if len(words) != 3 || !slices.Contains(statuses, words[0]) {
		return "", said, false
	}
	return words[0], identity{generation: words[1], file: words[2]}, true
}

// identity is who says something in a lock file.
type identity struct{ generation, file string }

const unknown = "-"

func (id identity) String() string { return id.generation + " " + id.file }

// identify is the identity of an owner in this boot with the lock file f.
func identify(f *os.File, boot BootID) identity {
	id := identity{unknown, unknown}
	is, ok := fileOf(f)
	if !ok {
		return id
	}
	id.file = digest(is.inode, is.made)
	if boot != (BootID{}) {
		id.generation = digest(boot, is.mount)
	}
	return id
}

func digest(of ...any) string {
	h := sha256.New()
	fmt.Fprint(h, of...)
	return fmt.Sprintf("%x", h.Sum(nil)[:8])
}

// fileID tells a file from any other, and from itself on a file system that was mounted again.
type fileID struct {
	mount, inode uint64
	made         int64 // nanoseconds, 0 if the file system does not know
}

// BootID identifies a boot of the machine; all zeros is one that is not known.
type BootID = [16]byte

// lockContent is the content of a lock file.
type lockContent struct {
	pid    int // of the owner; 0 if there is none
	status string
}

func readLock(f *os.File) (content lockContent) {
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

// Adopt makes a copy of a state pass for the original: what its lock file says, it says of these
// files from now on. It is for those who know that all of them are of one instant, such as a test
// that copies a state between two events to see what a kill would have left.
func Adopt(dir string, boot BootID) error {
	f, err := lockFile(dir)
	if err != nil {
		return err
	}
	if word, said, ok := parseStatus(readLock(f).status); ok {
		said.file = identify(f, boot).file
		err = writeLock(f, word+" "+said.String())
	}
	return errors.Join(err, unlock(f))
}

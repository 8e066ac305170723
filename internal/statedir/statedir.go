// Package statedir is what mmrun knows of a state's directory without looking into the state: the
// names in it, how it comes into being whole or not at all, who owns it, and how the last owner
// left it. What the files hold is for others, but for the lock and the module.
package statedir

import (
	"cmp"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/mmrun/mmrun/internal/errs"
	"github.com/mmrun/mmrun/vfs"
)

// The files of a state directory. A directory is a state if and only if it has a globals file.
const (
	ModuleName    = "module.wasm" // the module as the user gave it
	MemoryName    = "memory"      // linear memory; byte i is address i; sparse in atomic mode
	ChecksumsName = "memory.sums" // of the memory's pages as of the last checkpoint (atomic mode)
	GlobalsName   = "globals"     // the sidecar: globals and the other small state
	LockName      = "lock"        // held by the owner; see Lock
	CreatingName  = "creating"    // empty; see Create
)

// WALNames are the segments of the redo log (atomic mode).
var WALNames = []string{"wal.0", "wal.1"}

// contents are the names that a state, or a half of one, can have besides lock and mark.
var contents = append([]string{ModuleName, MemoryName, ChecksumsName, GlobalsName,
	GlobalsName + ".new"}, WALNames...)

// Permissions, before umask. A directory that the user has made keeps those that it has.
const (
	FilePerm = vfs.FilePerm
	DirPerm  = vfs.DirPerm
)

// Exists tells whether dir holds a state; a link to a directory is as good as the directory. A
// directory that holds none is not an error as long as it is empty, or holds no more than a
// creation that was cut off has left; anything else in the place is refused, so that mmrun never
// mixes its files with others. The directory's parent is not read.
func Exists(dir string) (bool, error) {
	found, err := look(dir)
	if err != nil {
		return false, err
	}
	if found.state || found.damaged {
		return true, nil
	}
	return false, found.strange(dir)
}

// MustExist is an error unless dir holds a state.
func MustExist(dir string) error {
	found, err := look(dir)
	switch {
	case err != nil:
		return err
	case found.state || found.damaged:
		return nil
	case found.creating:
		return errs.Statef(errs.ErrNotExist, dir, "%w: its creation was cut off or has not ended "+
			"(to create it anew, open it with its module)", errs.ErrNotExist)
	}
	return cmp.Or(found.strange(dir), errs.State(dir, "", errs.ErrNotExist))
}

// finding is what a directory holds.
type finding struct {
	there    bool // there is a directory
	state    bool // with a globals file
	creating bool // with the mark of a creation, and without a globals file
	damaged  bool // with files of a state, but neither of those
	other    string
}

// strange is an error if there is something in the directory that mmrun has not put there.
func (f finding) strange(dir string) error {
	if f.other == "" {
		return nil
	}
	return errs.Statef(errs.ErrCorrupt, dir,
		"the directory holds %s but no %s: not a state directory",
		f.other, GlobalsName)
}

// mostNames is how many names of a directory are read: a state has fewer, and of what is none one
// is enough.
const mostNames = 64

func look(dir string) (found finding, err error) {
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if link, err := os.Readlink(dir); err == nil {
			return found, errs.Statef(fs.ErrNotExist, dir,
				"it is a link to %s, which does not exist", link)
		}
		return found, nil
	case err != nil:
		return found, errs.State(dir, "", err)
	case !info.IsDir():
		return found, errs.Statef(errs.ErrCorrupt, dir, "it is no directory")
	}
	found.there = true
	// In this order: a creation makes the globals file before it removes its mark.
	if isThere(dir, GlobalsName) {
		found.state = true
		return found, nil
	}
	if isThere(dir, CreatingName) {
		found.creating = true
	}
	names, err := readNames(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return finding{}, nil // a creation that has failed took it away
	}
	if err != nil {
		return found, errs.State(dir, "", vfs.Explain(err))
	}
	for _, name := range names {
		switch {
		case name == LockName || name == CreatingName:
		case slices.Contains(contents, name):
			found.damaged = !found.creating
		case name == "lost+found": // the root of a volume may have one
		default:
			found.other = name
		}
	}
	return found, nil
}

func readNames(dir string) ([]string, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(mostNames)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return names, err
}

func isThere(dir, name string) bool {
	_, err := os.Lstat(filepath.Join(dir, name))
	return err == nil
}

// WriteFile writes a new file and makes its content durable.
func WriteFile(fsys vfs.FS, path string, data []byte) error {
	f, err := fsys.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, FilePerm)
	if err != nil {
		return err
	}
	if _, err = f.WriteAt(data, 0); err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// Settle makes durable the name of a state directory and those in it, and removes the mark of its
// creation. Whoever gave the names may have been killed before that: without these syncs a power
// cut could take the directory, or bring back an older globals file, after commits in it have been
// acknowledged as durable.
func Settle(fsys vfs.FS, dir string) error {
	err := fsys.Remove(filepath.Join(dir, CreatingName))
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		err = fsys.SyncDir(dir)
	}
	if err == nil {
		err = syncParent(fsys, dir)
	}
	return errs.State(dir, "", err)
}

// syncParent makes the name of a directory durable. To sync a directory takes permission to read
// it, which an owner of a state need not have for the place where it lies.
func syncParent(fsys vfs.FS, dir string) error {
	err := fsys.SyncDir(filepath.Dir(dir))
	if errors.Is(err, fs.ErrPermission) {
		return nil
	}
	return err
}

// File is a file of a state directory.
type File struct {
	Name   string
	Bytes  int64
	OnDisk int64 // bytes; a sparse file has less than its length
}

// List lists what is in a state directory. What is no regular file has no bytes.
func List(dir string) ([]File, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, errs.State(dir, "", vfs.Explain(err))
	}
	var files []File
	for _, e := range entries {
		info, err := e.Info()
		switch {
		case err != nil: // removed meanwhile
		case info.Mode().IsRegular():
			files = append(files, File{e.Name(), info.Size(), onDisk(info)})
		default:
			files = append(files, File{Name: e.Name()})
		}
	}
	return files, nil
}

// Size is the length of a regular file of a state, 0 if there is none.
func Size(dir, name string) int64 {
	info, err := os.Lstat(filepath.Join(dir, name))
	if err != nil || !info.Mode().IsRegular() {
		return 0
	}
	return info.Size()
}

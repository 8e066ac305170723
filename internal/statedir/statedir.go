// Package statedir is what mmrun knows of a state's directory without looking into the state: the
// names in it, how it comes into being whole or not at all, who owns it, and how the last owner
// left it. What the files hold is for others.
package statedir

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/mmrun/mmrun/internal/errs"
	"github.com/mmrun/mmrun/vfs"
)

// The files of a state directory.
const (
	ModuleName    = "module.wasm" // the module as the user gave it
	MemoryName    = "memory"      // linear memory; byte i is address i; sparse in atomic mode
	ChecksumsName = "memory.sums" // of the memory's pages as of the last checkpoint (atomic mode)
	GlobalsName   = "globals"     // the sidecar: globals and the other small state
	LockName      = "lock"        // held by the owner; see Lock
)

// WALNames are the segments of the redo log (atomic mode).
var WALNames = []string{"wal.0", "wal.1"}

const (
	FilePerm = 0o666 // before umask
	DirPerm  = 0o777
)

// Exists tells whether dir holds a state. A directory that exists and holds none is not an error
// as long as it is empty; anything else in the place is refused, so that mmrun never mixes its
// files with others.
func Exists(dir string) (bool, error) {
	if _, err := os.Stat(filepath.Join(dir, GlobalsName)); err == nil {
		return true, nil
	}
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, errs.State(dir, "", err)
	}
	for _, e := range entries {
		if e.Name() == GlobalsName || e.Name() == ModuleName {
			return true, nil
		}
	}
	if len(entries) > 0 {
		return false, errs.Statef(errs.Corrupt, dir,
			"the directory holds %s but no %s: not a state directory", entries[0].Name(), GlobalsName)
	}
	return false, nil
}

// MustExist is an error unless dir holds a state.
func MustExist(dir string) error {
	exists, err := Exists(dir)
	if err == nil && !exists {
		err = errs.State(dir, "", errs.NotExist)
	}
	return err
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

// SyncNames makes durable the name of a state directory and those in it. Whoever gave them may
// have been killed before that: without this sync a power cut could take the directory, or bring
// back an older globals file, after commits in it have been acknowledged as durable.
func SyncNames(fsys vfs.FS, dir string) error {
	if err := fsys.SyncDir(dir); err != nil {
		return errs.State(dir, "", err)
	}
	// To sync a directory takes permission to read it, which an owner of a state need not have for
	// the place where it lies.
	if err := fsys.SyncDir(filepath.Dir(dir)); err != nil && !errors.Is(err, fs.ErrPermission) {
		return errs.State(dir, "", err)
	}
	return nil
}

// File is a file of a state directory.
type File struct {
	Name   string
	Bytes  int64
	OnDisk int64 // bytes; a sparse file has less than its length
}

// List lists what is in a state directory.
func List(dir string) ([]File, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, errs.State(dir, "", err)
	}
	var files []File
	for _, e := range entries {
		if info, err := e.Info(); err == nil { // or removed meanwhile
			files = append(files, File{e.Name(), info.Size(), onDisk(info)})
		}
	}
	return files, nil
}

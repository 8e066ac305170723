package mmrun

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/mmrun/mmrun/vfs"
)

// The files of a state directory:
//
//	module.wasm   the module as the user gave it
//	memory        linear memory; byte i is address i; sparse in atomic mode
//	memory.sums   checksums of its pages as of the last checkpoint (atomic mode)
//	globals       the sidecar: globals and the other small state
//	wal.0/.1  the redo log (atomic mode)
//	lock          held by the owner, with its process id inside
const (
	moduleName  = "module.wasm"
	memoryName  = "memory"
	sumsName    = "memory.sums"
	globalsName = "globals"
	lockName    = "lock"

	filePerm = 0o666 // before umask
	dirPerm  = 0o777
)

var walNames = []string{"wal.0", "wal.1"}

// nextBuild keeps the directories that one process builds at the same time apart.
var nextBuild atomic.Int64

// stateExists tells whether dir holds a state. A directory that exists and holds none is not an
// error as long as it is empty; anything else in the place is refused, so that mmrun never
// mixes its files with others.
func stateExists(dir string) (bool, error) {
	if _, err := os.Stat(filepath.Join(dir, globalsName)); err == nil {
		return true, nil
	}
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("state %s: %w", dir, err)
	}
	for _, e := range entries {
		if e.Name() == globalsName || e.Name() == moduleName {
			return true, nil
		}
	}
	if len(entries) > 0 {
		return false, asKind(ErrCorrupt, fmt.Errorf(
			"state %s: the directory holds %s but no %s: not a state directory", dir, entries[0].Name(), globalsName))
	}
	return false, nil
}

// newDirPrefix begins the names of directories in which states are being built.
func newDirPrefix(dir string) string { return "." + filepath.Base(dir) + ".new-" }

// buildDir makes a directory beside dir, lets fill put a state into it, and renames it to dir:
// a state directory is there whole or not at all. The lock of the new state is returned; it was
// held from before the directory got its name.
func buildDir(fsys vfs.FS, dir string, fill func(building string) error) (*os.File, error) {
	parent := filepath.Dir(dir)
	removeAbandoned(parent, newDirPrefix(dir))
	building := filepath.Join(parent, newDirPrefix(dir)+strconv.Itoa(os.Getpid())+"-"+strconv.FormatInt(nextBuild.Add(1), 10))
	if err := fsys.Mkdir(building, dirPerm); err != nil {
		return nil, fmt.Errorf("state %s: %w", dir, err)
	}
	lock, _, err := lockDir(building, [16]byte{})
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(building))
	}
	err = fill(building)
	if err == nil {
		err = fsys.SyncDir(building)
	}
	if err == nil {
		// Without this rename's predecessor, the sync of the directory, a power cut could
		// leave the name with some of the files missing.
		err = fsys.Rename(building, dir)
		if errors.Is(err, fs.ErrExist) || isNotEmpty(err) {
			err = asKind(ErrLocked, fmt.Errorf("state %s: created by another process meanwhile", dir))
		}
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(building), unlock(lock))
	}
	if err := fsys.SyncDir(parent); err != nil {
		return nil, errors.Join(fmt.Errorf("state %s: %w", dir, err), unlock(lock))
	}
	return lock, nil
}

// removeAbandoned removes what processes that died while creating a state left behind. What is
// locked is still being built.
func removeAbandoned(parent, prefix string) {
	entries, err := os.ReadDir(parent)
	if err != nil {
		return
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), prefix) || !e.IsDir() {
			continue
		}
		path := filepath.Join(parent, e.Name())
		lock, err := os.OpenFile(filepath.Join(path, lockName), os.O_RDWR, 0)
		if err != nil {
			// Just made, or not ours, or empty because its maker or its remover died at that moment.
			if fi, err := e.Info(); err == nil && time.Since(fi.ModTime()) > time.Minute {
				_ = os.Remove(path)
			}
			continue
		}
		if tryLock(lock) == nil {
			removeBuilding(path)
		}
		_ = unlock(lock)
	}
}

// removeBuilding removes a directory that is locked. The lock goes last: a process that dies half way leaves what
// removeAbandoned takes for abandoned.
func removeBuilding(path string) {
	entries, err := os.ReadDir(path)
	if err != nil {
		return
	}
	for _, e := range entries {
		if e.Name() != lockName {
			_ = os.RemoveAll(filepath.Join(path, e.Name()))
		}
	}
	_ = os.RemoveAll(path)
}

// writeFile writes a new file and makes its content durable.
func writeFile(fsys vfs.FS, path string, data []byte) error {
	f, err := fsys.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, filePerm)
	if err != nil {
		return err
	}
	if _, err = f.WriteAt(data, 0); err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// syncNames makes durable the name of a state directory and those in it. Whoever gave them may have been
// killed before that: without this sync a power cut could take the directory, or bring back an
// older globals file, after commits in it have been acknowledged as durable.
func syncNames(fsys vfs.FS, dir string) error {
	if err := fsys.SyncDir(dir); err != nil {
		return err
	}
	// To sync a directory takes permission to read it, which an owner of a state need not have for
	// the place where it lies.
	if err := fsys.SyncDir(filepath.Dir(dir)); err != nil && !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return nil
}

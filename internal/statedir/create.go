package statedir

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/mmrun/mmrun/internal/errs"
	"github.com/mmrun/mmrun/vfs"
)

// nextBuild keeps the directories that one process builds at the same time apart.
var nextBuild atomic.Int64

// newDirPrefix begins the names of directories in which states are being built.
func newDirPrefix(dir string) string { return "." + filepath.Base(dir) + ".new-" }

// Create makes a directory beside dir, lets fill put a state into it, and renames it to dir: a
// state directory is there whole or not at all. The lock of the new state is returned; it was held
// from before the directory got its name.
func Create(fsys vfs.FS, dir string, boot BootID, fill func(building string) error) (*Lock, error) {
	parent := filepath.Dir(dir)
	removeAbandoned(parent, newDirPrefix(dir))
	building := filepath.Join(parent,
		newDirPrefix(dir)+strconv.Itoa(os.Getpid())+"-"+strconv.FormatInt(nextBuild.Add(1), 10))
	if err := fsys.Mkdir(building, DirPerm); err != nil {
		return nil, errs.State(dir, "", err)
	}
	lock, err := Acquire(building, boot)
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
			err = errs.Statef(errs.Locked, dir, "created by another process meanwhile")
		}
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(building), lock.Close())
	}
	if err := fsys.SyncDir(parent); err != nil {
		return nil, errors.Join(errs.State(dir, "", err), lock.Close())
	}
	lock.dir = dir
	lock.Last = LastExit{CleanClose: true, CacheIntact: true, FilesSynced: true}
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
		lock, err := os.OpenFile(filepath.Join(path, LockName), os.O_RDWR, 0)
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

// removeBuilding removes a directory that is locked. The lock goes last: a process that dies half
// way leaves what removeAbandoned takes for abandoned.
func removeBuilding(path string) {
	entries, err := os.ReadDir(path)
	if err != nil {
		return
	}
	for _, e := range entries {
		if e.Name() != LockName {
			_ = os.RemoveAll(filepath.Join(path, e.Name()))
		}
	}
	_ = os.RemoveAll(path)
}

package statedir

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/mmrun/mmrun/internal/errs"
	"github.com/mmrun/mmrun/vfs"
)

// Create lets fill put the files of a new state into dir, which is made if it does not exist; one
// that exists, such as the mount point of a volume, has to be empty. What is there afterwards is
// the state or, whatever fails and whenever the process or the power ends, none. The state's lock
// is returned; it was held from before the first file.
//
// A directory is a state when it has a globals file. So fill makes that one last, and by renaming.
// Until then an empty file marks the directory as one in which a state is being created:
//
//	step                                         found after a kill or a power cut behind it
//	make the directory, lock it                  an empty directory, or one with a lock
//	mark it, sync it                             a marked one
//	fill: write all files, sync them             a marked one
//	      rename globals.new to globals          a marked one, or a state
//	sync the directory and its parent            a state, marked
//	remove the mark                              a state, marked or not
//
// A mark without a globals file is that of a creation that runs or was cut off. Which of the two,
// the lock tells: the next Create that gets it starts over. A mark beside a globals file means
// nothing.
//
// The file system that fill is given puts off syncs until they are needed. The error wraps
// errs.ErrLocked if another process creates the state, or has done so meanwhile.
func Create(
	fsys vfs.FS, dir string, boot BootID, fill func(fsys vfs.FS) error,
) (_ *Lock, err error) {
	c := creation{fs: fsys, dir: dir}
	f, err := c.lockDir()
	if err != nil {
		return nil, err
	}
	c.lock = &Lock{dir: dir, f: f, boot: boot}
	created := false
	defer func() { // also if fill panics
		if !created {
			err = errors.Join(err, c.undo(), c.lock.Close())
		}
	}()
	// Again, now that nobody else creates anything in it.
	if err := c.check(); err != nil {
		return nil, err
	}
	c.ours = true
	if err := c.lock.begin(); err != nil {
		return nil, err
	}
	if err := c.mark(); err != nil {
		return nil, err
	}
	if err := c.fill(fill); err != nil {
		return nil, err
	}
	created = true
	// It is as if this process had just closed it.
	c.lock.Last = LastExit{CleanClose: true, CacheIntact: true, FilesSynced: true}
	return c.lock, nil
}

// creation is one call of Create.
type creation struct {
	fs   vfs.FS
	dir  string
	lock *Lock
	made bool // the directory, by this call
	ours bool // what is in the directory may be removed
}

// lockDir makes the directory and locks it.
func (c *creation) lockDir() (f *os.File, err error) {
	defer func() {
		if err != nil && c.made {
			_ = c.fs.Remove(c.dir) // if it is empty
		}
	}()
	// Another creation that fails may take the directory away between the steps.
	for attempt := 1; ; attempt++ {
		err := c.fs.Mkdir(c.dir, DirPerm)
		c.made = c.made || err == nil
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, errs.State(c.dir, "", err)
		}
		if err := c.check(); err != nil {
			return nil, err
		}
		f, err := lockFile(c.dir)
		if !errors.Is(err, fs.ErrNotExist) || attempt == 100 {
			return f, err
		}
	}
}

// check is an error if the directory is not one to create a state in.
func (c *creation) check() error {
	found, err := look(c.dir)
	if err != nil {
		return err
	}
	if found.state || found.damaged {
		return errs.Statef(errs.ErrLocked, c.dir, "created by another process meanwhile")
	}
	return found.strange(c.dir)
}

// mark marks the directory, which is locked, and removes what an earlier creation has left.
func (c *creation) mark() error {
	err := c.remove(contents...)
	if err == nil {
		var f vfs.File
		f, err = c.fs.OpenFile(filepath.Join(c.dir, CreatingName), os.O_RDWR|os.O_CREATE, FilePerm)
		if err == nil {
			err = f.Close()
		}
	}
	if err == nil {
		// Before there is another name: without the mark, what a power cut leaves could pass for
		// a state that has lost its globals file.
		err = c.fs.SyncDir(c.dir)
	}
	return errs.State(c.dir, "", err)
}

func (c *creation) fill(fill func(vfs.FS) error) (err error) {
	later := newBatch(c.fs, c.dir)
	defer func() { err = errors.Join(err, later.close()) }()
	if err := fill(later); err != nil {
		return err
	}
	if err = later.flush(); err == nil {
		err = syncParent(c.fs, c.dir)
	}
	if err == nil {
		err = c.remove(CreatingName)
	}
	return errs.State(c.dir, "", err)
}

func (c *creation) remove(names ...string) error {
	var errs []error
	for _, name := range names {
		err := c.fs.Remove(filepath.Join(c.dir, name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// undo removes what a creation has made that has failed before there was a state.
func (c *creation) undo() error {
	if !c.ours || isThere(c.dir, GlobalsName) {
		return nil
	}
	err := c.remove(contents...)
	if err == nil {
		// The mark is the last to go, as it was the first to come.
		err = c.fs.SyncDir(c.dir)
	}
	if err == nil {
		err = c.remove(CreatingName)
	}
	if err != nil {
		return err // what is left is marked
	}
	// A directory with a lock, or with nothing, is as good as none. Where a file that is open
	// cannot be removed it stays.
	_ = c.remove(LockName)
	if c.made {
		_ = c.fs.Remove(c.dir)
	}
	return nil
}

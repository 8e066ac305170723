// Package upgrade puts a new state in the place of an old one, and back: at any kill one of the two
// is there, whole.
//
//	STATE           the state
//	STATE.next      the new one, while it is made; or the old one, for an instant
//	STATE.previous  the old one, until it is pruned
package upgrade

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/mmrun/mmrun/internal/errs"
	"github.com/mmrun/mmrun/internal/statedir"
	"github.com/mmrun/mmrun/vfs"
)

const (
	nextSuffix     = ".next"
	previousSuffix = ".previous"
	trashSuffix    = ".trash"
	youngSuffix    = ".young"
)

// Next is where the new state of dir is made, Previous where the old one stays.
func Next(dir string) string     { return dir + nextSuffix }
func Previous(dir string) string { return dir + previousSuffix }

// Young is where the new module begins, before it is given what the old one held.
func Young(dir string) string { return Next(dir) + youngSuffix }

// Settle ends what a kill has cut off. isOld tells whether the state in a directory is the one that
// the state in dir has replaced.
func Settle(dir string, isOld func(next string) (bool, error)) error {
	if err := removeTrash(dir); err != nil {
		return err
	}
	next := Next(dir)
	exists, err := isThere(next)
	if err != nil || !exists {
		return err
	}
	if old, err := isOld(next); err != nil || old {
		if err != nil {
			return err
		}
		return move(next, Previous(dir))
	}
	return Discard(next) // it was never put in place
}

func isThere(path string) (bool, error) {
	_, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// HasPrevious tells whether there is an old state to go back to.
func HasPrevious(dir string) (bool, error) { return isThere(Previous(dir)) }

// Put puts the state in Next in the place of the one in dir, which goes to Previous. Both are whole
// and durable, and nobody has either open but the caller.
func Put(dir string) error {
	if there, err := HasPrevious(dir); err != nil || there {
		return errors.Join(err, errs.State(dir, "",
			fmt.Errorf("%s is there already (mmrun upgrade --prune)",
				Previous(dir))))
	}
	if err := exchange(Next(dir), dir); err != nil {
		return errs.State(dir, "", err)
	}
	return move(Next(dir), Previous(dir))
}

// Back puts the old state in its place again, and takes the new one away.
func Back(dir string) error {
	if err := exchange(Previous(dir), dir); err != nil {
		return errs.State(dir, "", err)
	}
	return Discard(Previous(dir))
}

// Discard takes a state away, in one step as far as a kill can tell.
func Discard(dir string) error {
	trash := dir + trashSuffix
	if err := os.RemoveAll(trash); err != nil {
		return err
	}
	if err := move(dir, trash); err != nil {
		return err
	}
	return os.RemoveAll(trash)
}

func removeTrash(dir string) error {
	var errs []error
	for _, name := range []string{Next(dir), Previous(dir), Next(dir) + youngSuffix} {
		errs = append(errs, os.RemoveAll(name+trashSuffix))
	}
	return errors.Join(errs...)
}

// move gives a directory another name beside the old one, durably.
func move(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return vfs.OS.SyncDir(filepath.Dir(to))
}

// exchangeByNames is for systems that cannot exchange two names at once. A kill between the two
// steps leaves the new state under its own name: whoever opens the state then is told.
func exchangeByNames(a, b string) error {
	aside := b + ".aside"
	if err := move(b, aside); err != nil {
		return err
	}
	if err := move(a, b); err != nil {
		return errors.Join(err, move(aside, b))
	}
	return move(aside, a)
}

// Lock takes the lock of a state, so that nobody opens it meanwhile.
func Lock(dir string) (*statedir.Lock, error) { return statedir.Acquire(dir, statedir.Boot()) }

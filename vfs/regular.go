package vfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// Permissions of what mmrun makes, before umask: a state is its owner's alone, since whoever may
// write to it may make a guest of it.
const (
	FilePerm fs.FileMode = 0o600
	DirPerm  fs.FileMode = 0o700
)

// ErrNotRegular: there is something in the place of a file that is none: a symbolic link, a
// directory, a pipe, a socket, a device.
var ErrNotRegular = errors.New("not a regular file")

// openRegular is os.OpenFile for regular files alone. A link in the last element of the path is not
// followed, and nothing in the place of the file makes the call wait.
//
// What is there is looked at before, because opening a device can have effects, and after, because
// it may have been replaced meanwhile.
func openRegular(path string, flag int, perm fs.FileMode) (*os.File, error) {
	before, err := os.Lstat(path)
	if err == nil {
		err = regular(path, before)
	} else if errors.Is(err, fs.ErrNotExist) {
		err = nil // the flags say whether it is to be made
	}
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, flag|noFollow, perm)
	if err != nil {
		if isLinkRefused(err) {
			return nil, notRegular(path, "a symbolic link")
		}
		return nil, err
	}
	after, err := f.Stat()
	if err == nil {
		err = regular(path, after)
	}
	if err == nil && noFollow == 0 && before != nil && !os.SameFile(before, after) {
		err = notRegular(path, "being replaced")
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// regular is an error unless info is that of a regular file.
func regular(path string, info fs.FileInfo) error {
	mode := info.Mode()
	switch {
	case mode.IsRegular():
		return nil
	case mode&fs.ModeSymlink != 0:
		return notRegular(path, "a symbolic link")
	case mode.IsDir():
		return notRegular(path, "a directory")
	case mode&fs.ModeNamedPipe != 0:
		return notRegular(path, "a named pipe")
	case mode&fs.ModeSocket != 0:
		return notRegular(path, "a socket")
	case mode&fs.ModeDevice != 0:
		return notRegular(path, "a device")
	}
	return notRegular(path, "something else")
}

func notRegular(path, what string) error {
	return &fs.PathError{Op: "open", Path: path, Err: fmt.Errorf("it is %s, %w", what,
		ErrNotRegular)}
}

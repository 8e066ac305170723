package vfs

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"
)

// Explain adds the way out to an error of the operating system that stands for a limit or a
// condition of the machine: too many open files or mappings, a full or read-only disk. Other errors
// stay as they are. What errors.Is and errors.As find stays the same.
func Explain(err error) error {
	var errno syscall.Errno
	if err == nil || !errors.As(err, &errno) {
		return err
	}
	way := wayOut(errno)
	if way == "" || errors.As(err, new(*explained)) {
		return err
	}
	// The path stays in front: "open x: no space left on device (make room ...)".
	if path, ok := err.(*fs.PathError); ok {
		return &fs.PathError{Op: path.Op, Path: path.Path, Err: &explained{path.Err, way}}
	}
	return &explained{err, way}
}

type explained struct {
	err error
	way string
}

func (e *explained) Error() string { return fmt.Sprintf("%v (%s)", e.err, e.way) }
func (e *explained) Unwrap() error { return e.err }

func wayOut(errno syscall.Errno) string {
	switch errno {
	case syscall.EMFILE:
		most := "raise it with ulimit -n, or LimitNOFILE of a service"
		if n := mostOpenFiles(); n > 0 {
			return fmt.Sprintf("this process may have %d: %s", n, most)
		}
		return "the limit of this process is reached: " + most
	case syscall.ENFILE:
		return "the limit of the whole machine is reached: raise fs.file-max, or end what holds " +
			"files"
	case syscall.ENOSPC:
		return "make room on the file system of the state, or move the state to a larger one"
	case syscall.EDQUOT:
		return "make room, or have the quota raised"
	case syscall.EROFS:
		return "a state is opened for writing only: remount the file system, or work on a copy; " +
			"mmrun inspect and mmrun verify only read"
	case syscall.EFBIG:
		return "raise the limit with ulimit -f, or use a file system for larger files"
	}
	return ""
}

// explainMapping is Explain for mmap, whose ENOMEM is rarely want of memory.
func explainMapping(err error) error {
	if errors.Is(err, syscall.ENOMEM) {
		return &explained{err, "this process has too many mappings: raise vm.max_map_count; " +
			"or too little address space: raise it with ulimit -v"}
	}
	return Explain(err)
}

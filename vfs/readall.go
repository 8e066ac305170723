package vfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// ErrTooLarge: a file has more bytes than its reader takes.
var ErrTooLarge = errors.New("too large")

// ReadAll returns the content of a file of at most limit bytes. A longer one is refused
// (ErrTooLarge) before anything is allocated. Memory is taken as bytes arrive, in all at most three
// times as much as there are.
func ReadAll(fsys FS, path string, limit int64) ([]byte, error) {
	f, err := fsys.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	if size > limit {
		return nil, &fs.PathError{Op: "read", Path: path,
			Err: fmt.Errorf("it has %d bytes, %w: at most %d are read", size, ErrTooLarge, limit)}
	}
	const piece = 1 << 20
	content := make([]byte, 0, min(size, piece))
	for int64(len(content)) < size {
		if len(content) == cap(content) {
			content = append(make([]byte, 0, min(size, 2*int64(cap(content)))), content...)
		}
		n, err := f.ReadAt(content[len(content):cap(content)], int64(len(content)))
		content = content[:len(content)+n]
		if errors.Is(err, io.EOF) {
			break // it has become shorter
		}
		if err != nil {
			return nil, err
		}
	}
	return content, nil
}

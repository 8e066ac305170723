package vfs

import (
	"errors"
	"fmt"
	"io"
	"os"
)

// ReadAll reads a file of at most limit bytes. It never allocates more than a piece beyond what it
// has read, whatever length the file claims.
func ReadAll(fsys FS, path string, limit int64) (_ []byte, err error) {
	f, err := fsys.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	const piece = 1 << 20
	var all []byte
	for {
		b := make([]byte, piece)
		n, err := f.ReadAt(b, int64(len(all)))
		all = append(all, b[:n]...)
		switch {
		case int64(len(all)) > limit:
			return nil, fmt.Errorf("%s: longer than %d bytes", path, limit)
		case err == io.EOF:
			return all, nil
		case err != nil:
			return nil, err
		}
	}
}

package vfs

import (
	"io"
	"os"
)

// allocateByWriting reserves blocks where the file system has no call for it: the present
// bytes of the range are written back in place, the new ones as zeros. Nothing else may
// store to the range meanwhile, which holds for every caller: they allocate before they map. A file
// without holes is only extended.
func allocateByWriting(f *os.File, offset, length int64) error {
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	if from := fi.Size(); from > offset && !hasHoles(fi) {
		length -= from - offset
		offset = from
	}
	buf := make([]byte, 1<<16)
	for length > 0 {
		n := min(int64(len(buf)), length)
		got, err := f.ReadAt(buf[:n], offset)
		if err != nil && err != io.EOF {
			return err
		}
		clear(buf[got:n])
		if _, err := f.WriteAt(buf[:n], offset); err != nil {
			return err
		}
		offset += n
		length -= n
	}
	return nil
}

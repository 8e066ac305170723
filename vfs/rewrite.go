package vfs

import "io"

// Rewrite writes a file over itself, so that the next sync writes all of it: after a sync that
// failed, the kernel takes pages for clean that are not on the disk.
func Rewrite(f File) error {
	size, err := f.Size()
	if err != nil {
		return err
	}
	buf := make([]byte, 1<<20)
	for at := int64(0); at < size; {
		n, err := f.ReadAt(buf[:min(int64(len(buf)), size-at)], at)
		if err != nil && err != io.EOF {
			return err
		}
		if _, err := f.WriteAt(buf[:n], at); err != nil {
			return err
		}
		at += int64(n)
	}
	return nil
}

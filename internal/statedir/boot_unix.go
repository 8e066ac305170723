//go:build unix && !linux

package statedir

import (
	"os"
	"syscall"
)

func fileOf(f *os.File) (id fileID, ok bool) {
	info, err := f.Stat()
	if err != nil {
		return id, false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if ok {
		id.inode = uint64(st.Ino)
	}
	return id, ok
}

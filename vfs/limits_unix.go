//go:build unix

package vfs

import "golang.org/x/sys/unix"

// mostOpenFiles is how many descriptors this process may have, 0 if that is not known.
func mostOpenFiles() uint64 {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
		return 0
	}
	return uint64(limit.Cur)
}

package mmapmem

import (
	"os"

	"golang.org/x/sys/unix"
)

// mapLive reserves length bytes of address space over the file. The mapping may be longer than
// the file: the guest's bounds checks keep it within the memory's size, and the file is never
// shorter than that. MAP_NORESERVE, which mmap-go has not, keeps a large private reservation
// from being refused by the overcommit heuristic.
func mapLive(f *os.File, length int, kind Kind) ([]byte, error) {
	flags := unix.MAP_SHARED
	if kind == Private {
		flags = unix.MAP_PRIVATE | unix.MAP_NORESERVE
	}
	return unix.Mmap(int(f.Fd()), 0, length, unix.PROT_READ|unix.PROT_WRITE, flags)
}

func mapBase(f *os.File, length int) ([]byte, error) {
	return unix.Mmap(int(f.Fd()), 0, length, unix.PROT_READ, unix.MAP_SHARED)
}

func unmap(b []byte) error { return unix.Munmap(b) }

// reclaim gives private pages back to the kernel: what is accessed next is the file. Neither call
// splits a mapping, so the limit of mappings is no matter here.
func reclaim(live []byte) error {
	const dontneedLocked = 24 // MADV_DONTNEED_LOCKED, Linux 5.18
	err := unix.Madvise(live, unix.MADV_DONTNEED)
	if err != nil {
		// A mapping locked in memory (mlockall) refuses that.
		err = unix.Madvise(live, dontneedLocked)
	}
	return err
}

// holesTakeRoom tells whether an access to a hole of a mapped file takes a block, so that it is a
// SIGBUS on a full disk: on tmpfs, where a page of the file is all there is of it.
func holesTakeRoom(f *os.File) bool {
	var st unix.Statfs_t
	return unix.Fstatfs(int(f.Fd()), &st) == nil && st.Type == unix.TMPFS_MAGIC
}

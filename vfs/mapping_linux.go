package vfs

import "golang.org/x/sys/unix"

// mappingKeepsFile: a mapping holds the open file that it was made from, without a descriptor.
const mappingKeepsFile = true

// sync is msync, which on Linux is fdatasync of a range on the open file that the mapping holds.
// That file also remembers which errors of writing back have been reported through it, so one that
// came up before the call, in the background, is not lost (TestSyncOfAMappingSeesAFailedWrite).
func (m *osMapping) sync() error {
	for {
		err := unix.Msync(m.mapped, unix.MS_SYNC)
		if err != unix.EINTR {
			return err
		}
	}
}

// Prefault is a hint: kernels before 5.14 do not know it, and where it fails the store will fault.
func (m *osMapping) Prefault(offset, length int64) {
	end := min(offset+length, int64(len(m.mapped)))
	offset &^= int64(unix.Getpagesize()) - 1
	if offset < end {
		_ = unix.Madvise(m.mapped[offset:end], unix.MADV_POPULATE_WRITE)
	}
}

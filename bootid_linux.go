package mmrun

import (
	"crypto/sha256"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// bootID identifies the time since the machine was started. As long as it is the same, what was
// in the page cache still is. It is read once: no process outlives a boot.
var bootID = sync.OnceValue(func() (id [16]byte) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return id
	}
	sum := sha256.Sum256(b)
	copy(id[:], sum[:])
	return id
})

// mountID is the number of the mount that a file lies on, which is never given again (Linux 6.8), and 0 where that is not known.
func mountID(f *os.File) uint64 {
	var st unix.Statx_t
	err := unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID_UNIQUE, &st)
	if err != nil || st.Mask&unix.STATX_MNT_ID_UNIQUE == 0 {
		return 0
	}
	return st.Mnt_id
}

package statedir

import (
	"crypto/sha256"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Boot identifies the time since the machine was started. As long as it is the same, what was in
// the page cache still is. It is read once: no process outlives a boot.
var Boot = sync.OnceValue(func() (id BootID) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return id
	}
	sum := sha256.Sum256(b)
	copy(id[:], sum[:])
	return id
})

// identify needs Linux 6.8 for mounts whose numbers are never given again, and a file system that
// knows when files were made.
func identify(f *os.File) (fileID, bool) {
	const want = unix.STATX_MNT_ID_UNIQUE | unix.STATX_INO | unix.STATX_BTIME
	var st unix.Statx_t
	err := unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH, want, &st)
	id := fileID{st.Mnt_id, st.Ino, st.Btime.Sec*1e9 + int64(st.Btime.Nsec)}
	return id, err == nil && st.Mask&want == want
}

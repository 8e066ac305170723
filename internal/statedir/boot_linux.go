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

// fileOf takes the mount's number from Linux 6.8 on, which is never given again. Before that the
// device's has to do: a device that was pulled and put in again within a boot passes for one that
// has lost nothing.
func fileOf(f *os.File) (fileID, bool) {
	var st unix.Statx_t
	err := unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH,
		unix.STATX_MNT_ID_UNIQUE|unix.STATX_INO|unix.STATX_BTIME, &st)
	if err != nil || st.Mask&unix.STATX_INO == 0 {
		return fileID{}, false
	}
	id := fileID{mount: unix.Mkdev(st.Dev_major, st.Dev_minor), inode: st.Ino}
	if st.Mask&unix.STATX_MNT_ID_UNIQUE != 0 {
		id.mount = st.Mnt_id
	}
	if st.Mask&unix.STATX_BTIME != 0 {
		id.made = st.Btime.Sec*1e9 + int64(st.Btime.Nsec)
	}
	return id, true
}

// startWriteback lets the disk begin with what is about to be synced. It is a hint.
func startWriteback(f *os.File) {
	_ = unix.SyncFileRange(int(f.Fd()), 0, 0, unix.SYNC_FILE_RANGE_WRITE)
}

package tests

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/internal/testkit/guests"
)

// The root of a volume, over which nothing can be renamed, becomes a state; that of an ext4 volume
// has a directory lost+found in it.
func TestRootOfAVolumeBecomesAState(t *testing.T) {
	for name, mount := range map[string]func(t *testing.T) *smallDisk{
		"tmpfs": func(t *testing.T) *smallDisk { return newSmallDisk(t, 2<<20) },
		"ext4":  func(t *testing.T) *smallDisk { return newSmallExt4(t, 8<<20) },
	} {
		t.Run(name, func(t *testing.T) {
			root := mount(t).root
			for want := uint64(1); want <= 2; want++ {
				in, err := mmrun.Open(ctx, newRuntime(t), root, guests.Load(t, "counter"),
					mmrun.WithWALSize(mmrun.MinWALSize))
				if err != nil {
					t.Fatal(err)
				}
				if got := call(t, in, "inc"); got != want {
					t.Errorf("inc gave %d, want %d", got, want)
				}
				closeInstance(t, in)
			}
		})
	}
}

// A process that has no descriptors left is told so, and how to get more, and the state is not left
// locked or half made.
func TestTooManyOpenFiles(t *testing.T) {
	rt, wasm := newRuntime(t), guests.Load(t, "counter")
	dir := filepath.Join(t.TempDir(), "s")
	closeInstance(t, open(t, rt, dir, wasm))
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	used, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	for room := range 12 {
		limit := before
		limit.Cur = uint64(len(used) - 1 + room) // one was to read that directory
		for _, dir := range []string{dir, filepath.Join(t.TempDir(), "new")} {
			if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
				t.Fatal(err)
			}
			in, err := mmrun.Open(ctx, rt, dir, wasm)
			if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
				t.Fatal(err)
			}
			if err == nil {
				closeInstance(t, in)
				continue
			}
			refused++
			if !strings.Contains(err.Error(), "too many open files") ||
				!strings.Contains(err.Error(), "ulimit -n") {
				t.Errorf("with room for %d: %v", room, err)
			}
			closeInstance(t, open(t, rt, dir, wasm))
		}
	}
	if refused == 0 {
		t.Error("nothing was refused")
	}
}

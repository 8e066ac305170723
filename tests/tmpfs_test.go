//go:build linux

package tests

import (
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/internal/testkit/guests"
)

// On tmpfs an access to a hole of a mapped file takes a block: on a full disk it would be a SIGBUS
// in the guest's code. So memory has its blocks there, in Atomic mode too, and a growth without
// room is refused.
func TestDiskFullKillsNoProcessOnTmpfs(t *testing.T) {
	d := newSmallDisk(t, 4<<20)
	in := open(t, newRuntime(t), d.state(), guests.Load(t, "stores"),
		mmrun.WithWALSize(mmrun.MinWALSize))
	if got := call(t, in, "grow", 40); got != 1 {
		t.Fatalf("grow gave %d, want the old size 1", got)
	}
	d.fill()
	call(t, in, "one", 2_000_000, 7)
	if got := call(t, in, "load", 2_000_000); got != 7 {
		t.Errorf("loaded %d, want 7", got)
	}
	if got := call(t, in, "load", 1_000_000); got != 0 {
		t.Errorf("loaded %d, want 0", got)
	}
	if got := call(t, in, "grow", 100); got != 1<<32-1 {
		t.Errorf("grow on a full disk gave %d, want -1", int32(got))
	}
	d.makeRoom()
}

// A copy of a state may have holes in any of its files, and the same would happen there.
func TestSparseCopyOnAFullDiskIsAnErrorAtOpen(t *testing.T) {
	for _, mode := range modes {
		t.Run(mode.String(), func(t *testing.T) {
			original := filepath.Join(t.TempDir(), "s")
			in := open(t, newRuntime(t), original, guests.Load(t, "stores"), mmrun.WithMode(mode),
				mmrun.WithWALSize(mmrun.MinWALSize))
			call(t, in, "grow", 8)
			call(t, in, "one", 300_000, 7)
			closeInstance(t, in)
			d := newSmallDisk(t, 2<<20)
			if out, err := exec.Command("cp", "-r", "--sparse=always", original,
				d.state()).CombinedOutput(); err != nil {
				t.Fatalf("cp: %v: %s", err, out)
			}
			d.fill()
			_, err := mmrun.Open(ctx, newRuntime(t), d.state(), nil)
			wantNoSpace(t, "open", err)
			d.makeRoom()
			in = open(t, newRuntime(t), d.state(), nil)
			d.fill()
			if got := call(t, in, "load", 300_000); got != 7 {
				t.Errorf("loaded %d, want 7", got)
			}
			if _, err := in.Call(ctx, "fill", 0, 20_000, 5); err != nil {
				t.Error(err)
			}
			d.makeRoom()
			closeInstance(t, in)
		})
	}
}

//go:build linux

package tests

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"golang.org/x/sys/unix"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/internal/testkit/guests"
)

// TestPowerCutOnARealFileSystem cuts the power of a file system on a loop device while a process
// works in it. The device's backing file lies on an XFS of the test's own, and a cut is a clone of
// that file (FICLONE). The clone is made under the file's lock, so it holds exactly the writes that
// the device had done at one instant: what was in the page cache of the file system above it is
// gone, as in a real cut. The clone is mounted, which replays the file system's own wal, and the
// state in it is opened as on the next boot.
//
// The oracle is outside: the process reports each commit that it has been told to be durable, and
// the workload is a function of the commit's number, so that any state can be computed.
func TestPowerCutOnARealFileSystem(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to mount")
	}
	cuts := 100
	if testing.Short() {
		cuts = 4
	}
	for _, tool := range []struct{ name, pkg string }{
		{"mkfs.ext4", "e2fsprogs"}, {"mkfs.xfs", "xfsprogs"}, {"losetup", "mount"},
	} {
		if _, err := exec.LookPath(tool.name); err != nil {
			t.Skipf("needs %s (Debian package %s)", tool.name, tool.pkg)
		}
	}
	host := newMount(t, "xfs", filepath.Join(t.TempDir(), "host.img"), 3<<30)
	for _, fsType := range []string{"ext4", "xfs"} {
		t.Run(fsType, func(t *testing.T) {
			c := &powerCutter{t: t, host: host, fsType: fsType,
				image:  filepath.Join(host, fsType+".img"),
				random: rand.New(rand.NewPCG(7, uint64(len(fsType))))}
			c.mount = newMount(t, fsType, c.image, 320<<20)
			for c.cuts < cuts {
				for _, w := range cutWorkloads {
					c.work(w, 3)
				}
			}
			t.Logf("power cuts on %s: %d, of %d commits and %d syncs; %d states found torn and "+
				"refused (continuous mode), 0 acknowledged commits lost, 0 torn states resumed",
				fsType, c.cuts, c.commits, c.acks, c.torn)
		})
	}
}

// newMount makes a file system in a file and mounts it until the end of the test.
func newMount(t *testing.T, fsType, image string, size int64) string {
	t.Helper()
	f, err := os.Create(image)
	if err == nil {
		err = errors.Join(f.Truncate(size), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"-q", "-F", image}
	if fsType == "xfs" {
		args = []string{"-q", "-f", image}
	}
	tool(t, "mkfs."+fsType, args...)
	return mountImage(t, t, fsType, image)
}

// mountImage mounts an image. The clean-up is that of scope.
func mountImage(t, scope testing.TB, fsType, image string) string {
	t.Helper()
	dir, err := os.MkdirTemp(t.TempDir(), "mnt")
	if err != nil {
		t.Fatal(err)
	}
	device := strings.TrimSpace(tool(t, "losetup", "--find", "--show", image))
	scope.Cleanup(func() { tool(t, "losetup", "--detach", device) })
	data := ""
	if fsType == "xfs" {
		data = "nouuid" // clones are mounted beside their original
	}
	if err := unix.Mount(device, dir, fsType, 0, data); err != nil {
		t.Fatalf("mount %s: %v", image, err)
	}
	scope.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return dir
}

func tool(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// cutWorkload is how the process under the cut works.
type cutWorkload struct {
	name  string
	mode  mmrun.Mode
	sync  mmrun.SyncPolicy
	every int // it calls Sync, or in turn Checkpoint, after that many commits; 0: never
}

var cutWorkloads = []cutWorkload{
	{"atomic-always", mmrun.Atomic, mmrun.SyncAlways, 0},
	{"atomic-sync", mmrun.Atomic, mmrun.SyncNever, 20},
	{"atomic-every", mmrun.Atomic, mmrun.SyncEvery(3 * time.Millisecond), 200},
	{"continuous-sync", mmrun.Continuous, mmrun.SyncNever, 30},
}

const cutPages = 64 // 4 KiB pages that the workload writes to

// cutEvent is what commit seq does: it stores seq in a place that follows from it.
func cutEvent(seq uint64) (addr, value uint64) {
	h := seq * 0x9e3779b97f4a7c15
	return h>>40%cutPages*4096 + h>>20%512*8, seq
}

// cutMemory is the memory after commit seq.
func cutMemory(seq uint64, size int) []byte {
	m := make([]byte, size)
	for s := uint64(cutFirst); s <= seq; s++ {
		addr, value := cutEvent(s)
		binary.LittleEndian.PutUint64(m[addr:], value)
	}
	return m
}

const cutFirst = 3 // commit 1 is the first run, 2 the growth

type powerCutter struct {
	t           *testing.T
	host, mount string
	fsType      string
	image       string
	random      *rand.Rand
	states      int
	cuts, torn  int
	commits     uint64
	acks        int
}

// work starts a process, cuts the power a few times while it works, and kills it.
func (c *powerCutter) work(w cutWorkload, cuts int) {
	c.states++
	dir := filepath.Join(c.mount, fmt.Sprintf("s%d", c.states))
	cmd := exec.Command(os.Args[0], "-test.run=^TestPowerCutChild$")
	cmd.Env = append(os.Environ(), "MMRUN_CUT_DIR="+dir, "MMRUN_CUT_WORKLOAD="+w.name)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		c.t.Fatal(err)
	}
	acked := make(chan uint64, 1<<16)
	go func() {
		defer close(acked)
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if seq, err := strconv.ParseUint(strings.TrimPrefix(lines.Text(), "durable "), 10,
				64); err == nil {
				acked <- seq
			}
		}
	}()
	last := uint64(0)
	more := func() {
		seq, ok := <-acked
		if !ok {
			c.t.Fatalf("%s: the process has ended by itself", w.name)
		}
		last = max(last, seq)
		c.acks++
	}
	more()
	for range cuts {
		for range c.random.IntN(40) {
			more()
		}
		for len(acked) > 0 {
			more()
		}
		clone := c.cut()
		c.cuts++
		c.check(w, clone, filepath.Base(dir), last)
	}
	if err := errors.Join(cmd.Process.Kill(), func() error {
		_,
			err := io.Copy(io.Discard, out)
		return err
	}()); err != nil {
		c.t.Logf("%s: end of the process: %v", w.name, err)
	}
	for range acked {
	}
	_ = cmd.Wait()
	if err := os.RemoveAll(dir); err != nil {
		c.t.Fatal(err)
	}
}

// cut clones the device's backing file at some instant.
func (c *powerCutter) cut() string {
	from, err := os.Open(c.image)
	if err != nil {
		c.t.Fatal(err)
	}
	defer from.Close()
	clone := filepath.Join(c.host, fmt.Sprintf("cut-%s-%d.img", c.fsType, c.cuts))
	to, err := os.Create(clone)
	if err != nil {
		c.t.Fatal(err)
	}
	defer to.Close()
	if err := unix.IoctlFileClone(int(to.Fd()), int(from.Fd())); err != nil {
		c.t.Fatalf("clone: %v", err)
	}
	return clone
}

// check mounts a clone and opens the state in it. Commit durable had been acknowledged before the
// cut.
func (c *powerCutter) check(w cutWorkload, clone, name string, durable uint64) {
	c.t.Run(fmt.Sprintf("%s-%d", w.name, c.cuts), func(t *testing.T) {
		defer os.Remove(clone)
		mounted := mountImage(c.t, t, c.fsType, clone)
		ctx := context.Background()
		rt := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter())
		defer rt.Close(ctx)
		in, err := openSeen(rt, filepath.Join(mounted, name), nil, withBootID([16]byte{2}))
		if errors.Is(err, mmrun.ErrTorn) && w.mode == mmrun.Continuous {
			c.torn++
			return
		}
		if err != nil {
			t.Fatalf("commit %d had been durable: %v", durable, err)
		}
		defer in.Close(ctx)
		seq := in.Seq()
		c.commits = max(c.commits, seq)
		if seq < durable {
			t.Errorf("the state is at commit %d, commit %d had been durable", seq, durable)
		}
		memory := storeOf(in).Memory().Bytes()
		if !bytes.Equal(memory, cutMemory(seq, len(memory))) {
			t.Errorf("the memory is not that of commit %d", seq)
		}
		if got, want := storeOf(in).State().Globals[0].Lo, seq-cutFirst+1; got != want {
			t.Errorf("the global says %d events, the commit %d", got, want)
		}
	})
}

// TestPowerCutChild is the process that works while the power is cut. It ends by a kill.
func TestPowerCutChild(t *testing.T) {
	dir := os.Getenv("MMRUN_CUT_DIR")
	if dir == "" {
		t.Skip("runs as a child of TestPowerCutOnARealFileSystem")
	}
	var w cutWorkload
	for _, w = range cutWorkloads {
		if w.name == os.Getenv("MMRUN_CUT_WORKLOAD") {
			break
		}
	}
	ctx := context.Background()
	rt := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter())
	in, err := mmrun.Open(ctx, rt, dir, guests.Load(t, "stores"), mmrun.WithMode(w.mode),
		mmrun.WithSync(w.sync),
		mmrun.WithWALSize(mmrun.MinWALSize), withBootID([16]byte{1}))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := in.Call(ctx, "grow", cutPages/16-1); err != nil {
		t.Fatal(err)
	}
	for n := 1; ; n++ {
		addr, value := cutEvent(in.Seq() + 1)
		if _, err := in.Call(ctx, "one", addr, value); err != nil {
			t.Fatal(err)
		}
		durable := w.sync == mmrun.SyncAlways
		if w.every > 0 && n%w.every == 0 {
			sync := in.Sync
			if n/w.every%5 == 0 {
				sync = in.Checkpoint
			}
			if err := sync(ctx); err != nil {
				t.Fatal(err)
			}
			durable = true
		}
		if durable {
			fmt.Printf("durable %d\n", in.Seq())
		}
	}
}

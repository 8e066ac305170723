//go:build linux

package tests

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/fsck"
	"github.com/mmrun/mmrun/internal/testkit/guests"
	"github.com/mmrun/mmrun/internal/testkit/scratch"
)

// refusedGrowth is what memory.grow answers when it cannot.
const refusedGrowth = uint64(0xffffffff)

// smallDisk is a file system of its own, in memory.
type smallDisk struct {
	t    *testing.T
	root string
}

func newSmallDisk(t *testing.T, size int) *smallDisk {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a small file system")
	}
	root := t.TempDir()
	err := unix.Mount("mmrun-test", root, "tmpfs", 0, fmt.Sprintf("size=%d", size))
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		t.Skipf("mounting a small file system is not allowed here: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(root, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return &smallDisk{t, root}
}

// newSmallExt4 is a disk on which reading a page never takes a block.
func newSmallExt4(t *testing.T, size int64) *smallDisk {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a small file system")
	}
	if _, err := exec.LookPath("mkfs.ext4"); err != nil {
		t.Skip("needs mkfs.ext4 (Debian package e2fsprogs)")
	}
	image, root := filepath.Join(t.TempDir(), "image"), t.TempDir()
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, size); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-m", "0", image).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4: %v\n%s", err, out)
	}
	if out, err := exec.Command("mount", "-o", "loop", image, root).CombinedOutput(); err != nil {
		t.Skipf("mounting an image is not allowed here: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(root, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return &smallDisk{t, root}
}

func (d *smallDisk) state() string  { return filepath.Join(d.root, "s") }
func (d *smallDisk) filler() string { return filepath.Join(d.root, "filler") }

// fill leaves no block free.
func (d *smallDisk) fill() {
	d.t.Helper()
	f, err := os.Create(d.filler())
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	block := make([]byte, 4096)
	for range 3 { // ext4 sets more aside for a write than it takes in the end
		for err = nil; err == nil; {
			_, err = f.Write(block)
		}
		if !errors.Is(err, unix.ENOSPC) {
			d.t.Fatalf("filling the disk: %v", err)
		}
		if err := f.Sync(); err != nil {
			d.t.Fatal(err)
		}
	}
}

func (d *smallDisk) makeRoom() {
	d.t.Helper()
	if err := os.Remove(d.filler()); err != nil {
		d.t.Fatal(err)
	}
}

func (d *smallDisk) remount(flags uintptr) {
	d.t.Helper()
	if err := unix.Mount("mmrun-test", d.root, "tmpfs", unix.MS_REMOUNT|flags, ""); err != nil {
		d.t.Fatal(err)
	}
}

// openAtomic makes an atomic state with a memory of 512 KiB and the smallest wal. All its pages
// have blocks: this file system gives a page one when it is first read, too.
func (d *smallDisk) openAtomic() *mmrun.Instance {
	d.t.Helper()
	in, err := mmrun.Open(ctx, newRuntime(d.t), d.state(), guests.Load(d.t, "stores"),
		mmrun.WithWALSize(mmrun.MinWALSize))
	if err != nil {
		d.t.Fatal(err)
	}
	// the tests below close it themselves, this is for when they fail
	d.t.Cleanup(func() { _ = in.Close(ctx) })
	call(d.t, in, "grow", 7)
	for page := range uint64(128) {
		call(d.t, in, "one", page*4096, page)
	}
	if err := in.Checkpoint(bg); err != nil {
		d.t.Fatal(err)
	}
	growLog(d.t, in)
	content(d.t, in)
	return in
}

// growLog brings both segments of the smallest log to the size that they grow to, so that a full
// disk is met by checkpoints, and empties it.
func growLog(t *testing.T, in *mmrun.Instance) {
	t.Helper()
	for value := range uint64(3) {
		call(t, in, "fill", 0, 50_000, value)
	}
	if err := in.Checkpoint(bg); err != nil {
		t.Fatal(err)
	}
}

// reopened closes in, opens its state again and wants it to be what it was.
func (d *smallDisk) reopened(in *mmrun.Instance, want string) {
	d.t.Helper()
	closeInstance(d.t, in)
	d.opens(want)
}

func (d *smallDisk) opens(want string) {
	d.t.Helper()
	in := open(d.t, newRuntime(d.t), d.state(), nil)
	if got := content(d.t, in); got != want {
		d.t.Errorf("opened again:\n got %s\nwant %s", got, want)
	}
	closeInstance(d.t, in)
}

// wantPassing checks that an event or a checkpoint has failed for a reason that may pass.
func wantPassing(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
	if errors.Is(err, mmrun.ErrPoisoned) {
		t.Errorf("%s poisons the instance: %v", what, err)
	}
}

func wantNoSpace(t *testing.T, what string, err error) {
	t.Helper()
	wantPassing(t, what+" on a full disk", err, unix.ENOSPC)
}

// A continuous memory has its blocks before the guest sees it: where there are none, growth is
// refused, and a store never fails.
func TestDiskFullRefusesContinuousGrowth(t *testing.T) {
	d := newSmallDisk(t, 2<<20)
	in := open(t, newRuntime(t), d.state(), guests.Load(t, "stores"),
		mmrun.WithMode(mmrun.Continuous))
	if got := call(t, in, "grow", 100); got != refusedGrowth {
		t.Errorf("growth by 6.25 MiB on a disk of 2 MiB gave %d, want -1", int32(got))
	}
	if got := call(t, in, "grow", 4); got != 1 {
		t.Errorf("growth that fits gave %d after one that was refused, want 1", int32(got))
	}
	d.fill()
	if got := call(t, in, "grow", 1); got != refusedGrowth {
		t.Errorf("growth on a full disk gave %d, want -1", int32(got))
	}
	for page := range uint64(5 * 16) {
		call(t, in, "one", page*4096, page+1)
	}
	if got := call(t, in, "size"); got != 5 {
		t.Errorf("the memory has %d wasm pages, want 5", got)
	}
	if err := in.Sync(bg); err != nil {
		t.Errorf("sync on a full disk: %v", err)
	}
	d.makeRoom()
	if got := call(t, in, "grow", 1); got != 5 {
		t.Errorf("growth gave %d when there was room again, want 5", int32(got))
	}
	closeInstance(t, in)
	in = open(t, newRuntime(t), d.state(), nil)
	for page := range uint64(5 * 16) {
		if got := call(t, in, "load", page*4096); got != page+1 {
			t.Fatalf("page %d holds %d, want %d", page, got, page+1)
		}
	}
	closeInstance(t, in)
}

// An event too large for the wal needs a larger segment. Without room for that it is rolled back.
func TestDiskFullRollsBackALargeEvent(t *testing.T) {
	d := newSmallDisk(t, 2<<20)
	in := d.openAtomic()
	before := content(t, in)
	d.fill()
	for range 3 {
		_, err := in.Call(ctx, "fill", 0, 300_000, 0x5a)
		wantNoSpace(t, "an event of 300 KB", err)
		if got := content(t, in); got != before {
			t.Fatalf("not rolled back:\n got %s\nwant %s", got, before)
		}
	}
	call(t, in, "one", 8, 1) // there is room for a small one
	d.makeRoom()
	call(t, in, "fill", 0, 300_000, 0x5a)
	if got := call(t, in, "load", 8); got != 0x5a5a5a5a {
		t.Errorf("memory holds %#x, want what the event wrote when there was room again", got)
	}
	d.reopened(in, content(t, in))
}

// setMeta is an event that keeps n bytes with the state: the globals file must grow for them at the
// next checkpoint.
func setMeta(in *mmrun.Instance, n int) error {
	return in.Update(ctx, func(tx *mmrun.Tx) error {
		tx.SetMeta(bytes.Repeat([]byte{7}, n))
		return nil
	})
}

// fillWAL makes events until one fails, and tells what the state was before that one.
func fillWAL(t *testing.T, in *mmrun.Instance) (last string) {
	t.Helper()
	for i := range uint64(100_000) {
		seq := in.Seq()
		if _, err := in.Call(ctx, "one", i%128*4096+8, i); err != nil {
			wantNoSpace(t, "an event", err)
			if got := in.Seq(); got != seq {
				t.Errorf("an event that failed has moved the state from commit %d to %d", seq, got)
			}
			return content(t, in)
		}
	}
	t.Fatal("100000 events without a checkpoint in a wal of 128 KiB")
	return ""
}

// A checkpoint that finds no room leaves all as it was. Events go on for as long as the wal has
// room, fail then, and go on when there is room on the disk again.
func TestDiskFullPutsCheckpointsOff(t *testing.T) {
	d := newSmallDisk(t, 2<<20)
	in := d.openAtomic()
	d.fill()
	if err := setMeta(in, 40_000); err != nil {
		t.Fatalf("there is room in the wal: %v", err)
	}
	wantNoSpace(t, "a checkpoint", in.Checkpoint(bg))
	call(t, in, "one", 16, 1)
	wantNoSpace(t, "another checkpoint", in.Checkpoint(bg))
	last := fillWAL(t, in)
	if again := fillWAL(t, in); again != last {
		t.Errorf("an event that failed changed the state:\n got %s\nwant %s", again, last)
	}

	// A process killed now would leave these files.
	killed := filepath.Join(scratch.Dir(t), "killed")
	readSnapshot(t, d.state()).write(t, killed)
	copied := open(t, newRuntime(t), killed, nil)
	if got := content(t, copied); got != last {
		t.Errorf("after a kill:\n got %s\nwant %s", got, last)
	}

	d.makeRoom()
	call(t, in, "one", 24, 3)
	if err := in.Checkpoint(bg); err != nil {
		t.Errorf("there is room again: %v", err)
	}
	if got := len(in.Meta()); got != 40_000 {
		t.Errorf("%d bytes of metadata, want 40000", got)
	}
	d.reopened(in, content(t, in))
}

// An atomic memory is sparse: pages that the guest writes for the first time get their blocks from
// a checkpoint, not from the store. So a full disk is met by the checkpoint.
func TestDiskFullUnderASparseMemory(t *testing.T) {
	d := newSmallExt4(t, 16<<20)
	in, err := mmrun.Open(ctx, newRuntime(t), d.state(), guests.Load(t, "stores"),
		mmrun.WithWALSize(mmrun.MinWALSize))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = in.Close(ctx) })
	call(t, in, "grow", 60)
	growLog(t, in)
	d.fill()
	if got := call(t, in, "grow", 60); got != 61 {
		t.Errorf("growth gave %d, want 61: it takes no block", int32(got))
	}
	call(t, in, "touch", 16, 1, 1500, 5)
	wantNoSpace(t, "a checkpoint of 1500 new pages", in.Checkpoint(bg))
	last := fillWAL(t, in)
	killed := filepath.Join(scratch.Dir(t), "killed")
	readSnapshot(t, d.state()).write(t, killed)
	copied := open(t, newRuntime(t), killed, nil)
	if got := content(t, copied); got != last {
		t.Errorf("after a kill:\n got %s\nwant %s", got, last)
	}
	d.makeRoom()
	call(t, in, "one", 24, 3)
	if err := in.Checkpoint(bg); err != nil {
		t.Errorf("there is room again: %v", err)
	}
	d.reopened(in, content(t, in))
}

// What a checkpoint that has failed had read of the log is read again by the next one. Changes of
// the user's bytes are differences: twice they would not be the same as once.
func TestCheckpointIsDoneAgainAfterMetadataHasBecomeShorter(t *testing.T) {
	d := newSmallExt4(t, 16<<20)
	in, err := mmrun.Open(ctx, newRuntime(t), d.state(), guests.Load(t, "stores"),
		mmrun.WithWALSize(mmrun.MinWALSize))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = in.Close(ctx) })
	call(t, in, "grow", 120)
	growLog(t, in)
	meta := make([]byte, 10_000)
	set := func(length int) {
		t.Helper()
		meta[length-1]++
		err := in.Update(ctx, func(tx *mmrun.Tx) error {
			tx.SetMeta(meta[:length])
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	set(10_000)
	if err := in.Checkpoint(bg); err != nil {
		t.Fatal(err)
	}
	d.fill()
	set(10_000)
	set(10)
	set(500)
	call(t, in, "touch", 16, 1, 1500, 5)
	wantNoSpace(t, "a checkpoint of 1500 new pages", in.Checkpoint(bg))
	d.makeRoom()
	if err := in.Checkpoint(bg); err != nil {
		t.Errorf("there is room again: %v", err)
	}
	if !bytes.Equal(in.Meta(), meta[:500]) {
		t.Error("other metadata than was set")
	}
	d.reopened(in, content(t, in))
}

// A state that is closed, or opened, on a full disk keeps its last commit.
func TestDiskFullAtCloseAndOpen(t *testing.T) {
	d := newSmallDisk(t, 2<<20)
	in := d.openAtomic()
	d.fill()
	if err := setMeta(in, 40_000); err != nil {
		t.Fatalf("there is room in the wal: %v", err)
	}
	last := fillWAL(t, in)
	wantNoSpace(t, "close", in.Close(ctx))
	if _, err := mmrun.Open(ctx, newRuntime(t), d.state(), nil); err == nil {
		t.Error("a state whose wal cannot be folded was opened")
	} else {
		wantNoSpace(t, "open", err)
	}
	d.makeRoom()
	d.opens(last)
}

// A state is created whole or not at all, however far the room goes. A continuous one can be whole,
// and refused nevertheless: there is no room to open it.
func TestDiskFullLeavesNoHalfState(t *testing.T) {
	for _, mode := range modes {
		t.Run(mode.String(), func(t *testing.T) {
			d := newSmallDisk(t, 512<<10)
			refused := 0
			for room := int64(0); room <= 256<<10; room += 8 << 10 {
				d.fill()
				d.cutFiller(room)
				in, err := mmrun.Open(ctx, newRuntime(t), d.state(), guests.Load(t, "stores"),
					mmrun.WithMode(mode), mmrun.WithWALSize(mmrun.MinWALSize))
				if err == nil {
					closeInstance(t, in)
				} else {
					wantNoSpace(t, "creation", err)
					refused++
				}
				d.makeRoom()
				exists, err := fsck.Exists(d.state())
				if err != nil {
					t.Errorf("with room for %d bytes: %v", room, err)
				}
				if exists {
					in := open(t, newRuntime(t), d.state(), nil)
					if in.Seq() != 1 {
						t.Errorf("with room for %d bytes: commit %d, want the first run alone",
							room, in.Seq())
					}
					closeInstance(t, in)
					if err := os.RemoveAll(d.state()); err != nil {
						t.Fatal(err)
					}
				}
				if entries, err := os.ReadDir(d.root); err != nil || len(entries) > 0 {
					t.Fatalf("with room for %d bytes there is left: %v, %v", room, entries, err)
				}
			}
			if refused == 0 || refused == 33 {
				t.Errorf("%d of 33 creations found no room; want some", refused)
			}
		})
	}
}

// cutFiller makes room for n bytes on a full disk.
func (d *smallDisk) cutFiller(n int64) {
	d.t.Helper()
	fi, err := os.Stat(d.filler())
	if err == nil {
		err = os.Truncate(d.filler(), fi.Size()-n)
	}
	if err != nil {
		d.t.Fatal(err)
	}
}

func TestGrowthPastTheMaximumIsRefused(t *testing.T) {
	for _, mode := range modes {
		t.Run(mode.String(), func(t *testing.T) {
			dir := filepath.Join(scratch.Dir(t), "s")
			in := open(t, newRuntime(t), dir, guests.Load(t, "grow"), mmrun.WithMode(mode))
			for _, step := range []struct{ by, want uint64 }{
				{1024, refusedGrowth}, {65535, refusedGrowth}, {1<<32 - 1, refusedGrowth}, {0, 1},
				{1023, 1}, {1, refusedGrowth}, {0, 1024},
			} {
				if got := call(t, in, "grow", step.by); got != step.want {
					t.Errorf("growth by %d gave %d, want %d", step.by, int32(got), int32(step.want))
				}
			}
			call(t, in, "store", 1024<<16-4, 5)
			closeInstance(t, in)
			in = open(t, newRuntime(t), dir, nil)
			if got := call(t, in, "grow", 1); got != refusedGrowth {
				t.Errorf("growth past the maximum gave %d after a resume, want -1", int32(got))
			}
			if got := call(t, in, "load", 1024<<16-4); got != 5 {
				t.Errorf("the last word holds %d, want 5", got)
			}
		})
	}
}

// childEnv holds the state directory, and the mode behind a colon, in a process that one of these
// tests starts.
const childEnv = "MMRUN_TEST_LIMITS"

// isChild tells what a child has to work on; ok is false in the test itself.
func isChild() (dir string, mode mmrun.Mode, ok bool) {
	mode = mmrun.Atomic
	dir, ok = os.LookupEnv(childEnv)
	if at := strings.LastIndexByte(dir, ':'); ok && at >= 0 {
		mode, _ = mmrun.ParseMode(dir[at+1:])
		dir = dir[:at]
	}
	return dir, mode, ok
}

// childOf is this test in another process.
func childOf(t *testing.T, dir string, mode mmrun.Mode) *exec.Cmd {
	name, _, _ := strings.Cut(t.Name(), "/")
	cmd := exec.Command(os.Args[0], "-test.run=^"+name+"$", "-test.timeout=5m")
	cmd.Env = append(os.Environ(), childEnv+"="+dir+":"+mode.String())
	return cmd
}

// startChild starts a child and waits until it says ready. What it says with that is returned.
func startChild(t *testing.T, cmd *exec.Cmd) (word string) {
	t.Helper()
	in, err := cmd.StdinPipe() // its end tells the child to end
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	var said []string
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if word, ok := strings.CutPrefix(lines.Text(), "ready "); ok {
			return word
		}
		said = append(said, lines.Text())
	}
	t.Fatalf("the child ended: %s", strings.Join(said, "\n"))
	return ""
}

// ready is the child's side of startChild. It returns when the test is done with the child.
func ready(word any) {
	fmt.Printf("ready %v\n", word)
	_, _ = io.Copy(io.Discard, os.Stdin)
}

func limitFileSize(t *testing.T, n uint64) {
	t.Helper()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &limit); err != nil {
		t.Fatal(err)
	}
	limit.Cur = n
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &limit); err != nil {
		t.Fatal(err)
	}
}

// ulimit -f is -1 for the guest or an error for the caller. The kernel's signal, which would end
// the process, is never raised.
func TestFileSizeLimitEndsNoProcess(t *testing.T) {
	if dir, mode, ok := isChild(); ok {
		workUnderFileSizeLimit(t, dir, mode)
		return
	}
	for _, mode := range modes {
		t.Run(mode.String(), func(t *testing.T) {
			dir := filepath.Join(scratch.Dir(t), "s")
			if out, err := childOf(t, dir, mode).CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			in := open(t, newRuntime(t), dir, nil)
			for _, at := range []uint64{8, 500_000} {
				if got := call(t, in, "load", at); got != at {
					t.Errorf("memory holds %d at %d, want that number", got, at)
				}
			}
			if got := call(t, in, "grow", 64); got != 9 {
				t.Errorf("growth gave %d without the limit, want 9", int32(got))
			}
		})
	}
}

func workUnderFileSizeLimit(t *testing.T, dir string, mode mmrun.Mode) {
	in, err := mmrun.Open(ctx, newRuntime(t), dir, guests.Load(t, "stores"), mmrun.WithMode(mode),
		mmrun.WithWALSize(mmrun.MinWALSize))
	if err != nil {
		t.Fatal(err)
	}
	limitFileSize(t, 1<<20)
	if got := call(t, in, "grow", 64); got != refusedGrowth {
		t.Errorf("growth to 4 MiB under a limit of 1 MiB gave %d, want -1", int32(got))
	}
	if got := call(t, in, "grow", 8); got != 1 {
		t.Errorf("growth to 576 KiB gave %d, want 1", int32(got))
	}

	// From here on the memory file is longer than the limit.
	limitFileSize(t, 256<<10)
	if got := call(t, in, "grow", 1); got != refusedGrowth {
		t.Errorf("growth gave %d, want -1", int32(got))
	}
	call(t, in, "one", 8, 8)
	call(t, in, "one", 500_000, 500_000)
	if mode == mmrun.Continuous {
		if err := in.Close(ctx); err != nil {
			t.Errorf("close: %v", err)
		}
		return
	}
	before := content(t, in)
	_, err = in.Call(ctx, "fill", 0, 400_000, 1)
	wantPassing(t, "an event that needs a segment of 400 KB", err, unix.EFBIG)
	if got := content(t, in); got != before {
		t.Errorf("not rolled back:\n got %s\nwant %s", got, before)
	}
	call(t, in, "one", 500_000, 500_000)
	wantPassing(t, "a checkpoint of a page behind the limit", in.Checkpoint(bg), unix.EFBIG)
	wantPassing(t, "close", in.Close(ctx), unix.EFBIG)
}

// A state on a read-only file system can be looked at and checked. Open says why it cannot be
// opened.
func TestReadOnlyFileSystem(t *testing.T) {
	for _, mode := range modes {
		t.Run(mode.String(), func(t *testing.T) {
			d := newSmallDisk(t, 2<<20)
			in := open(t, newRuntime(t), d.state(), guests.Load(t, "stores"), mmrun.WithMode(mode),
				mmrun.WithWALSize(mmrun.MinWALSize))
			call(t, in, "one", 8, 42)
			seq := in.Seq()
			closeInstance(t, in)
			d.remount(unix.MS_RDONLY)
			defer d.remount(0)

			for _, dir := range []string{d.state(), filepath.Join(d.root, "new")} {
				_, err := mmrun.Open(ctx, newRuntime(t), dir, guests.Load(t, "stores"))
				if !errors.Is(err, unix.EROFS) || !strings.Contains(err.Error(), dir) {
					t.Errorf("open of %s: %v, want %v and the name", filepath.Base(dir), err,
						unix.EROFS)
				}
			}
			if r, err := fsck.Inspect(d.state()); err != nil || r.Seq != seq || r.InUse ||
				r.Problem != "" {
				t.Errorf("inspect: %+v, %v; want commit %d, not in use, no problem", r, err, seq)
			}
			if r, err := fsck.Verify(d.state()); err != nil || !r.Sound {
				t.Errorf("verify: %+v, %v; want a sound state", r, err)
			}

			d.remount(0)
			in = open(t, newRuntime(t), d.state(), nil)
			if got := call(t, in, "load", 8); got != 42 {
				t.Errorf("memory holds %d when the file system can be written again, want 42", got)
			}
			closeInstance(t, in)
		})
	}
}

// Whoever deletes the directory of a running instance loses the state, and nothing else: neither
// the process nor a neighbour, and nothing appears in the old place.
func TestDeletedStateDirectory(t *testing.T) {
	for _, mode := range modes {
		t.Run(mode.String(), func(t *testing.T) {
			root := scratch.Dir(t)
			rt := newRuntime(t)
			neighbour := filepath.Join(root, "neighbour")
			closeInstance(t, open(t, rt, neighbour, guests.Load(t, "stores"),
				mmrun.WithWALSize(mmrun.MinWALSize)))
			want := readFiles(t, neighbour)

			dir := filepath.Join(root, "s")
			in, err := mmrun.Open(ctx, rt, dir, guests.Load(t, "stores"), mmrun.WithMode(mode),
				mmrun.WithWALSize(mmrun.MinWALSize))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
			var failed error
			for i := range uint64(3000) { // the wal is folded several times
				if _, failed = in.Call(ctx, "one", i%16*4096, i); failed != nil {
					break
				}
			}
			_, growErr := in.Call(ctx, "grow", 20)
			_, fillErr := in.Call(ctx, "fill", 0, 200_000, 3)
			t.Logf("events: %v, growth: %v, large event: %v, checkpoint: %v, close: %v",
				failed, growErr, fillErr, in.Checkpoint(bg), in.Close(ctx))

			entries, err := os.ReadDir(root)
			if err != nil || len(entries) != 1 || entries[0].Name() != "neighbour" {
				t.Errorf("there is %v, %v; want the neighbour alone", entries, err)
			}
			if !readFiles(t, neighbour).equal(want) {
				t.Error("a neighbour has changed")
			}
		})
	}
}

// holdOpen opens the state in a child.
func holdOpen(t *testing.T, dir string) {
	t.Helper()
	if _, err := mmrun.Open(context.Background(), newRuntime(t), dir,
		guests.Load(t, "stores")); err != nil {
		t.Fatal(err)
	}
}

func TestSecondProcessIsToldWhoHoldsTheState(t *testing.T) {
	if dir, _, ok := isChild(); ok {
		holdOpen(t, dir)
		ready("")
		return
	}
	dir := filepath.Join(scratch.Dir(t), "s")
	child := childOf(t, dir, mmrun.Atomic)
	startChild(t, child)
	pid := child.Process.Pid
	_, err := mmrun.Open(ctx, newRuntime(t), dir, nil)
	if !errors.Is(err, mmrun.ErrLocked) || !strings.HasSuffix(err.Error(),
		" process "+strconv.Itoa(pid)) {
		t.Errorf("%v, want %v by process %d", err, mmrun.ErrLocked, pid)
	}
	if r, err := fsck.Inspect(dir); err != nil || !r.InUse || r.Owner != pid {
		t.Errorf("inspect: %+v, %v; want it in use by process %d", r, err, pid)
	}
	kill(t, child)
	closeInstance(t, open(t, newRuntime(t), dir, nil))
}

func kill(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // says that it was killed
}

// A program outlives the process that has started it with a state open. It must not have inherited
// the lock.
func TestStartedProgramDoesNotKeepTheLock(t *testing.T) {
	if dir, _, ok := isChild(); ok {
		holdOpen(t, dir)
		program := exec.Command("cat")
		program.Stdin = os.NewFile(3, "pipe of the test")
		if err := program.Start(); err != nil {
			t.Fatal(err)
		}
		ready(program.Process.Pid)
		return
	}
	if _, err := exec.LookPath("cat"); err != nil {
		t.Skip(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close() // the program ends
	dir := filepath.Join(scratch.Dir(t), "s")
	child := childOf(t, dir, mmrun.Atomic)
	child.ExtraFiles = []*os.File{r}
	program := startChild(t, child)
	kill(t, child)
	if stat, err := os.ReadFile(filepath.Join("/proc", program, "stat")); err != nil ||
		bytes.Contains(stat, []byte(") Z ")) {
		t.Fatalf("the program has ended: %s %v", stat, err)
	}
	in := open(t, newRuntime(t), dir, nil)
	call(t, in, "one", 8, 1)
	closeInstance(t, in)
}

package vfs_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mmrun/mmrun/vfs"
)

func TestMappingKeepsNoDescriptor(t *testing.T) {
	dir := t.TempDir()
	descriptors := func() (n int) {
		for _, e := range must[[]os.DirEntry](t)(os.ReadDir("/proc/self/fd")) {
			to, err := os.Readlink("/proc/self/fd/" + e.Name())
			if err == nil && strings.HasPrefix(to, dir) {
				n++
			}
		}
		return n
	}
	f := written(t, filepath.Join(dir, "f"), 4096)
	m := must[vfs.Mapping](t)(f.MapShared(4096))
	if descriptors() != 1 {
		t.Fatalf("%d descriptors while the file is open", descriptors())
	}
	ok(t, f.Close())
	if n := descriptors(); n != 0 {
		t.Errorf("%d descriptors after it was closed", n)
	}
	ok(t, m.Unmap())
}

// failingDisk is a file system whose disk has fewer blocks than it says: break takes the rest, and
// from then on what is written back to a new block fails.
func failingDisk(t *testing.T) (root string, breakIt func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a file system")
	}
	if _, err := exec.LookPath("mkfs.ext4"); err != nil {
		t.Skip("needs mkfs.ext4 (Debian package e2fsprogs)")
	}
	below, root := t.TempDir(), t.TempDir()
	if err := unix.Mount("mmrun-test", below, "tmpfs", 0, "size=8m"); err != nil {
		t.Skipf("mounting a file system is not allowed here: %v", err)
	}
	t.Cleanup(func() { ok(t, unix.Unmount(below, 0)) })
	image := filepath.Join(below, "image")
	ok(t, os.WriteFile(image, nil, 0o600))
	ok(t, os.Truncate(image, 32<<20))
	mkfs := exec.Command("mkfs.ext4", "-q", "-O", "^has_journal", image)
	if out, err := mkfs.CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4: %v\n%s", err, out)
	}
	out, err := exec.Command("mount", "-o", "loop", image, root).CombinedOutput()
	if err != nil {
		t.Skipf("mounting an image is not allowed here: %v: %s", err, out)
	}
	t.Cleanup(func() { ok(t, unix.Unmount(root, 0)) })
	return root, func() {
		f := must[*os.File](t)(os.Create(filepath.Join(below, "filler")))
		defer f.Close()
		for _, size := range []int{1 << 20, 4096} {
			err := error(nil)
			for block := make([]byte, size); err == nil; {
				_, err = f.Write(block)
			}
			if !errors.Is(err, unix.ENOSPC) {
				t.Fatal(err)
			}
		}
	}
}

// TestSyncOfAMappingSeesAFailedWrite: the disk fails under a mapping whose file was closed long
// ago. Whoever writes the pages, the next Sync has to tell, also when the kernel has done it
// before.
func TestSyncOfAMappingSeesAFailedWrite(t *testing.T) {
	for name, before := range map[string]func(path string){
		"by Sync itself": func(string) {},
		"before Sync, by somebody else": func(path string) {
			f := must[*os.File](t)(os.OpenFile(path, os.O_RDWR, 0))
			defer f.Close()
			if err := f.Sync(); err == nil {
				t.Fatal("the disk has not failed")
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			root, breakIt := failingDisk(t)
			path := filepath.Join(root, "f")
			const size = 16 << 20 // more than is free below
			f := must[vfs.File](t)(vfs.OS.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600))
			ok(t, f.Allocate(0, size))
			ok(t, f.Sync())
			m := must[vfs.Mapping](t)(f.MapShared(size))
			ok(t, f.Close())
			ok(t, m.Sync())
			breakIt()
			for at := 0; at < size; at += 4096 {
				m.Bytes()[at] = 1
			}
			before(path)
			if err := m.Sync(); err == nil {
				t.Error("the sync has not seen that the disk failed")
			} else if !strings.Contains(err.Error(), path) {
				t.Errorf("the error does not name the file: %v", err)
			}
			ok(t, m.Unmap())
		})
	}
}

// BenchmarkSync compares the sync of a mapping whose file is closed with that of the file, one
// store before each. They take turns on files of 8 MiB; the figures are medians.
func BenchmarkSync(b *testing.B) {
	const size = 8 << 20
	dir := b.TempDir()
	var syncs [2]func() error
	var bytes [2][]byte
	for i := range syncs {
		f := written(b, filepath.Join(dir, fmt.Sprint(i)), size)
		ok(b, f.Sync())
		m := must[vfs.Mapping](b)(f.MapShared(size))
		syncs[i], bytes[i] = f.Sync, m.Bytes()
		if i == 1 {
			ok(b, f.Close())
			syncs[i] = m.Sync
			defer m.Unmap()
			continue
		}
		defer f.Close()
		defer m.Unmap()
	}
	var took [2][]time.Duration
	for at := 0; b.Loop(); at = (at + 100) % size {
		for i := range syncs {
			start := time.Now()
			bytes[i][at]++
			ok(b, syncs[i]())
			took[i] = append(took[i], time.Since(start))
		}
	}
	for i, what := range []string{"µs/file", "µs/mapping"} {
		slices.Sort(took[i])
		b.ReportMetric(float64(took[i][len(took[i])/2].Microseconds()), what)
	}
}

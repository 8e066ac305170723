//go:build unix

package vfs_test

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/mmrun/mmrun/vfs"
	"github.com/mmrun/mmrun/vfs/faultfs"
)

// sparse is a file of 1 GiB with 64 KiB of data at 128 MiB; it skips where there are no holes.
func sparse(t *testing.T) (f vfs.File, blocks func() int64) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "f")
	f = must[vfs.File](t)(vfs.OS.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600))
	t.Cleanup(func() { f.Close() })
	ok(t, f.Truncate(1<<30))
	must[int](t)(f.WriteAt(bytes.Repeat([]byte("x"), 64<<10), 128<<20))
	blocks = func() int64 {
		fi := must[fs.FileInfo](t)(f.OSFile().Stat())
		return fi.Sys().(*syscall.Stat_t).Blocks * 512
	}
	if blocks() > 1<<20 {
		t.Skip("the file system knows no holes")
	}
	return f, blocks
}

func TestNextDataSkipsHoles(t *testing.T) {
	f, _ := sparse(t)
	const data, size = 128 << 20, 1 << 30
	for _, c := range []struct{ offset, start, end int64 }{
		{0, data, data + 64<<10},
		{data + 4096, data + 4096, data + 64<<10},
		{data + 64<<10, size, size},
		{size, size, size},
		{size + 1, size, size},
	} {
		start, end, err := vfs.NextData(f, c.offset)
		if start != c.start || end != c.end || err != nil {
			t.Errorf("at %d: [%d, %d) %v, want [%d, %d)", c.offset, start, end, err, c.start, c.end)
		}
	}
}

func TestRewriteKeepsHoles(t *testing.T) {
	f, blocks := sparse(t)
	ok(t, f.Sync())
	before := blocks()
	ok(t, vfs.Rewrite(f, 1<<30))
	ok(t, f.Sync())
	if after := blocks(); after != before {
		t.Errorf("%d bytes of blocks before, %d after", before, after)
	}
}

// TestRewriteBringsBackWhatAFailedSyncDropped: without Rewrite the second Sync writes nothing.
func TestRewriteBringsBackWhatAFailedSyncDropped(t *testing.T) {
	for _, rewrite := range []bool{false, true} {
		root := t.TempDir()
		path := filepath.Join(root, "f")
		old := written(t, path, 700_000) // more than one chunk
		ok(t, old.Close())
		rec := must[*faultfs.Recorder](t)(faultfs.NewRecorder(root))
		defer rec.Close()
		f := must[vfs.File](t)(rec.FS().OpenFile(path, os.O_RDWR, 0))
		defer f.Close()
		want := bytes.Repeat([]byte("n"), 700_000)
		must[int](t)(f.WriteAt(want, 0))
		rec.FailSync = func(*faultfs.Op) error { return syscall.EIO }
		if f.Sync() == nil {
			t.Fatal("the sync has not failed")
		}
		rec.FailSync = nil
		if rewrite {
			ok(t, vfs.Rewrite(f, 700_000))
		}
		ok(t, f.Sync())
		var left *faultfs.Image
		rec.Before = func(*faultfs.Op) { left = rec.CutNothing() }
		rec.Point()
		if durable := bytes.Equal(left.Files["f"], want); durable != rewrite {
			t.Errorf("rewritten: %t, durable: %t", rewrite, durable)
		}
	}
}

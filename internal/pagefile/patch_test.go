package pagefile

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/mmrun/mmrun/internal/testkit/scratch"
	"github.com/mmrun/mmrun/vfs"
)

// checksumsOf makes f, which is empty, a file of checksums. It is not closed by a Release.
func checksumsOf(t interface{ Fatal(...any) }, f vfs.File) *Checksums {
	c := NewChecksums(func() (vfs.File, error) { return openAgain{f}, nil })
	if err := c.Create(stamp); err != nil {
		t.Fatal(err)
	}
	return c
}

// openAgain is a file that can be opened again after it was closed.
type openAgain struct{ vfs.File }

func (openAgain) Close() error { return nil }

func contents(t interface{ Fatal(...any) }, f vfs.File) []byte {
	b, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// countingFile counts reads and writes and notes the longest write.
type countingFile struct {
	vfs.File
	reads, writes, syncs, longest int
	offsets                       []int64
}

func (f *countingFile) ReadAt(p []byte, offset int64) (int, error) {
	f.reads++
	return f.File.ReadAt(p, offset)
}

func (f *countingFile) Sync() error {
	f.syncs++
	return f.File.Sync()
}

func (f *countingFile) WriteAt(p []byte, offset int64) (int, error) {
	f.writes++
	f.longest = max(f.longest, len(p))
	f.offsets = append(f.offsets, offset)
	return f.File.WriteAt(p, offset)
}

// However patches overlap, cross pages and are flushed in between, the file and its checksums are
// those of a slice that took the same patches.
func TestPatchesMergeByPage(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		const size = 40 * PageSize
		file, sumsFile := scratch.File(t, dir, "memory"), scratch.File(t, dir, "sums")
		if err := file.Truncate(size); err != nil {
			t.Fatal(err)
		}
		sums := checksumsOf(t, sumsFile)
		p := NewPatcher(file, sums)
		want := make([]byte, size)
		for range rapid.IntRange(1, 30).Draw(t, "patches") {
			at := rapid.IntRange(0, size-1).Draw(t, "offset")
			n := rapid.OneOf(rapid.IntRange(1, 64), rapid.IntRange(1, 3*PageSize)).Draw(t, "length")
			data := bytes.Repeat([]byte{rapid.Byte().Draw(t, "byte")}, min(n, size-at))
			if err := p.Patch(uint64(at), data); err != nil {
				t.Fatal(err)
			}
			copy(want[at:], data)
			if rapid.IntRange(0, 5).Draw(t, "flush") == 0 {
				if err := p.Flush(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := p.Flush(); err != nil {
			t.Fatal(err)
		}
		got := contents(t, file)
		if !bytes.Equal(got, want) {
			t.Error("the file is not what was patched")
		}
		wrong := func(page uint32) { t.Errorf("page %d has a wrong checksum", page) }
		if err := Verify(bytes.NewReader(got), sumsFile, size, wrong); err != nil {
			t.Fatal(err)
		}
	})
}

// A page that is named a thousand times is read and written once, a page that is replaced is not
// read, and neighbours are written together, up to a bound.
func TestPatcherReadsAndWritesEachPageOnce(t *testing.T) {
	file := &countingFile{File: scratch.File(t, t.TempDir(), "memory")}
	p := NewPatcher(file, nil)
	for i := range 1000 {
		if err := p.Patch(uint64(5*PageSize+i%PageSize), []byte{byte(i)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Patch(6*PageSize, make([]byte, (patchRun+10)*PageSize)); err != nil {
		t.Fatal(err)
	}
	if file.writes > 0 {
		t.Error("written before Flush")
	}
	if err := p.Flush(); err != nil {
		t.Fatal(err)
	}
	if file.reads != 1 {
		t.Errorf("%d reads, want 1: of the page that is patched in part", file.reads)
	}
	if file.writes != 2 || file.longest != patchRun*PageSize || !slices.IsSorted(file.offsets) {
		t.Errorf("%d writes at %d, the longest of %d bytes; want 2 in order, at most %d long",
			file.writes, file.offsets, file.longest, patchRun*PageSize)
	}
	if p.Pages != patchRun+11 || p.Bytes != p.Pages*PageSize {
		t.Errorf("counts %d pages and %d bytes, want %d pages", p.Pages, p.Bytes, patchRun+11)
	}
	if err := p.Flush(); err != nil || file.writes != 2 {
		t.Errorf("a second Flush: %d writes more, %v", file.writes-2, err)
	}
}

// A Patcher holds a bounded number of pages, and writes what it holds when it would be more.
func TestPatcherIsBounded(t *testing.T) {
	file := &countingFile{File: scratch.File(t, t.TempDir(), "memory")}
	p := NewPatcher(file, nil)
	const pages = 2*patchPages + 100
	for i := range pages {
		if err := p.Patch(uint64(i)*2*PageSize, fmt.Appendf(nil, "page %d", i)); err != nil {
			t.Fatal(err)
		}
		if len(p.pages) > patchPages {
			t.Fatalf("holds %d pages, %d are the bound", len(p.pages), patchPages)
		}
	}
	if err := p.Flush(); err != nil {
		t.Fatal(err)
	}
	got := contents(t, file)
	for i := range pages {
		want := fmt.Sprintf("page %d", i)
		if at := i * 2 * PageSize; string(got[at:at+len(want)]) != want {
			t.Fatalf("at %d: %q, want %q", at, got[at:at+len(want)], want)
		}
	}
}

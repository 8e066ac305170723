package vfs_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/mmrun/mmrun/vfs"
)

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// written is a new file of length bytes, all of them 'o'.
func written(t testing.TB, path string, length int) vfs.File {
	t.Helper()
	f := must[vfs.File](t)(vfs.OS.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600))
	must[int](t)(f.WriteAt(bytes.Repeat([]byte("o"), length), 0))
	return f
}

func TestMappingOutlivesItsFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	f := written(t, path, 8192)
	m := must[vfs.Mapping](t)(f.MapShared(8192))
	ok(t, f.Close())
	if err := f.Close(); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("closed twice: %v", err)
	}
	m.Prefault(0, 1<<30) // no more than there is
	m.Bytes()[5000] = 'n'
	ok(t, m.Sync())
	if b := must[[]byte](t)(os.ReadFile(path)); len(b) != 8192 || b[5000] != 'n' || b[0] != 'o' {
		t.Error("the file does not hold what was stored")
	}
	ok(t, m.Unmap())
}

func TestMappingLargerThanItsFileIsRefused(t *testing.T) {
	f := written(t, filepath.Join(t.TempDir(), "f"), 4096)
	defer f.Close()
	if m, err := f.MapShared(4097); err == nil || m != nil {
		t.Errorf("%v, %v", m, err)
	}
}

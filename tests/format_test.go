package tests

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/fsck"
)

// A small state of each version of the format is kept in testdata/states. It opens, or it is
// refused with both versions in the message and stays as it is. A state of the present version is
// added when the version changes.
func TestStatesOfEachFormatVersion(t *testing.T) {
	for name, want := range map[string]struct {
		seq     uint64 // 0: it is refused
		check   string // a function of the guest, without parameters
		result  uint64
		refusal string
	}{
		"1-atomic":        {refusal: "format version 1, this program reads version 2"},
		"1-continuous":    {refusal: "format version 1, this program reads version 2"},
		"2-atomic":        {seq: 2, check: "size", result: 16},
		"2-continuous":    {seq: 2, check: "size", result: 16},
		"2-atomic-killed": {seq: 3, check: "get", result: 2},
	} {
		t.Run(name, func(t *testing.T) {
			dir := unpack(t, filepath.Join("..", "testdata", "states", name+".tar.gz"))
			before := readSnapshot(t, dir)
			in, err := mmrun.Open(ctx, newRuntime(t), dir, nil)
			if want.seq == 0 {
				if !errors.Is(err, mmrun.ErrUnsupported) ||
					!strings.Contains(err.Error(), want.refusal) {
					t.Errorf("%v, want ErrUnsupported and %q", err, want.refusal)
				}
				after := readSnapshot(t, dir)
				for file, content := range before {
					if string(after[file]) != string(content) && file != "lock" {
						t.Errorf("%s has been changed", file)
					}
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := in.Seq(); got != want.seq {
				t.Errorf("commit %d, want %d", got, want.seq)
			}
			if got := call(t, in, want.check); got != want.result {
				t.Errorf("%s gave %d, want %d", want.check, got, want.result)
			}
			closeInstance(t, in)
			if v, err := fsck.Verify(dir); err != nil || !v.Sound {
				t.Errorf("%+v, %v", v, err)
			}
		})
	}
}

// unpack gives the one directory that is in an archive.
func unpack(t *testing.T, archive string) (dir string) {
	t.Helper()
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return dir
		}
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(root, filepath.Clean("/"+h.Name))
		if h.Typeflag == tar.TypeDir {
			dir = path
			err = os.Mkdir(path, 0o700)
		} else {
			var content []byte
			if content, err = io.ReadAll(r); err == nil {
				err = os.WriteFile(path, content, 0o600)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

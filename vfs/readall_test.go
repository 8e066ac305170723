package vfs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

func TestReadAllReadsUpToItsLimit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	for _, size := range []int{0, 1, 1<<20 - 1, 1 << 20, 1<<20 + 1, 5<<20 + 7} {
		want := bytes.Repeat([]byte("0123456"), size/7+1)[:size]
		if err := os.WriteFile(path, want, 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := ReadAll(OS, path, int64(size)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes: got %d, %v", size, len(got), err)
		}
		if size == 0 {
			continue
		}
		_, err := ReadAll(OS, path, int64(size)-1)
		if !errors.Is(err, ErrTooLarge) || !strings.Contains(err.Error(), fmt.Sprint(size)) {
			t.Errorf("%d bytes and a limit of one less: %v", size, err)
		}
	}
}

// A file that claims to be huge costs nothing, and one that becomes shorter is no error.
func TestReadAllDoesNotBelieveALength(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte("wasm"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 1<<40); err != nil {
		t.Skip(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := ReadAll(OS, path, 1<<30)
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; !errors.Is(err, ErrTooLarge) || took > 1<<16 {
		t.Errorf("%v, %d bytes of memory", err, took)
	}
	f, err := OS.OpenFile(path, os.O_RDWR, 0)
	if err == nil {
		err = f.Truncate(4)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got, err := ReadAll(lying{OS, 1 << 40}, path, 1<<40)
	if err != nil || string(got) != "wasm" {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// lying is a file system whose files say that they are longer than they are.
type lying struct {
	FS
	size int64
}

type liar struct {
	File
	size int64
}

func (l lying) OpenFile(path string, flag int, perm os.FileMode) (File, error) {
	f, err := l.FS.OpenFile(path, flag, perm)
	return liar{f, l.size}, err
}

func (l liar) Size() (int64, error) { return l.size, nil }

// An error that stands for a limit says what to do, and stays what it is.
func TestLimitsOfTheMachineAreExplained(t *testing.T) {
	for errno, word := range map[syscall.Errno]string{
		syscall.EMFILE: "ulimit -n", syscall.ENFILE: "fs.file-max", syscall.ENOSPC: "make room",
		syscall.EDQUOT: "quota raised", syscall.EROFS: "remount", syscall.EFBIG: "ulimit -f",
	} {
		plain := &os.PathError{Op: "open", Path: "x/memory", Err: errno}
		for range 2 { // explained twice, said once
			err := Explain(Explain(plain))
			var path *os.PathError
			if !errors.Is(err, errno) || !errors.As(err, &path) || path.Path != "x/memory" {
				t.Errorf("%v became %#v", errno, err)
			}
			if n := strings.Count(err.Error(), word); n != 1 ||
				!strings.HasPrefix(err.Error(), plain.Error()) {
				t.Errorf("%v", err)
			}
		}
	}
	for _, err := range []error{nil, os.ErrNotExist, syscall.EIO} {
		if got := Explain(err); got != err {
			t.Errorf("%v became %v", err, got)
		}
	}
}

//go:build unix

package vfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// flags are the ways in which files of a state are opened.
var flags = []int{
	os.O_RDONLY,
	os.O_WRONLY,
	os.O_RDWR,
	os.O_RDWR | os.O_CREATE,
	os.O_RDWR | os.O_CREATE | os.O_TRUNC,
	os.O_RDWR | os.O_CREATE | os.O_EXCL,
}

func TestOnlyRegularFilesAreOpened(t *testing.T) {
	for what, put := range map[string]func(path, outside string) error{
		"a link":      func(path, outside string) error { return os.Symlink(outside, path) },
		"a dead link": func(path, outside string) error { return os.Symlink(outside+".not", path) },
		"a pipe":      func(path, _ string) error { return unix.Mkfifo(path, 0o600) },
		"a directory": func(path, _ string) error { return os.Mkdir(path, 0o700) },
		"a device": func(path, _ string) error {
			return unix.Mknod(path, unix.S_IFCHR|0o600,
				1<<8|3)
		},
	} {
		t.Run(what, func(t *testing.T) {
			root := t.TempDir()
			path, outside := filepath.Join(root, "file"), filepath.Join(root, "outside")
			if err := os.WriteFile(outside, []byte("precious"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := put(path, outside); errors.Is(err, fs.ErrPermission) {
				t.Skip(err)
			} else if err != nil {
				t.Fatal(err)
			}
			for _, flag := range flags {
				done := beside(func() error {
					f, err := OS.OpenFile(path, flag, FilePerm)
					if err == nil {
						f.Close()
					}
					return err
				})
				select {
				case err := <-done:
					if !errors.Is(err, ErrNotRegular) {
						t.Errorf("flags %#x: %v, want ErrNotRegular", flag, err)
					}
				case <-time.After(10 * time.Second):
					t.Fatalf("flags %#x: it hangs", flag)
				}
			}
			if got, err := os.ReadFile(outside); err != nil || string(got) != "precious" {
				t.Errorf("the file outside holds %q, %v", got, err)
			}
			if _, err := os.Lstat(outside + ".not"); err == nil {
				t.Error("a file was made outside")
			}
		})
	}
}

// beside runs fn beside the test, so that the test can give up on it.
func beside(fn func() error) <-chan error {
	done := make(chan error, 1)
	go func() { done <- fn() }()
	return done
}

// Between the look and the opening a file may be replaced by a link.
func TestLinkIsNotFollowedByTheOpeningItself(t *testing.T) {
	root := t.TempDir()
	path, outside := filepath.Join(root, "file"), filepath.Join(root, "outside")
	if err := os.WriteFile(outside, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	defer func() {
		close(stop)
		<-stopped
	}()
	go func() {
		defer close(stopped)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			next := fmt.Sprint(path, ".", i)
			if i%2 == 0 {
				_ = os.Symlink(outside, next)
			} else {
				_ = os.WriteFile(next, nil, 0o600)
			}
			_ = os.Rename(next, path)
		}
	}()
	opened := 0
	for range 5000 {
		f, err := OS.OpenFile(path, os.O_RDWR, 0)
		if errors.Is(err, ErrNotRegular) || errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		opened++
		if size, err := f.Size(); err != nil || size > 0 {
			t.Fatalf("opened what lies outside: %d bytes, %v", size, err)
		}
		f.Close()
	}
	if opened == 0 {
		t.Error("nothing was ever opened")
	}
}

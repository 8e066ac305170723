package statedir

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// A program that is being started has a copy of every descriptor for a moment, close-on-exec or
// not. The lock of a state that is closed at that moment must be free nevertheless.
func TestLockEndsWithClose(t *testing.T) {
	dir := t.TempDir()
	lock, err := Acquire(dir, Boot())
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range openOn(t, filepath.Join(dir, LockName)) {
		copied, err := unix.Dup(fd)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(copied)
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	if lock, err = Acquire(dir, Boot()); err != nil {
		t.Fatal(err)
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
}

// openOn lists the descriptors of this process that are open on path.
func openOn(t *testing.T, path string) []int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	var fds []int
	for _, e := range entries {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && to == path {
			fd, err := strconv.Atoi(e.Name())
			if err != nil {
				t.Fatal(err)
			}
			fds = append(fds, fd)
		}
	}
	if len(fds) == 0 {
		t.Fatalf("no descriptor is open on %s", path)
	}
	return fds
}

// Package scratch gives tests directories in memory: thousands of states are opened there, and what
// a disk does is not the question.
package scratch

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const place, prefix = "/dev/shm", "mmrun-test-"

// Dir is a new directory in memory where there is such a thing, and on the disk elsewhere. It is
// removed with the test, or, if the test's process is killed, by the next one that asks for a
// directory.
func Dir(t testing.TB) string {
	t.Helper()
	leftOver, _ := filepath.Glob(filepath.Join(place, prefix+"*"))
	for _, dir := range leftOver {
		pid, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), prefix), "-")
		if _, err := os.Stat(filepath.Join("/proc", pid)); errors.Is(err, fs.ErrNotExist) {
			_ = os.RemoveAll(dir)
		}
	}
	dir, err := os.MkdirTemp(place, fmt.Sprintf("%s%d-", prefix, os.Getpid()))
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

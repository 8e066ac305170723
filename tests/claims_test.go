//go:build linux

package tests

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/fsck"
	"github.com/mmrun/mmrun/internal/testkit/guests"
)

// What a file claims to hold costs nothing: neither its length, nor what a header with a valid
// checksum says, makes anybody allocate memory or blocks, or read for long, beyond what there is.
// The answer is an error, or the state.
func TestClaimsCostNothing(t *testing.T) {
	rt := newRuntime(t)
	base := filepath.Join(t.TempDir(), "s")
	in := open(t, rt, base, guests.Load(t, "stores"), mmrun.WithWALSize(mmrun.MinWALSize))
	call(t, in, "one", 8, 1)
	closeInstance(t, in)
	in = open(t, rt, base, nil)
	call(t, in, "one", 16, 2)
	files := readSnapshot(t, base) // with a record in the log
	want := content(t, in)
	closeInstance(t, in)

	const terabyte = 1 << 40
	long := func(name string) func(dir string) error {
		return func(dir string) error {
			path := filepath.Join(dir, name)
			if os.Truncate(path, terabyte) != nil {
				return os.Truncate(path, 30<<30)
			}
			return nil
		}
	}
	// header makes a segment say something else of itself, with a valid checksum.
	header := func(offset int, value uint64) func(dir string) error {
		return func(dir string) error {
			path := filepath.Join(dir, "wal.0")
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			binary.LittleEndian.PutUint64(b[offset:], value)
			sum := crc32.Checksum(b[:508], crc32.MakeTable(crc32.Castagnoli))
			binary.LittleEndian.PutUint32(b[508:], sum)
			if err := os.WriteFile(path, b, 0o600); err != nil {
				return err
			}
			return os.Truncate(path, 30<<30)
		}
	}
	claims := map[string]func(dir string) error{
		"a segment of 30 GiB":            header(32, 30<<30),
		"a full size of 30 GiB":          header(72, 30<<30),
		"commit 2^64-1":                  header(24, 1<<64-1),
		"commit 2^64-1 known as durable": header(56, 1<<64-1),
		"commit 2^63":                    header(24, 1<<63),
	}
	for _, name := range []string{"module.wasm", "memory", "memory.sums", "globals", "wal.0",
		"wal.1", "lock"} {
		claims[name+" of a terabyte"] = long(name)
	}
	for what, claim := range claims {
		t.Run(what, func(t *testing.T) {
			for who, ask := range map[string]func(dir string) error{
				"inspect": func(dir string) error { _, err := fsck.Inspect(dir); return err },
				"verify":  func(dir string) error { _, err := fsck.Verify(dir); return err },
				"repair":  func(dir string) error { _, err := fsck.Repair(dir, true); return err },
				"open": func(dir string) error {
					in, err := mmrun.Open(ctx, rt, dir, nil)
					if err != nil {
						return err
					}
					if got := content(t, in); got != want {
						return fmt.Errorf("it opens with %s, and had %s", got, want)
					}
					return in.Close(ctx)
				},
			} {
				dir := filepath.Join(t.TempDir(), "s")
				files.write(t, dir)
				if err := claim(dir); err != nil {
					t.Skip(err)
				}
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				err := ask(dir)
				runtime.ReadMemStats(&after)
				allocated, blocks := after.TotalAlloc-before.TotalAlloc, blocksOf(t, dir)
				t.Logf("%s: %v (%d KiB of memory, %d of blocks)", who, err, allocated>>10,
					blocks>>10)
				if allocated > 200<<20 {
					t.Errorf("%s: %d MiB of memory", who, allocated>>20)
				}
				if blocks > 20<<20 {
					t.Errorf("%s: %d MiB of the disk", who, blocks>>20)
				}
			}
		})
	}
}

// blocksOf is what the files of a state and those that a repair has put beside it take of the disk.
func blocksOf(t *testing.T, dir string) (n int64) {
	t.Helper()
	for _, path := range append(glob(t, dir+"*/*"), glob(t, dir+"*")...) {
		var s syscall.Stat_t
		if err := syscall.Lstat(path, &s); err != nil {
			t.Fatal(err)
		}
		n += s.Blocks * 512
	}
	return n
}

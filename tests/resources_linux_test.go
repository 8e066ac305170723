package tests

import (
	"bufio"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/internal/testkit/guests"
)

// A compiled module lives as long as an instance of it: a process that has opened many different
// ones holds the code of none when all are closed.
func TestCompiledCodeIsReleased(t *testing.T) {
	rt := newRuntime(t)
	wasm := guests.Load(t, "btree")
	run := func(i int) {
		// A custom section makes another module of it.
		name := fmt.Sprintf("n%04d", i)
		other := append(append(append([]byte{}, wasm...), 0, byte(len(name)+1), byte(len(name))),
			name...)
		in, err := mmrun.Open(ctx, rt, filepath.Join(t.TempDir(), "s"), other)
		if err != nil {
			t.Fatal(err)
		}
		closeInstance(t, in)
	}
	for i := range 3 {
		run(i)
	}
	before := codeBytes(t)
	const modules = 40
	for i := range modules {
		run(100 + i)
	}
	after := codeBytes(t)
	t.Logf("executable memory: %d KiB before, %d KiB after %d more modules", before>>10, after>>10,
		modules)
	if after > before+before/4 {
		t.Errorf("%d modules have left %d KiB of code", modules, (after-before)>>10)
	}
}

// A process can hold thousands of instances: an idle one takes a descriptor, the lock, and a
// mapping for each of memory, globals and the two segments of the log. What the machine allows
// follows from that (docs/limits.md).
func TestIdleInstancesTakeFewDescriptorsAndMappings(t *testing.T) {
	const instances, mostDescriptors, mostMappings = 60, 2, 5
	for _, mode := range modes {
		t.Run(mode.String(), func(t *testing.T) {
			module, err := mmrun.Compile(ctx, newRuntime(t), guests.Load(t, "cmap"))
			if err != nil {
				t.Fatal(err)
			}
			root := t.TempDir()
			openOne := func(name string) {
				in, err := module.Open(ctx, filepath.Join(root, name), mmrun.WithMode(mode))
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { closeInstance(t, in) })
				call(t, in, "put", 1, 1)
				if err := in.Checkpoint(ctx); err != nil {
					t.Fatal(err)
				}
			}
			openOne("first") // with what all of them share
			descriptors, mappings := filesIn(t, "/proc/self/fd"), linesOf(t, "/proc/self/maps")
			for i := range instances {
				openOne(fmt.Sprint(i))
			}
			descriptors = filesIn(t, "/proc/self/fd") - descriptors
			mappings = linesOf(t, "/proc/self/maps") - mappings
			t.Logf("%d instances: %d descriptors, %d mappings", instances, descriptors, mappings)
			if descriptors > mostDescriptors*instances {
				t.Errorf("%d descriptors for %d instances", descriptors, instances)
			}
			// Go's heap and the table of functions of each instance may need some more.
			if mappings > mostMappings*instances+20 {
				t.Errorf("%d mappings for %d instances", mappings, instances)
			}
		})
	}
}

func filesIn(t *testing.T, dir string) int {
	t.Helper()
	names, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}

func linesOf(t *testing.T, path string) int {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(text), "\n")
}

// A new state takes little of the disk, as du -sk counts it.
func TestNewStateIsSmall(t *testing.T) {
	for _, mode := range modes {
		dir := filepath.Join(t.TempDir(), "s")
		in := open(t, newRuntime(t), dir, guests.Load(t, "counter"), mmrun.WithMode(mode))
		call(t, in, "inc")
		closeInstance(t, in)
		used := int64(0)
		err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			var s syscall.Stat_t
			if err == nil {
				err = syscall.Lstat(path, &s)
			}
			used += s.Blocks * 512
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%v: %d KiB", mode, used>>10)
		if used > 128<<10 {
			t.Errorf("%v: a new counter takes %d KiB", mode, used>>10)
		}
	}
}

// codeBytes is how much executable memory the process has that is no file's.
func codeBytes(t *testing.T) (n int64) {
	for range 3 { // code is unmapped by finalizers
		runtime.GC()
	}
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		var from, to int64
		if len(fields) == 5 && strings.Contains(fields[1], "x") {
			fmt.Sscanf(fields[0], "%x-%x", &from, &to)
			n += to - from
		}
	}
	return n
}

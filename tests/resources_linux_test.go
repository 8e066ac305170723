package tests

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
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
		other := append(append(append([]byte{}, wasm...), 0, byte(len(name)+1), byte(len(name))), name...)
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
	t.Logf("executable memory: %d KiB before, %d KiB after %d more modules", before>>10, after>>10, modules)
	if after > before+before/4 {
		t.Errorf("%d modules have left %d KiB of code", modules, (after-before)>>10)
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

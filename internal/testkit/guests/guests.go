// Package guests gives tests the wasm modules of testdata: those committed as binaries, and the Go
// guests, which are built when they are first asked for.
package guests

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Load returns the module testdata/NAME.wasm, for instance "counter" or "bad/externref".
func Load(tb testing.TB, name string) []byte {
	tb.Helper()
	wasm, err := os.ReadFile(Path(tb, name))
	if err != nil {
		tb.Fatalf("guest %s: %v", name, err)
	}
	return wasm
}

// Path returns the absolute path of testdata/NAME.wasm. Copy the file to a directory of the test's
// own before running the mmrun command on it: the command would put the state beside it.
func Path(tb testing.TB, name string) string {
	tb.Helper()
	return filepath.Join(testdata(tb), filepath.FromSlash(name)+".wasm")
}

// Names returns the names of all modules in testdata that mmrun can keep, sorted, as Load takes
// them. Go guests are not among them.
func Names(tb testing.TB) []string {
	tb.Helper()
	return names(tb, "")
}

// BadNames returns the names of all files in testdata/bad, which mmrun must refuse, sorted, as Load
// takes them.
func BadNames(tb testing.TB) []string {
	tb.Helper()
	return names(tb, "bad/")
}

func names(tb testing.TB, prefix string) []string {
	tb.Helper()
	entries, err := os.ReadDir(filepath.Join(testdata(tb), filepath.FromSlash(prefix)))
	if err != nil {
		tb.Fatalf("guests: %v", err)
	}
	var names []string
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), ".wasm"); ok {
			names = append(names, prefix+name)
		}
	}
	slices.Sort(names)
	return names
}

// testdata finds the root module's testdata directory from the working directory of the test, which
// is the directory of the package under test. A nested module (bench/) has a go.mod of its own, so
// the directory must hold this package too.
func testdata(tb testing.TB) string {
	tb.Helper()
	dir, err := os.Getwd()
	if err != nil {
		tb.Fatalf("guests: %v", err)
	}
	for d := dir; ; d = filepath.Dir(d) {
		if isFile(filepath.Join(d, "go.mod")) && isFile(filepath.Join(d, "internal", "testkit",
			"guests", "guests.go")) {
			return filepath.Join(d, "testdata")
		}
		if d == filepath.Dir(d) {
			tb.Fatalf("guests: no testdata above %s: the test must run inside a checkout of the "+
				"module", dir)
		}
	}
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

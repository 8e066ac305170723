package guests

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

var (
	buildMu sync.Mutex // one build at a time in this process; guards built
	built   = map[string][]byte{}
)

// Go returns the Go guest in testdata/NAME, a reactor for WASI preview 1, built by the go command
// on the PATH. It is kept in the user's cache directory under a hash of its source, of the Go
// version and of the way it is built, so that it is built once a machine. Several processes may
// call Go at once. The test is skipped if there is no go command.
func Go(tb testing.TB, name string) []byte {
	tb.Helper()
	buildMu.Lock()
	defer buildMu.Unlock()
	if wasm, ok := built[name]; ok {
		return bytes.Clone(wasm)
	}
	if _, err := exec.LookPath("go"); err != nil {
		tb.Skipf("guest %s is built by the test and needs the go command (https://go.dev/dl): %v",
			name, err)
	}
	wasm, err := build(filepath.Join(testdata(tb), name))
	if err != nil {
		tb.Fatalf("guest %s: %v", name, err)
	}
	built[name] = wasm
	return bytes.Clone(wasm)
}

// goArgs builds a reactor that is the same in every checkout.
var goArgs = []string{"build", "-buildmode=c-shared", "-trimpath", "-buildvcs=false"}

func build(source string) ([]byte, error) {
	key, err := buildKey(source)
	if err != nil {
		return nil, err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir() // no home directory: rebuilt when the system clears it
	}
	cache = filepath.Join(cache, "mmrun-guests")
	cached := filepath.Join(cache, filepath.Base(source)+"-"+key+".wasm")
	if wasm, err := os.ReadFile(cached); err == nil {
		return wasm, nil
	}

	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, err
	}
	// Other processes see the file whole or not at all: it gets its name when it is complete.
	// Two that build at once do the work twice and rename the same bytes.
	dir, err := os.MkdirTemp(cache, "build-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "guest.wasm")
	if _, err := goCommand(source, append(goArgs, "-o", out, ".")...); err != nil {
		return nil, err
	}
	wasm, err := os.ReadFile(out)
	if err != nil {
		return nil, err
	}
	return wasm, os.Rename(out, cached)
}

// buildKey hashes all that the guest is made of.
func buildKey(source string) (string, error) {
	version, err := goCommand(source, "env", "GOVERSION", "GOEXPERIMENT", "GOWASM")
	if err != nil {
		return "", err
	}
	h := sha256.New()
	fmt.Fprintf(h, "%q %q\n", goArgs, version)
	entries, err := os.ReadDir(source) // sorted by name
	if err != nil {
		return "", err
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".go") {
			continue
		}
		content, err := os.ReadFile(filepath.Join(source, e.Name()))
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%s %d\n", e.Name(), len(content))
		h.Write(content)
	}
	return hex.EncodeToString(h.Sum(nil)[:16]), nil
}

// goCommand runs the go command for wasip1 in dir, untouched by the flags of the test run around
// it.
func goCommand(dir string, args ...string) ([]byte, error) {
	cmd := exec.Command("go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "GOFLAGS=", "GOWORK=off",
		"CGO_ENABLED=0")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, stderr.Bytes())
	}
	return out, nil
}

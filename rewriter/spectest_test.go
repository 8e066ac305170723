package rewriter

import (
	"errors"
	"io/fs"
	"iter"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
)

const allFeatures = api.CoreFeaturesV2 | experimental.CoreFeaturesThreads |
	experimental.CoreFeaturesTailCall |
	experimental.CoreFeaturesExtendedConst | experimental.CoreFeaturesExceptionHandling |
	experimental.CoreFeaturesTypedFunctionReferences

// TestSpecModules rewrites each module of the official test suite that wazero carries. What
// compiles must compile after the rewrite too, or be refused with a reason.
func TestSpecModules(t *testing.T) {
	p := newProperties(t)
	var invalid, rewritten, untouched, refused int
	reasons := map[string]int{}
	for path := range specModules(t) {
		wasm, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if p.compile(wasm) != nil {
			invalid++
			_, _, _ = Rewrite(wasm, Options{}) // must not panic
			continue
		}
		out, info, err := Rewrite(wasm, Options{})
		var u *UnsupportedError
		switch {
		case errors.As(err, &u):
			refused++
			reason, _, _ := strings.Cut(strings.Map(dropDigits, u.Reason), "(")
			reasons[reason]++
			continue
		case err != nil:
			t.Errorf("%s: %v", path, err)
			continue
		}
		rewritten++
		if len(out) == len(wasm)+len(markerOf(info)) {
			untouched++
		}
		if err := p.compile(out); err != nil {
			t.Errorf("%s: rewritten: %v", path, err)
			continue
		}
	}
	t.Logf("%d modules rewritten (%d of them only marked), %d refused, %d do not compile in the "+
		"first place",
		rewritten, untouched, refused, invalid)
	for reason, n := range reasons {
		t.Logf("%4d refused: %s", n, reason)
	}
	if rewritten < 1000 {
		t.Errorf("only %d modules", rewritten)
	}
}

func dropDigits(r rune) rune {
	if '0' <= r && r <= '9' {
		return -1
	}
	return r
}

// specModules gives the path of each module of the official test suite, as wazero carries it.
func specModules(t testing.TB) iter.Seq[string] {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}",
		"github.com/tetratelabs/wazero").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	root := filepath.Join(strings.TrimSpace(string(out)), "internal", "integration_test",
		"spectest")
	return func(yield func(string) bool) {
		err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
			if err == nil && strings.HasSuffix(path, ".wasm") && !yield(path) {
				return fs.SkipAll
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

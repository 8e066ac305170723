package rewriter

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
)

const allFeatures = api.CoreFeaturesV2 | experimental.CoreFeaturesThreads | experimental.CoreFeaturesTailCall |
	experimental.CoreFeaturesExtendedConst | experimental.CoreFeaturesExceptionHandling |
	experimental.CoreFeaturesTypedFunctionReferences

// TestSpecModules rewrites each module of the official test suite that wazero carries. What compiles must compile after
// the rewrite too, or be refused with a reason.
func TestSpecModules(t *testing.T) {
	dir := wazeroDir(t)
	ctx := context.Background()
	// The interpreter decodes and validates as the compiler does, in a fraction of the time.
	rt := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter().WithCoreFeatures(allFeatures))
	defer rt.Close(ctx)
	var invalid, rewritten, untouched, refused int
	reasons := map[string]int{}
	root := filepath.Join(dir, "internal", "integration_test", "spectest")
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".wasm") {
			return err
		}
		wasm, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		compiled, compileErr := rt.CompileModule(ctx, wasm)
		if compileErr != nil {
			invalid++
			_, _, _ = Rewrite(wasm) // must not panic
			return nil
		}
		compiled.Close(ctx)
		out, info, err := Rewrite(wasm)
		var u *UnsupportedError
		switch {
		case errors.As(err, &u):
			refused++
			reason, _, _ := strings.Cut(strings.Map(dropDigits, u.Reason), "(")
			reasons[reason]++
			return nil
		case err != nil:
			t.Errorf("%s: %v", path, err)
			return nil
		}
		rewritten++
		if len(out) == len(wasm)+len(appendSection(nil, secCustom, marker(info))) {
			untouched++
		}
		if compiled, err = rt.CompileModule(ctx, out); err != nil {
			t.Errorf("%s: rewritten: %v", path, err)
			return nil
		}
		compiled.Close(ctx)
		again, info2, err := Rewrite(out)
		if err != nil || !bytes.Equal(again, out) || !reflect.DeepEqual(info, info2) {
			t.Errorf("%s: rewritten twice: %v\n%+v\n%+v", path, err, info, info2)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d modules rewritten (%d of them only marked), %d refused, %d do not compile in the first place",
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

func wazeroDir(t testing.TB) string {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/tetratelabs/wazero").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	return strings.TrimSpace(string(out))
}

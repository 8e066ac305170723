package rewriter

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestBinariesFitTheirSources builds the modules in testdata anew. With REWRITER_UPDATE=1 it writes
// them.
func TestBinariesFitTheirSources(t *testing.T) {
	if _, err := exec.LookPath("wat2wasm"); err != nil {
		t.Skip("wat2wasm is missing (Debian package: wabt)")
	}
	sources, err := filepath.Glob("testdata/*.wat")
	if err != nil || len(sources) == 0 {
		t.Fatalf("no sources: %v", err)
	}
	for _, source := range sources {
		out, err := exec.Command("wat2wasm", "--debug-names", "--enable-extended-const", "-o",
			"/dev/stdout", source).Output()
		if err != nil {
			t.Errorf("%s: %v", source, err)
			continue
		}
		binary := strings.TrimSuffix(source, ".wat") + ".wasm"
		if os.Getenv("REWRITER_UPDATE") != "" {
			if err := os.WriteFile(binary, out, 0o666); err != nil {
				t.Error(err)
			}
		}
		if got, err := os.ReadFile(binary); err != nil || !bytes.Equal(got, out) {
			t.Errorf("%s is not what %s gives now (run: REWRITER_UPDATE=1 go test -run Binaries "+
				"./rewriter)",
				binary, source)
		}
	}
}

// TestRewrittenModulesAreValid asks another implementation than wazero.
func TestRewrittenModulesAreValid(t *testing.T) {
	if _, err := exec.LookPath("wasm-validate"); err != nil {
		t.Skip("wasm-validate is missing (Debian package: wabt)")
	}
	for _, name := range []string{"state", "tables", "segments", "reread"} {
		out, _, err := Rewrite(readModule(t, name), Options{})
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), name+".wasm")
		if err := os.WriteFile(file, out, 0o666); err != nil {
			t.Fatal(err)
		}
		if message, err := exec.Command("wasm-validate", "--enable-extended-const",
			file).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", name, err, message)
		}
	}
}

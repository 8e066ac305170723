package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/mmrun/mmrun/internal/testkit/guests"
)

// root is the module's directory.
const root = "../.."

var goCode = regexp.MustCompile("(?s)\n```go\n(.*?)```\n")

// buildExample compiles a program of the documents as a user of the module would, and vets it.
func buildExample(t *testing.T, source string) (program string) {
	t.Helper()
	goTool, err := exec.LookPath("go")
	if err != nil {
		t.Skipf("needs the go command: %v", err)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "main.go")
	program = filepath.Join(dir, "program")
	if runtime.GOOS == "windows" {
		program += ".exe"
	}
	if err := os.WriteFile(file, []byte(source), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"build", "-o", program, file}, {"vet", file}} {
		cmd := exec.Command(goTool, args...)
		cmd.Dir = root
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("go %s: %v\n%s\n%s", args[0], err, out, source)
		}
	}
	return program
}

// Each Go program of the README compiles, and prints, run by run, what the README says.
func TestProgramsOfReadmePrintWhatItSays(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	programs := goCode.FindAllSubmatch(readme, -1)
	if len(programs) == 0 {
		t.Fatal("the README has no Go code")
	}
	for _, p := range programs {
		program := buildExample(t, string(p[1]))
		dir := t.TempDir()
		wasm := guests.Load(t, "counter")
		if err := os.WriteFile(filepath.Join(dir, "counter.wasm"), wasm, 0o644); err != nil {
			t.Fatal(err)
		}
		for run := range 2 {
			cmd := exec.Command(program)
			cmd.Dir = dir
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("run %d: %v\n%s", run+1, err, out)
			}
			shown := "    " + strings.ReplaceAll(strings.TrimSpace(string(out)), "\n", "\n    ") +
				"\n"
			if !strings.Contains(string(readme), shown) {
				t.Errorf("run %d prints this, which the README does not show:\n%s", run+1, shown)
			}
		}
	}
}

// The documents speak of commands and flags that there are.
func TestDocumentsNameCommandsAndFlagsThatExist(t *testing.T) {
	a := &app{}
	command := a.rootCommand()
	command.InitDefaultCompletionCmd("x")
	commands, flags := map[string]bool{}, map[string]bool{"json": true, "help": true,
		"version": true}
	for _, c := range command.Commands() {
		commands[c.Name()] = true
		for _, f := range strings.Fields(c.Flags().FlagUsages()) {
			if name, ok := strings.CutPrefix(f, "--"); ok {
				flags[name] = true
			}
		}
	}
	named := regexp.MustCompile("(?m)(?:`|^    |\\$ )mmrun ([a-z]+)\\b")
	flagged := regexp.MustCompile("`(--[a-z-]+)[ `]")
	// These are flags of other tools.
	elsewhere := map[string]bool{"--enable-threads": true, "--export": true, "--target": true}
	for _, file := range []string{"README.md", "docs/guests.md", "docs/reliability.md"} {
		text, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(file)))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range named.FindAllSubmatch(text, -1) {
			if !commands[string(m[1])] {
				t.Errorf("%s: there is no command %s", file, m[0])
			}
		}
		for _, m := range flagged.FindAllSubmatch(text, -1) {
			name := string(m[1])
			if !flags[strings.TrimPrefix(name, "--")] && !elsewhere[name] {
				t.Errorf("%s: there is no flag %s", file, name)
			}
		}
	}
}

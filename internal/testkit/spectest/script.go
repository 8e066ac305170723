// Package spectest reads the official WebAssembly test suite in the form in which wazero's module
// carries it: lists of commands in JSON, and the modules they name. What wazero makes of them is
// not used; the tests of this package run the commands themselves, on modules as they are,
// rewritten, and resumed between every two commands.
package spectest

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
)

// Suite is a directory of scripts and what a runtime must be able to do to run them.
type Suite struct {
	Name     string
	Features api.CoreFeatures
}

// Suites are those of wazero v1.12.0, all of them.
var Suites = []Suite{
	{"v1", api.CoreFeaturesV1},
	{"v2", api.CoreFeaturesV2},
	{"extended-const", api.CoreFeaturesV2 | experimental.CoreFeaturesExtendedConst},
	{"tail-call", api.CoreFeaturesV2 | experimental.CoreFeaturesTailCall},
	{"exception-handling", api.CoreFeaturesV2 | experimental.CoreFeaturesExceptionHandling |
		experimental.CoreFeaturesTailCall | experimental.CoreFeaturesTypedFunctionReferences},
	{"threads", api.CoreFeaturesV2 | experimental.CoreFeaturesThreads},
	{"typed-function-references",
		api.CoreFeaturesV2 | experimental.CoreFeaturesTypedFunctionReferences |
			experimental.CoreFeaturesTailCall},
}

// Script is one file of commands, to be run in order in one runtime.
type Script struct {
	Suite    Suite
	Name     string // without .json
	Commands []Command

	dir string
}

// Command is one step of a script. Type says which of the other fields mean something.
type Command struct {
	Type string `json:"type"`
	Line int    `json:"line"`
	// module, register: the script's name for the module, often empty
	Name       string  `json:"name"`
	Filename   string  `json:"filename"`    // module and the assertions about modules
	As         string  `json:"as"`          // register: the name that imports use
	Action     Action  `json:"action"`      // action and the assertions about calls
	Expected   []Value `json:"expected"`    // assert_return
	ModuleType string  `json:"module_type"` // assertions about modules: "binary" or "text"
	Text       string  `json:"text"`        // what an error should say
}

// IsAssertion tells assertions from the commands that prepare them.
func (c *Command) IsAssertion() bool { return strings.HasPrefix(c.Type, "assert_") }

// Action is a call ("invoke") or the reading of a global ("get").
type Action struct {
	Type   string  `json:"type"`
	Module string  `json:"module"` // empty: the last one
	Field  string  `json:"field"`
	Args   []Value `json:"args"`
}

// Module reads the binary that a command names.
func (s *Script) Module(c *Command) ([]byte, error) {
	return os.ReadFile(filepath.Join(s.dir, c.Filename))
}

// Root is where the suites are in a copy of wazero's source.
func Root(wazero string) string {
	return filepath.Join(wazero, "internal", "integration_test", "spectest")
}

// Host reads the module named spectest that the scripts import from. Its functions print nothing.
func Host(wazero string) ([]byte, error) {
	return os.ReadFile(filepath.Join(Root(wazero), "testdata", "spectest.wasm"))
}

// Load reads all scripts of a suite, sorted by name.
func (s Suite) Load(wazero string) ([]*Script, error) {
	dir := filepath.Join(Root(wazero), s.Name, "testdata")
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("suite %s: no scripts in %s", s.Name, dir)
	}
	var scripts []*Script
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		script := &Script{Suite: s, Name: strings.TrimSuffix(filepath.Base(file), ".json"),
			dir: dir}
		if err := json.Unmarshal(b, script); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		scripts = append(scripts, script)
	}
	return scripts, nil
}

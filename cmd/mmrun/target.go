package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/fsck"
)

const (
	moduleSuffix = ".wasm"
	stateSuffix  = ".state"
)

// target is what a command works on.
type target struct {
	module string // path of the module's file; empty if a state directory was named
	state  string // path of the state directory, which may not exist yet if there is a module
}

func (a *app) target(arg string) (target, error) {
	info, err := os.Stat(arg)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return target{}, missingTarget(arg)
	case err != nil:
		return target{}, err
	case !info.IsDir():
		state := strings.TrimSuffix(arg, moduleSuffix) + stateSuffix
		if a.state != "" {
			state = a.state
		}
		return target{module: arg, state: state}, nil
	case a.state != "":
		return target{}, usagef("--state %s: %s is a directory, thus a state itself; --state "+
			"goes with "+
			"a module", a.state, arg)
	}
	return target{state: arg}, nil
}

func missingTarget(arg string) error {
	if !strings.HasSuffix(arg, moduleSuffix) {
		return fmt.Errorf("%s: there is no such module or state directory", arg)
	}
	state := strings.TrimSuffix(arg, moduleSuffix) + stateSuffix
	if exists, err := fsck.Exists(state); err == nil && exists {
		return fmt.Errorf("module %s: no such file (its state %s can be used without it, as "+
			"TARGET)",
			arg, state)
	}
	return fmt.Errorf("module %s: no such file", arg)
}

// wasm is the module to open the state with, nil for the one kept in it.
func (t target) wasm() ([]byte, error) {
	if t.module == "" {
		return nil, nil
	}
	wasm, err := os.ReadFile(t.module)
	if err != nil {
		return nil, fmt.Errorf("module: %w", err)
	}
	return wasm, nil
}

// code is the module itself, which a state directory keeps, too.
func (t target) code() ([]byte, error) {
	if t.module != "" {
		return t.wasm()
	}
	if err := t.existing(); err != nil {
		return nil, err
	}
	wasm, err := fsck.Module(t.state)
	if err != nil {
		return nil, fmt.Errorf("state %s: %w", t.state, err)
	}
	return wasm, nil
}

// path is where the module is.
func (t target) path() string {
	if t.module != "" {
		return t.module
	}
	return filepath.Join(t.state, "module.wasm")
}

// existing is target for a state that must be there.
func (a *app) existing(arg string) (target, error) {
	t, err := a.target(arg)
	if err == nil {
		err = t.existing()
	}
	return t, err
}

// existing is an error if there is no state yet.
func (t target) existing() error {
	exists, err := fsck.Exists(t.state)
	if err != nil || exists {
		return err
	}
	if t.module != "" {
		return noState{fmt.Errorf("state %s: does not exist yet (mmrun call and mmrun run create "+
			"it)",
			t.state)}
	}
	return noState{fmt.Errorf("state %s: there is no state in the directory", t.state)}
}

// noState is the error of a command that wants a state to be there.
type noState struct{ error }

func (e noState) Unwrap() error { return mmrun.ErrNotExist }

// name is what the guest is told that it is called, the same for a module and its state.
func (t target) name() string {
	if t.module != "" {
		return strings.TrimSuffix(filepath.Base(t.module), moduleSuffix)
	}
	return strings.TrimSuffix(filepath.Base(t.state), stateSuffix)
}

// exactTarget is the check of a command line that is one TARGET.
func exactTarget(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return usagef("%d arguments given, want one TARGET: a module or a state directory "+
			"(usage: %s)",
			len(args), cmd.UseLine())
	}
	return nil
}

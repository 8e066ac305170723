package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"github.com/tetratelabs/wazero/api"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/internal/values"
	"github.com/mmrun/mmrun/rewriter"
)

const funcsHelp = `List the functions that a module exports, with their signatures. No state is
needed, opened or created.

With --json each function is an object in a list:
[{"name":"add","params":["i32","i32"],"results":["i32"]}]
"once" tells of a function that is no event, because it runs once in the life of a state.`

func (a *app) funcsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:               "funcs TARGET",
		Short:             "List the functions that a module exports",
		Long:              funcsHelp,
		Args:              exactTarget,
		ValidArgsFunction: completeTarget,
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := a.target(args[0])
			if err != nil {
				return err
			}
			fs, err := a.functionsOf(cmd.Context(), t)
			if err != nil {
				return err
			}
			return a.printFunctions(fs)
		},
	}
	a.openFlags(cmd)
	return cmd
}

// functions are a module's exported functions by name.
type functions map[string]api.FunctionDefinition

// functionsOf compiles the module of a target: from the cache, if it has been compiled before, and
// into it otherwise.
func (a *app) functionsOf(ctx context.Context, t target) (functions, error) {
	code, err := t.code()
	if err != nil {
		return nil, err
	}
	s := &session{app: a, target: t}
	if err := s.newRuntime(ctx, code); err != nil {
		return nil, err
	}
	defer s.closeRuntime(ctx)
	compiled, err := s.compile(ctx, code)
	if err != nil {
		return nil, fmt.Errorf("module %s: %w", t.path(), err)
	}
	s.noteCache()
	return ownFunctions(compiled.ExportedFunctions()), nil
}

// ownFunctions leaves out what the rewriter has added.
func ownFunctions(all map[string]api.FunctionDefinition) functions {
	for name := range all {
		if strings.HasPrefix(name, rewriter.Reserved) {
			delete(all, name)
		}
	}
	return all
}

func (fs functions) names() []string { return slices.Sorted(maps.Keys(fs)) }

// runsOnce says when a function runs that is no event, or not every time; empty for all others.
func (fs functions) runsOnce(name string) string {
	def := fs[name]
	if len(def.ParamTypes()) > 0 || len(def.ResultTypes()) > 0 {
		return ""
	}
	switch names := def.ExportNames(); {
	case slices.Contains(names, "_initialize"):
		return "when the state is created"
	case slices.Contains(names, "_start"):
		return "as the first event of a state"
	}
	return ""
}

// list writes all functions with their signatures.
func (fs functions) list() string {
	if len(fs) == 0 {
		return "it exports none"
	}
	var b strings.Builder
	b.WriteString("it exports:")
	for _, name := range fs.names() {
		fmt.Fprintf(&b, "\n  %s%s", escapeName(name), mmrun.Signature(fs[name]))
	}
	return b.String()
}

// exported is a function as JSON.
type exported struct {
	Name    string   `json:"name"`
	Params  []string `json:"params"`
	Results []string `json:"results"`
	Once    string   `json:"once,omitempty"`
}

func (a *app) printFunctions(fs functions) error {
	if !a.json {
		w := tabwriter.NewWriter(a.out, 0, 8, 2, ' ', 0)
		for _, name := range fs.names() {
			line := escapeName(name) + "\t" + mmrun.Signature(fs[name])
			if once := fs.runsOnce(name); once != "" {
				line += "\truns once, " + once
			}
			fmt.Fprintln(w, line)
		}
		return w.Flush()
	}
	list := []exported{}
	for _, name := range fs.names() {
		list = append(list, exported{Name: name, Params: typeNames(fs[name].ParamTypes()),
			Results: typeNames(fs[name].ResultTypes()), Once: fs.runsOnce(name)})
	}
	return a.printJSON(list)
}

func typeNames(types []api.ValueType) []string {
	names := make([]string, len(types))
	for i, t := range types {
		names[i] = values.TypeName(t)
	}
	return names
}

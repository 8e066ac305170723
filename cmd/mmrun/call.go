package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mmrun/mmrun"
)

const callHelp = `Call one exported function as one event, commit, and print each result on a line of its own.

The answer is printed when the event survives power loss, unless --sync never is given.
Arguments are read by the function's signature: decimal or 0x integers in the signed or the
unsigned range, floats (also inf, nan, 0x1p-3), a v128 as 0x and 32 hex digits. What follows
FUNC is never taken for a flag.`

func (a *app) callCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "call [flags] TARGET FUNC [ARG...]",
		Short: "Call a function as one event",
		Long:  callHelp,
		Example: `  mmrun call counter.wasm inc
  mmrun call --json math.wasm add 1 -2
  mmrun call counter.state get`,
		DisableFlagsInUseLine: true,
		ValidArgsFunction:     completeTarget,
		RunE:                  func(cmd *cobra.Command, args []string) error { return a.call(cmd, args) },
	}
	a.openFlags(cmd.Flags())
	cmd.Flags().SetInterspersed(false) // so that -5 is an argument
	return cmd
}

func (a *app) call(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return usagef("no TARGET given: a module or a state directory (usage: mmrun %s)", cmd.Use)
	}
	// Flags may also stand between TARGET and FUNC.
	t, args := args[0], args[1:]
	if len(args) > 0 && strings.HasPrefix(args[0], "-") {
		if err := cmd.ParseFlags(args); err != nil {
			return usageError{err}
		}
		if help, _ := cmd.Flags().GetBool("help"); help {
			return cmd.Help()
		}
		args = cmd.Flags().Args()
	}
	var name string
	if len(args) > 0 {
		name, args = args[0], args[1:]
	}
	target, err := a.target(t)
	if err != nil {
		return err
	}
	ctx := cmd.Context()
	var stack []uint64
	check := func(fs functions) error {
		stack, err = fs.arguments(name, args)
		return err
	}
	s, err := a.open(ctx, openRequest{target: target, sync: mmrun.SyncNever, check: check})
	if err != nil {
		return err
	}
	fs := functions(s.in.Functions())
	if err := check(fs); err != nil {
		return firstError(err, s.close(ctx))
	}
	results, err := s.call(ctx, name, fs[name], stack)
	if err != nil {
		err = fmt.Errorf("%w\n%s", err, s.aftermath(err))
		return firstError(err, s.close(ctx))
	}
	seq := s.in.Seq()
	if err := s.close(ctx); err != nil {
		return fmt.Errorf("commit %d was made, but it is not known to survive power loss: %w", seq, err)
	}
	return a.printResults(name, seq, results)
}

// firstError is err, with what went wrong after it on lines of its own.
func firstError(err, later error) error {
	if later == nil {
		return err
	}
	return fmt.Errorf("%w\n%w", err, later)
}

// arguments finds a function and reads its arguments. Errors are ones of usage.
func (fs functions) arguments(name string, args []string) ([]uint64, error) {
	def, ok := fs[name]
	switch {
	case name == "":
		return nil, usagef("no FUNC given\n%s", fs.list())
	case !ok:
		return nil, usagef("function %s: the module exports no function of that name\n%s", name, fs.list())
	}
	stack, err := parseArgs(name, def, args)
	if err != nil {
		return nil, usageError{err}
	}
	return stack, nil
}

// list writes all functions with their signatures.
func (fs functions) list() string {
	if len(fs) == 0 {
		return "it exports none"
	}
	var b strings.Builder
	b.WriteString("it exports:")
	for _, name := range slices.Sorted(maps.Keys(fs)) {
		fmt.Fprintf(&b, "\n  %s%s", name, mmrun.Signature(fs[name]))
	}
	return b.String()
}

// answer is the result of an event as JSON.
type answer struct {
	Function string  `json:"function,omitempty"`
	Seq      uint64  `json:"seq"` // of the last commit
	Results  []value `json:"results,omitempty"`
	Error    string  `json:"error,omitempty"` // the event was not committed
}

func (a *app) printResults(name string, seq uint64, results []value) error {
	if a.json {
		return a.printJSON(answer{Function: name, Seq: seq, Results: results})
	}
	for _, v := range results {
		if _, err := fmt.Fprintln(a.out, v); err != nil {
			return err
		}
	}
	return nil
}

// printJSON writes v on one line.
func (a *app) printJSON(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = a.out.Write(append(b, '\n'))
	return err
}

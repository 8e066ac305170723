package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/internal/values"
)

const callHelp = `Call one exported function as one event, commit, and print each result on a
line of its own.

The answer is printed when the event survives power loss, unless --sync never is given. SIGINT
and SIGTERM end the process at once: the event is then undone, or committed if it got that far.

` + argumentHelp

const queryHelp = `Call one exported function and print each result on a line of its own. What the
function changes is undone, and nothing is committed. The state must exist, and be in atomic mode.

` + argumentHelp

const argumentHelp = `Arguments are read by the function's signature: decimal or 0x integers in
the signed or the unsigned range, floats (also inf, nan, 0x1p-3), a v128 as 0x and 32 hex
digits. Flags may stand anywhere: an argument is a number and begins with no letter but those of
inf, nan and null. What follows -- is never taken for a flag.`

func (a *app) callCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "call [flags] TARGET FUNC [ARG...]",
		Short: "Call a function as one event",
		Long:  callHelp,
		Example: `  mmrun call counter.wasm inc
  mmrun call math.wasm add 1 -2 --json
  mmrun call counter.state get`,
		RunE: func(cmd *cobra.Command, args []string) error { return a.call(cmd, args, false) },
	}
	a.functionCommand(cmd)
	a.commitFlags(cmd)
	return cmd
}

func (a *app) queryCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "query [flags] TARGET FUNC [ARG...]",
		Short:   "Call a function and undo what it changes",
		Long:    queryHelp,
		Example: `  mmrun query counter.state get`,
		RunE:    func(cmd *cobra.Command, args []string) error { return a.call(cmd, args, true) },
	}
	a.functionCommand(cmd)
	cmd.Flags().StringVar(&a.at, "at", "",
		"ask an earlier commit: its number, or a `TIME` such as 2006-01-02T15:04:05 or 15:04; "+
			"needs a history")
	return cmd
}

// functionCommand is what the commands that call one function have in common.
func (a *app) functionCommand(cmd *cobra.Command) {
	cmd.DisableFlagsInUseLine = true
	cmd.ValidArgsFunction = a.completeFunction
	a.openFlags(cmd)
	a.guestFlags(cmd)
	cmd.Flags().SetInterspersed(false) // so that -5 is an argument
}

func (a *app) call(cmd *cobra.Command, args []string, query bool) error {
	if len(args) == 0 {
		return usagef("no TARGET given: a module or a state directory (usage: mmrun %s)", cmd.Use)
	}
	flags, args := splitFlags(cmd.Flags(), args)
	if err := cmd.ParseFlags(flags); err != nil {
		return usageError{err}
	}
	if help, _ := cmd.Flags().GetBool("help"); help {
		return cmd.Help()
	}
	if len(args) == 0 {
		return usagef("no TARGET given: a module or a state directory (usage: mmrun %s)", cmd.Use)
	}
	t, args := args[0], args[1:]
	var name string
	if len(args) > 0 {
		name, args = args[0], args[1:]
	}
	target, err := a.target(t)
	if err == nil && query {
		err = target.existing()
	}
	if err != nil {
		return err
	}
	ctx := cmd.Context()
	if a.at != "" {
		out, done, err := a.checkedOut(ctx, target, a.at)
		if err != nil {
			return err
		}
		defer func() { _ = done() }()
		target = out
	}
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
	call := s.call
	if query {
		call = s.query
	}
	results, err := call(ctx, name, fs[name], stack)
	seq := s.in.Seq()
	if err != nil {
		err = fmt.Errorf("%w\n%s", err, s.aftermath(err))
		return firstError(err, s.close(ctx))
	}
	err = s.close(ctx)
	if query {
		return firstError(a.answer(name, seq, results, s.unseen), err)
	}
	a.done("commit %d was made", seq)
	if err != nil {
		return eventError{true, seq, fmt.Errorf("%s, but it is not known to survive power loss: %w",
			a.work, err)}
	}
	return a.answer(name, seq, results, s.unseen)
}

// answer writes the answer of an event, and says what has become of the event if that fails. unseen
// is why the output of the guest, which goes before it, was not written.
func (a *app) answer(name string, seq uint64, results []values.Value, unseen error) error {
	err := a.printResults(name, seq, results)
	if err == nil {
		err = a.out.close()
	}
	switch {
	case err != nil:
		err = a.lostAnswer(err)
	case unseen != nil:
		err = a.lostPrint(unseen)
	default:
		return nil
	}
	return eventError{a.work != "", seq, err}
}

// splitFlags takes the flags out of what follows a command's own: --NAME with its value, and -x
// where x is the letter of a flag. Numbers are no flags, and nothing behind -- is. A flag that
// nobody knows is one, so that it is refused as such.
func splitFlags(known *pflag.FlagSet, args []string) (flags, rest []string) {
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if arg == "--" {
			return flags, append(rest, args[i+1:]...)
		}
		if !looksLikeFlag(known, arg) {
			rest = append(rest, arg)
			continue
		}
		flags = append(flags, arg)
		name, _, hasValue := strings.Cut(strings.TrimPrefix(arg, "--"), "=")
		f := known.Lookup(name)
		if f != nil && !hasValue && f.NoOptDefVal == "" && i+1 < len(args) {
			i++
			flags = append(flags, args[i])
		}
	}
	return flags, rest
}

func looksLikeFlag(known *pflag.FlagSet, arg string) bool {
	if name, ok := strings.CutPrefix(arg, "--"); ok {
		return name != "" && unicode.IsLetter(rune(name[0]))
	}
	return len(arg) == 2 && arg[0] == '-' && known.ShorthandLookup(arg[1:]) != nil
}

// firstError is err, with what went wrong after it on lines of its own.
func firstError(err, later error) error {
	if err == nil || later == nil {
		return errors.Join(err, later)
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
		message := fmt.Sprintf("function %s: the module exports no function of that name\n%s",
			name, fs.list())
		return nil, renamed{message, usageError{mmrun.ErrNoFunction}}
	}
	stack, err := values.ParseArgs(name, def, args)
	if err != nil {
		return nil, usageError{err}
	}
	return stack, nil
}

// answer is the result of an event as JSON.
type answer struct {
	Function string         `json:"function,omitempty"`
	Seq      uint64         `json:"seq"` // of the last commit
	Results  []values.Value `json:"results,omitempty"`
	Error    string         `json:"error,omitempty"` // the event was not committed
	Kind     string         `json:"kind,omitempty"`  // of the error

	// Effect of an event that went to the guest's handler; EffectBase64 if it is not text.
	Effect       *string `json:"effect,omitempty"`
	EffectBase64 []byte  `json:"effectBase64,omitempty"`
}

func (a *app) printResults(name string, seq uint64, results []values.Value) error {
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

package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// app is one run of the command.
type app struct {
	in      io.Reader
	out     io.Writer // results and nothing else
	errOut  io.Writer // messages, and what guests print
	started bool      // the command line was right, a command is at work

	json bool

	state    string
	mode     string
	sync     string
	dirs     []string
	env      []string
	force    bool
	cache    string
	noCache  bool
	lines    bool
	timeout  time.Duration
	verbose  bool
	cacheOff bool // the cache turned out to be of no use
}

const rootHelp = `mmrun runs WebAssembly modules whose memory never dies: a guest keeps its data in plain
variables, and every run goes on where the last event left it.

TARGET is a module (counter.wasm; its state is counter.state beside it, or --state DIR) or a
state directory. Results go to standard output, messages and what the guest prints to
standard error.

Exit status: 0 done; 1 the work failed (a trap, a damaged or refused state, input or output);
2 the command line was wrong.`

// run is the whole program; the result is the exit status.
func run(args []string, in io.Reader, out, errOut io.Writer) int {
	a := &app{in: in, out: out, errOut: errOut}
	root := a.rootCommand()
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errOut)
	err := root.Execute()
	var usage usageError
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &usage) || !a.started:
		a.message("%v", err)
		return exitUsage
	}
	a.message("%v", err)
	return exitFailed
}

// message writes one message for people.
func (a *app) message(format string, args ...any) {
	fmt.Fprintf(a.errOut, "mmrun: "+format+"\n", args...)
}

func (a *app) logger() *slog.Logger {
	if !a.verbose {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(a.errOut, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "mmrun",
		Short:         "Run WebAssembly modules whose memory never dies",
		Long:          rootHelp,
		Version:       version(),
		SilenceErrors: true,
		SilenceUsage:  true,
		// Cobra calls this when the command line has been found right.
		PersistentPreRun: func(*cobra.Command, []string) { a.started = true },
	}
	root.PersistentFlags().BoolVar(&a.json, "json", false, "write results as JSON")
	root.AddCommand(a.callCommand(), a.runCommand(), a.inspectCommand(), a.verifyCommand(), a.repairCommand(), a.checkpointCommand(), a.rewriteCommand())
	return root
}

// stateFlag is the flag of all commands that take a TARGET.
func (a *app) stateFlag(flags *pflag.FlagSet) {
	flags.StringVar(&a.state, "state", "", "state `DIR` of a module; without it NAME.state beside NAME.wasm")
}

// openFlags are the flags of commands that run a guest.
func (a *app) openFlags(flags *pflag.FlagSet) {
	a.stateFlag(flags)
	flags.StringVar(&a.mode, "mode", "", "atomic or continuous; without it the state's own, and atomic for a new one")
	flags.StringVar(&a.sync, "sync", "", "when commits are made to survive power loss: always, never or a `DURATION`")
	flags.StringArrayVar(&a.dirs, "dir", nil, "show a directory to the guest, `HOST:GUEST[:ro]`")
	flags.StringArrayVar(&a.env, "env", nil, "environment variable of the guest, `KEY=VALUE`")
	flags.BoolVar(&a.force, "force", false, "take a torn continuous state as it is")
	flags.StringVar(&a.cache, "cache", "", "`DIR` for compiled modules; without it mmrun in the user's cache directory")
	flags.BoolVar(&a.noCache, "no-cache", false, "keep no compiled modules")
	flags.BoolVar(&a.lines, "debug-info", false, "let traps name source lines, if the module has DWARF; makes starts slower")
	flags.DurationVar(&a.timeout, "timeout", 0, "end an event that takes longer than this `DURATION`; costs about 2 µs a call")
	flags.BoolVarP(&a.verbose, "verbose", "v", false, "say what is done: recoveries, checkpoints, the compile cache")
}

// version is that of the build: a tag, or the commit.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}

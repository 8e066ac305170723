package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"
	"slices"
	"time"

	"github.com/spf13/cobra"
)

// app is one run of the command.
type app struct {
	in       io.Reader
	out      *output   // results and nothing else
	errOut   io.Writer // messages
	guestOut io.Writer // what guests print: standard error, escaped if that is a terminal
	started  bool      // the command line was right, a command is at work
	work     string    // what is done and stays done, whatever becomes of the answer

	json bool

	state       string
	mode        string
	sync        string
	tracker     string
	dirs        []string
	env         []string
	force       bool
	downtime    string
	history     string
	at          string // query: a commit of the history
	cache       string
	noCache     bool
	lines       bool
	timeout     time.Duration
	memoryLimit size
	verbose     bool
	cacheOff    bool // the cache turned out to be of no use
}

const rootHelp = `mmrun runs WebAssembly modules whose memory never dies: a guest keeps its data
in plain variables, and every run goes on where the last event left it.

TARGET is a module (counter.wasm; its state is counter.state beside it, or --state DIR) or a
state directory. Results go to standard output, messages and what the guest prints to
standard error.

Exit status: 0 done; 1 the work failed (a trap, a damaged or refused state, input or output);
2 the command line was wrong. An answer that cannot be written (a full disk, a reader that went
away, a closed standard output) is a failure; the message says what is done all the same.

With --json a failure is an object on standard output, where the answer would have been, as
well as sentences on standard error:
{"error":"...","kind":"trap","committed":false,"seq":7}
committed tells whether the event is committed nevertheless (it must not be tried again then),
seq is the last commit. Kinds: usage, trap, exit, timeout, no-function, runs-once, refused,
effect-too-large, output, locked, no-state, module-mismatch, torn, corrupt, unsupported, poisoned,
failed.

Names and messages that come from guests are shown with control characters, changes of the
text's direction and malformed UTF-8 escaped. What a guest prints itself is escaped on a
terminal only, and passed on byte by byte to a file or a pipe.`

// run is the whole program; the result is the exit status.
func run(args []string, in io.Reader, out, errOut io.Writer) int {
	a := &app{in: in, out: &output{to: out}, errOut: errOut, guestOut: errOut}
	if isTerminal(errOut) {
		a.guestOut = &escapingWriter{to: errOut}
	}
	root := a.rootCommand()
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(a.out)
	root.SetErr(errOut)
	err := root.Execute()
	if err == nil {
		err = a.out.close()
	}
	if err != nil && err == a.out.err {
		err = a.lostAnswer(err)
	}
	if err == nil {
		return exitDone
	}
	if exit := exitProgram(0); errors.As(err, &exit) {
		return int(uint8(exit))
	}
	status := exitFailed
	if errors.As(err, new(broken)) {
		status = exitBroken
	}
	if usage := (usageError{}); errors.As(err, &usage) || !a.started {
		err, status = usageError{err}, exitUsage
	}
	a.message("%v", err)
	// Also for a command line that was wrong before --json could be read. An answer that is there
	// already, such as that of verify, is the failure itself.
	if (a.json || slices.Contains(args, "--json")) && !a.out.written {
		a.printFailure(err)
	}
	return status
}

// message writes one message for people.
func (a *app) message(format string, args ...any) {
	fmt.Fprintf(a.errOut, "mmrun: %s\n", escapeText(fmt.Sprintf(format, args...)))
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
	root.PersistentFlags().BoolVar(&a.json, "json", false, "write results and failures as JSON")
	root.AddCommand(a.callCommand(), a.queryCommand(), a.runCommand(), a.funcsCommand(),
		a.inspectCommand(), a.verifyCommand(), a.repairCommand(), a.checkpointCommand(),
		a.rewriteCommand(), a.serveCommand(), a.snapshotCommand(),
		a.restoreCommand(), a.forkCommand(), a.diffCommand(), a.upgradeCommand(),
		a.compactCommand(),
		a.logCommand(), a.backupCommand())
	return root
}

// version is that of the build: a tag, or the commit.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}

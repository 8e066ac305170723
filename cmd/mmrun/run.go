package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/mmrun/mmrun"
)

const runHelp = `Run the event loop on standard input: each line FUNC ARG... is one event,
answered by exactly one line as soon as it is committed: the results separated by spaces, or "!
MESSAGE" when the event failed and was rolled back. Empty lines and lines that start with # are
skipped and get no answer. A failed event does not end the loop, nor does a line that is no
event.

With --json each answer is an object: {"seq":7,"results":[...]} or
{"seq":7,"error":"...","kind":"trap"}, where seq is the last commit. If the loop itself fails,
one more object says why.

With --handle each event goes to the guest's function "handle", which reads it from its standard
input and prints the effect to its standard output (docs/handlers.md). --frame says how events lie
in the input: lines (an event is a line without its newline, effects are written as they are),
json (one value a line, both ways) or length (each has its length before it, 4 bytes, little
endian, both ways). An event that the guest refuses, or that fails, is rolled back and told on
standard error; the loop goes on and exits with 1 at the end. With --json each answer is
{"seq":7,"effect":"..."}.

With --in FILE and --out FILE how far both have come is committed with each event: after any
number of kills and power cuts the same command goes on, and the output is byte for byte that of a
run that was never interrupted. An event that is not there whole at the end of the input waits;
--follow waits for more. An input that was cut or replaced, and an output that is not the one
written so far, are refused.

A program with a main loop of its own (a module that exports _start and no _initialize) is run
instead: run TARGET -- ARGS. It goes on where it was left, in the middle of its calls: whenever it
waits for input or sleeps, all of it is committed, then what it has printed is let out. The end of
a pipe leaves it waiting, unless --eof says that it is to be told; that of a terminal and of a
file is told. The exit status is the program's own, or 125 if mmrun failed; later runs give the
same one, until --restart. See docs/programs.md.

The end of the input, SIGINT and SIGTERM end the loop between two events, with a checkpoint: an
event that runs is waited for. A second SIGINT or SIGTERM ends the process at once, as SIGQUIT
and kill -9 do, which loses nothing that was committed. Commits are made to survive power loss
every second (--sync 1s) unless --sync says otherwise.`

// runFlags are those of run alone.
type runFlags struct {
	handle  bool
	frame   string
	in, out string
	follow  bool
	eof     bool // of programs
	restart bool
}

func (a *app) runCommand() *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:   "run TARGET [-- ARGS]",
		Short: "Run the event loop on standard input",
		Long:  runHelp,
		Example: `  printf 'inc\ninc\nget\n' | mmrun run counter.wasm
  mmrun run --handle guestbook.wasm < names.txt
  mmrun run --handle --in names.txt --out greetings.txt --follow guestbook.wasm
  mmrun run python.wasm -- -i`,
		Args: func(cmd *cobra.Command, args []string) error {
			if n := cmd.ArgsLenAtDash(); n >= 0 {
				args = args[:n]
			}
			return exactTarget(cmd, args)
		},
		ValidArgsFunction: completeTarget,
		RunE: func(cmd *cobra.Command, args []string) error {
			target, err := a.target(args[0])
			if err != nil {
				return err
			}
			program, err := target.isProgram()
			switch {
			case err == nil && program:
				return a.runProgram(cmd.Context(), target, args[1:], f)
			case err == nil && len(args) > 1:
				return usagef("arguments behind -- are for programs with a main loop of their "+
					"own, which %s is not",
					target.path())
			}
			return a.run(cmd.Context(), target, f)
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&f.handle, "handle", false, "give each event to the guest's function handle")
	flags.StringVar(&f.frame, "frame", "lines",
		"`HOW` events lie in the input of --handle: lines, json or length")
	flags.StringVar(&f.in, "in", "", "take events from `FILE`, each once")
	flags.StringVar(&f.out, "out", "", "write answers or effects to `FILE`, each once")
	flags.BoolVar(&f.follow, "follow", false, "at the end of --in wait for more")
	flags.BoolVar(&f.eof, "eof", false, "tell a program when its input ends")
	flags.BoolVar(&f.restart, "restart", false, "begin a program anew: its state is removed")
	complete(cmd, "frame", cobra.FixedCompletions([]string{"lines", "json", "length"},
		cobra.ShellCompDirectiveNoFileComp))
	a.openFlags(cmd)
	a.guestFlags(cmd)
	a.commitFlags(cmd)
	return cmd
}

// check gives the frame of the input.
func (f runFlags) check() (frame, error) {
	switch {
	case (f.in == "") != (f.out == ""):
		return "", usagef("--in and --out go together: only what is read and written in files " +
			"can be " +
			"kept with the state")
	case f.follow && f.in == "":
		return "", usagef("--follow goes with --in")
	case !f.handle && f.frame != string(frameLines):
		return "", usagef("--frame goes with --handle")
	}
	return parseFrame(f.frame)
}

func (a *app) run(ctx context.Context, t target, f runFlags) error {
	how, err := f.check()
	if err != nil {
		return err
	}
	stop := newStopper(a)
	defer stop.release()
	// A guest's loop keeps its processor to itself. Another one has to be there for signals.
	runtime.GOMAXPROCS(max(2, runtime.GOMAXPROCS(0)))

	req := openRequest{target: t, sync: mmrun.SyncEvery(time.Second), handler: f.handle}
	if f.handle {
		req.check = functions.handler
	}
	s, err := a.open(ctx, req)
	if err != nil {
		return err
	}
	if f.handle {
		err = functions(s.in.Functions()).handler()
	}
	l := &eventLoop{session: s, stop: stop, frame: how, handle: f.handle}
	switch {
	case err != nil:
	case f.in != "":
		err = l.files(ctx, f)
	default:
		pieces := make(chan piece)
		end := make(chan error, 1)
		go func() {
			err := readPieces(a.in, how, pieces, stop.stopped)
			close(pieces)
			end <- err
		}()
		err = l.stream(ctx, pieces, end)
	}
	if s.answered > 0 { // that could be lost when standard output is closed
		a.done("commit %d was made", s.answered)
	}
	return firstError(err, s.close(ctx))
}

// handler is an error if the module has no function to handle events.
func (fs functions) handler() error {
	def, ok := fs[mmrun.HandlerName]
	if !ok {
		return renamed{fmt.Sprintf("the module exports no function %q, which --handle needs "+
			"(docs/handlers.md)\n%s", mmrun.HandlerName, fs.list()), mmrun.ErrNoFunction}
	}
	if len(def.ParamTypes()) > 0 || len(def.ResultTypes()) > 1 {
		return renamed{fmt.Sprintf("function %s is %s, a handler is () -> () or () -> (i32)",
			mmrun.HandlerName, mmrun.Signature(def)), mmrun.ErrUnsupported}
	}
	return nil
}

// readPieces sends the events of r until its end, or until done. What is behind the last whole line
// is an event, too.
func readPieces(r io.Reader, f frame, to chan<- piece, done <-chan struct{}) error {
	in := bufio.NewReaderSize(r, maxLine)
	for {
		p, err := f.read(in)
		partial := errors.Is(err, errPartial)
		if err == nil || partial && f != frameLength {
			select {
			case to <- p:
			case <-done:
				return nil
			}
		}
		switch {
		case errors.Is(err, io.EOF), partial && f != frameLength:
			return nil
		case err != nil:
			return err
		}
	}
}

// stopper ends the loop at the first SIGINT or SIGTERM. The second one finds the default action,
// which ends the process.
type stopper struct {
	app     *app
	signals chan os.Signal
	stopped chan struct{}
	busy    atomic.Bool // an event runs
}

func newStopper(a *app) *stopper {
	s := &stopper{app: a, signals: make(chan os.Signal, 1), stopped: make(chan struct{})}
	signal.Notify(s.signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		sig, ok := <-s.signals
		if !ok {
			return
		}
		signal.Stop(s.signals)
		close(s.stopped)
		if s.busy.Load() {
			s.app.message("%s: the event that runs is waited for, then the loop ends; a second "+
				"signal, "+
				"SIGQUIT or kill -9 ends it at once, which loses nothing that was committed",
				signalName(sig))
		}
	}()
	return s
}

func signalName(sig os.Signal) string {
	if sig == os.Interrupt {
		return "SIGINT"
	}
	return "SIGTERM"
}

func (s *stopper) release() {
	signal.Stop(s.signals)
	close(s.signals)
}

// begin tells whether an event may begin; if so, end has to be called after it. Either the signal's
// message finds the event, or the event finds the signal.
func (s *stopper) begin() bool {
	s.busy.Store(true)
	select {
	case <-s.stopped:
		s.busy.Store(false)
		return false
	default:
		return true
	}
}

func (s *stopper) end() { s.busy.Store(false) }

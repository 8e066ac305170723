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
	"strings"
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

The end of the input, SIGINT and SIGTERM end the loop between two events, with a checkpoint: an
event that runs is waited for. A second SIGINT or SIGTERM ends the process at once, as SIGQUIT
and kill -9 do, which loses nothing that was committed. Commits are made to survive power loss
every second (--sync 1s) unless --sync says otherwise.`

func (a *app) runCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:               "run TARGET",
		Short:             "Run the event loop on standard input",
		Long:              runHelp,
		Example:           `  printf 'inc\ninc\nget\n' | mmrun run counter.wasm`,
		Args:              exactTarget,
		ValidArgsFunction: completeTarget,
		RunE: func(cmd *cobra.Command, args []string) error {
			target, err := a.target(args[0])
			if err != nil {
				return err
			}
			return a.run(cmd.Context(), target)
		},
	}
	a.openFlags(cmd)
	a.guestFlags(cmd)
	a.commitFlags(cmd)
	return cmd
}

func (a *app) run(ctx context.Context, t target) error {
	stop := newStopper(a)
	defer stop.release()
	// A guest's loop keeps its processor to itself. Another one has to be there for signals.
	runtime.GOMAXPROCS(max(2, runtime.GOMAXPROCS(0)))

	s, err := a.open(ctx, openRequest{target: t, sync: mmrun.SyncEvery(time.Second)})
	if err != nil {
		return err
	}
	lines := make(chan line)
	go readLines(a.in, lines, stop.stopped)
	err = s.loop(ctx, stop, lines)
	if s.answered > 0 { // that could be lost when standard output is closed
		a.done("commit %d was made", s.answered)
	}
	return firstError(err, s.close(ctx))
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
			s.app.message("%s: the event that runs is waited for, then the loop ends; a second signal, "+
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

// maxLine is the length of the longest line, in bytes.
const maxLine = 1 << 20

// line is a line of input, or an error about it.
type line struct {
	text string
	err  error // the line is no event; or, with end, why the input ended
	end  bool
}

var errLongLine = fmt.Errorf("the line is longer than %d bytes", maxLine)

// readLines sends the lines of r until its end, or until done.
func readLines(r io.Reader, to chan<- line, done <-chan struct{}) {
	in := bufio.NewReaderSize(r, maxLine)
	for {
		text, err := in.ReadSlice('\n')
		l := line{text: string(text)}
		if errors.Is(err, bufio.ErrBufferFull) {
			l = line{err: errLongLine}
			for errors.Is(err, bufio.ErrBufferFull) {
				_, err = in.ReadSlice('\n')
			}
		}
		if l.text != "" || l.err != nil {
			select {
			case to <- l:
			case <-done:
				return
			}
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			select {
			case to <- line{end: true, err: err}:
			case <-done:
			}
			return
		}
	}
}

// loop answers events until the input ends or a signal comes. Each answer is written out before
// the next event begins.
func (s *session) loop(ctx context.Context, stop *stopper, lines <-chan line) error {
	fs := functions(s.in.Functions())
	garbage := newCollector()
	defer garbage.restore()
	for {
		garbage.betweenEvents()
		var l line
		select {
		case <-stop.stopped:
			return nil
		case l = <-lines:
		}
		if l.end {
			if l.err != nil {
				return fmt.Errorf("standard input: %w", l.err)
			}
			return nil
		}
		fields := strings.Fields(l.text)
		if l.err == nil && (len(fields) == 0 || strings.HasPrefix(fields[0], "#")) {
			continue
		}
		if !stop.begin() {
			return nil
		}
		results, err := s.event(ctx, fs, fields, l.err)
		stop.end()
		if err := s.answer(results, err); err != nil {
			return err
		}
		if errors.Is(err, mmrun.ErrPoisoned) {
			return err
		}
	}
}

// event runs one line. What failed inside the guest is told in full on standard error.
func (s *session) event(ctx context.Context, fs functions, fields []string, err error) (
	[]value, error) {
	var stack []uint64
	if err == nil {
		stack, err = fs.arguments(fields[0], fields[1:])
	}
	if err != nil {
		return nil, err
	}
	results, err := s.call(ctx, fields[0], fs[fields[0]], stack)
	if err != nil {
		s.app.message("%v\n%s", err, s.aftermath(err))
	}
	return results, err
}

// answer writes the answer of one line. An error is that of an answer that could not be written.
func (s *session) answer(results []value, failed error) error {
	a, seq := s.app, s.in.Seq()
	s.answered = 0
	if failed == nil {
		s.answered = seq
	}
	var err error
	switch {
	case a.json && failed != nil:
		err = a.printJSON(answer{Seq: seq, Error: firstLine(failed), Kind: kindOf(failed)})
	case a.json:
		err = a.printJSON(answer{Seq: seq, Results: results})
	case failed != nil:
		_, err = fmt.Fprintf(a.out, "! %s\n", escapeName(firstLine(failed)))
	default:
		texts := make([]string, len(results))
		for i, v := range results {
			texts[i] = v.String()
		}
		_, err = fmt.Fprintln(a.out, strings.Join(texts, " "))
	}
	if err == nil && s.unseen == nil {
		return nil
	}
	if failed == nil {
		a.done("commit %d was made", seq)
	}
	if err != nil {
		err = a.lostAnswer(err)
	} else {
		err = a.lostPrint(s.unseen)
	}
	return eventError{failed == nil, seq, err}
}

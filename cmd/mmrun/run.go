package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/mmrun/mmrun"
)

const runHelp = `Run the event loop on standard input: each line FUNC ARG... is one event, answered by exactly
one line as soon as it is committed: the results separated by spaces, or "! MESSAGE" when the
event failed and was rolled back. Empty lines and lines that start with # are skipped and get
no answer. A failed event does not end the loop, nor does a line that is no event.

With --json each answer is an object: {"seq":7,"results":[...]} or {"seq":7,"error":"..."},
where seq is the last commit.

The end of the input, SIGINT and SIGTERM end the loop between two events, with a checkpoint.
A second SIGINT or SIGTERM ends the process at once. Commits are made to survive power loss
every second (--sync 1s) unless --sync says otherwise; a killed process loses none.`

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
	a.openFlags(cmd.Flags())
	return cmd
}

func (a *app) run(ctx context.Context, t target) error {
	stop, release := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer release()
	context.AfterFunc(stop, release) // the second signal finds the default action
	// A reader that went away is an error of writing, which ends the loop with a checkpoint.
	signal.Ignore(syscall.SIGPIPE)

	s, err := a.open(ctx, openRequest{target: t, sync: mmrun.SyncEvery(time.Second)})
	if err != nil {
		return err
	}
	lines := make(chan line)
	go readLines(a.in, lines, stop.Done())
	err = s.loop(ctx, stop.Done(), lines)
	return errors.Join(err, s.close(ctx))
}

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

// loop answers events until the input ends or stop is closed. Each answer is written out before the
// next event begins.
func (s *session) loop(ctx context.Context, stop <-chan struct{}, lines <-chan line) error {
	out := bufio.NewWriter(s.app.out)
	fs := functions(s.in.Functions())
	for {
		select {
		case <-stop: // before a line that is there as well
			return nil
		default:
		}
		var l line
		select {
		case <-stop:
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
		results, err := s.event(ctx, fs, fields, l.err)
		s.answer(out, results, err)
		if err := out.Flush(); err != nil {
			return fmt.Errorf("standard output: %w", err)
		}
		if errors.Is(err, mmrun.ErrPoisoned) {
			return err
		}
	}
}

// event runs one line. What failed inside the guest is told in full on standard error.
func (s *session) event(ctx context.Context, fs functions, fields []string, err error) ([]value, error) {
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

func (s *session) answer(out *bufio.Writer, results []value, err error) {
	if s.app.json {
		a := answer{Seq: s.in.Seq(), Results: results}
		if err != nil {
			a.Error = firstLine(err)
		}
		b, _ := json.Marshal(a) // values of these types always have an encoding
		out.Write(b)
		out.WriteByte('\n')
		return
	}
	if err != nil {
		fmt.Fprintf(out, "! %s\n", firstLine(err))
		return
	}
	for i, v := range results {
		if i > 0 {
			out.WriteByte(' ')
		}
		out.WriteString(v.String())
	}
	out.WriteByte('\n')
}

package tests

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/internal/testkit/guests"
)

// hesitant gives its input a line at a time, and ends the run behind some of them.
type hesitant struct {
	lines []string
	stop  func()
	after int // lines, then stop; negative: never
	over  chan struct{}
}

func (h *hesitant) Read(b []byte) (int, error) {
	if h.after == 0 {
		h.after = -1
		h.stop()
		<-h.over // a terminal at which nobody types
		return 0, io.EOF
	}
	if len(h.lines) == 0 {
		return 0, io.EOF
	}
	h.after--
	n := copy(b, h.lines[0])
	h.lines = h.lines[1:]
	return n, nil
}

// A program that is stopped at any of its waits, closed or killed, and gone on with, prints what it
// prints when nobody interrupts it.
func TestProgramGoesOnWhereItWas(t *testing.T) {
	var lines []string
	for i := range 40 {
		lines = append(lines, fmt.Sprintf("line %d\n", i))
	}
	for _, level := range []string{"0", "2"} {
		t.Run("O"+level, func(t *testing.T) {
			rt, wasm := wasiRuntime(t), guests.Load(t, "program_O"+level)
			if _, err := mmrun.InstantiateHost(ctx, rt); err != nil {
				t.Fatal(err)
			}
			r := rand.New(rand.NewPCG(seed(t), 16))
			run := func(dir string, input []string, after int) (out string, end mmrun.ProgramEnd,
				left []string) {
				t.Helper()
				in, err := openSeen(rt, dir, wasm, mmrun.WithProgram(),
					mmrun.WithClock(mmrun.CountDowntime))
				if err != nil {
					t.Fatal(err)
				}
				stopped, stop := context.WithCancel(ctx)
				defer stop()
				h := &hesitant{lines: input, stop: stop, after: after, over: make(chan struct{})}
				defer close(h.over)
				var b bytes.Buffer
				end, err = in.Run(stopped, mmrun.ProgramConfig{Stdin: h, Stdout: &b, EOF: true})
				if err != nil {
					t.Fatal(err)
				}
				if r.IntN(2) == 0 {
					abandon(in)
				} else {
					closeInstance(t, in)
				}
				return b.String(), end, h.lines
			}
			want, end, _ := run(filepath.Join(t.TempDir(), "plain"), lines, -1)
			if !end.Ended || end.ExitCode != 3 || !strings.Contains(want, "40: line 39\ndone") {
				t.Fatalf("%+v\n%s", end, want)
			}
			dir := filepath.Join(t.TempDir(), "s")
			var got strings.Builder
			rest, runs := lines, 0
			for end = (mmrun.ProgramEnd{}); !end.Ended; runs++ {
				var out string
				out, end, rest = run(dir, rest, r.IntN(4))
				got.WriteString(out)
			}
			if got.String() != want || end.ExitCode != 3 {
				t.Errorf("%d runs, %+v\n%s\nwant\n%s", runs, end, got.String(), want)
			}
			// It has ended: later runs say so again.
			if out, again, _ := run(dir, lines, -1); out != "" || again != end {
				t.Errorf("%q, %+v", out, again)
			}
			t.Logf("%d runs", runs)
		})
	}
}

// A program that traps is back where it waited, without the input that did it.
func TestProgramThatTraps(t *testing.T) {
	rt := wasiRuntime(t)
	if _, err := mmrun.InstantiateHost(ctx, rt); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "s")
	in := open(t, rt, dir, guests.Load(t, "program_O2"), mmrun.WithProgram())
	var out bytes.Buffer
	var trapped []string
	c := mmrun.ProgramConfig{Stdout: &out, Trapped: func(input []byte, err error) {
		trapped = append(trapped, string(input))
	}}
	run := func(lines ...string) (mmrun.ProgramEnd, error) {
		out.Reset()
		c.Stdin = &hesitant{lines: lines, after: -1}
		return in.Run(ctx, c)
	}
	end, err := run("one\n", "abort\n", "two\n")
	if err != nil || end.Ended || len(trapped) != 1 || !strings.HasSuffix(out.String(),
		"1: one\n2: two\n") {
		t.Errorf("%+v, %v, %q\n%s", end, err, trapped, out.String())
	}
	if _, err = run("abort\n", "abort\n", "abort\n"); err == nil ||
		!strings.Contains(err.Error(), `failed 3 times: "abort\n"`) {
		t.Error(err)
	}
	end, err = run("three\n", "exit\n", "four\n")
	if err != nil || !end.Ended || end.ExitCode != 7 || out.String() != "3: three\n" {
		t.Errorf("%+v, %v\n%s", end, err, out.String())
	}
	// What a program needs, and what it is not.
	plain := open(t, rt, filepath.Join(t.TempDir(), "p"), guests.Load(t, "counter"))
	if _, err := plain.Run(ctx, c); !errors.Is(err, mmrun.ErrUnsupported) {
		t.Error(err)
	}
}

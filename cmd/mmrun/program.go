package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"time"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/fsck"
	"github.com/mmrun/mmrun/rewriter"
)

// exitProgram is the exit status of a program, as an error that says nothing more.
type exitProgram uint32

func (e exitProgram) Error() string { return fmt.Sprintf("exit status %d", uint32(e)) }

// exitBroken is the exit status of run when it is not the program that has failed.
const exitBroken = 125

// isProgram tells whether a target is a program with a main loop of its own.
func (t target) isProgram() (bool, error) {
	wasm, err := t.code()
	if err != nil {
		return false, err
	}
	return rewriter.IsProgram(wasm), nil
}

// runProgram runs a program until it ends, its input ends, or a signal comes.
func (a *app) runProgram(ctx context.Context, t target, args []string, f runFlags) error {
	if f.handle || f.follow {
		return usagef("--handle and --follow are for modules without a main loop of their own, "+
			"which %s is not",
			t.path())
	}
	if f.restart {
		if err := a.restart(t); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := newStopper(a)
	defer stop.release()
	go func() {
		<-stop.stopped
		cancel()
	}()
	runtime.GOMAXPROCS(max(2, runtime.GOMAXPROCS(0)))
	s, err := a.open(context.WithoutCancel(ctx), openRequest{target: t,
		sync: mmrun.SyncEvery(time.Second), program: true, args: args})
	if err != nil {
		return broken{err}
	}
	c, finish, err := a.streams(f)
	var end mmrun.ProgramEnd
	if err == nil {
		c.Trapped = func(input []byte, err error) {
			a.message("the input %q: %v\nthe program is back where it waited before it", input, err)
		}
		end, err = s.in.Run(ctx, c)
		err = errors.Join(err, finish())
	}
	if err = firstError(err, s.close(context.WithoutCancel(ctx))); err != nil {
		return broken{err}
	}
	if !end.Ended {
		a.message("state %s: the program waits; the next run goes on with it", t.state)
		return nil
	}
	if end.ExitCode != 0 {
		return exitProgram(end.ExitCode)
	}
	return nil
}

// broken is an error of run on a program that is not the program's own.
type broken struct{ error }

func (e broken) Unwrap() error { return e.error }

// restart takes the state of a program away.
func (a *app) restart(t target) error {
	exists, err := fsck.Exists(t.state)
	if err != nil || !exists {
		return err
	}
	if t.module == "" {
		return usagef("--restart takes a module: what is in %s is about to be removed", t.state)
	}
	if r, err := fsck.Inspect(t.state); err == nil && r.InUse {
		return fmt.Errorf("state %s: it is in use", t.state)
	}
	if in, ok := a.in.(*os.File); ok && isTerminal(in) && isTerminal(a.errOut) {
		fmt.Fprintf(a.errOut, "mmrun: remove state %s and all that the program holds? [y/N] ",
			escapeName(t.state))
		var answer string
		if _, err := fmt.Fscanln(in, &answer); err != nil || answer != "y" && answer != "yes" {
			return errors.New("nothing was removed")
		}
	}
	trash := t.state + ".trash"
	if err := os.RemoveAll(trash); err != nil {
		return err
	}
	if err := os.Rename(t.state, trash); err != nil {
		return err
	}
	return os.RemoveAll(trash)
}

// streams connects a program to what the command line says.
func (a *app) streams(f runFlags) (c mmrun.ProgramConfig, finish func() error, err error) {
	finish = func() error { return nil }
	c = mmrun.ProgramConfig{Stdin: a.in, Stdout: a.out, Stderr: a.guestOut, EOF: f.eof}
	if f.in != "" {
		in, err := os.Open(f.in)
		if err != nil {
			return c, finish, err
		}
		out, err := os.OpenFile(f.out, os.O_RDWR|os.O_CREATE, 0o666)
		if err != nil {
			return c, finish, errors.Join(err, in.Close())
		}
		c.Stdin, c.Out, c.Whole, c.EOF = in, out, true, true
		return c, func() error { return errors.Join(in.Close(), out.Close()) }, nil
	}
	in, ok := a.in.(*os.File)
	if !ok {
		return c, finish, nil
	}
	c.Terminal = isTerminal(in) && isTerminal(a.out.to)
	if info, err := in.Stat(); err == nil && info.Mode().IsRegular() {
		// Each run is given the same file from its begin.
		if at, err := in.Seek(0, io.SeekCurrent); err == nil && at == 0 {
			c.Whole, c.EOF = true, true
		}
	}
	return c, finish, nil
}

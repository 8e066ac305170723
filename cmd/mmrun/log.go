package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mmrun/mmrun/archive"
)

const logHelp = `List the commits of a state that can still be read: those that its history keeps
(--history of call, run and serve), and those that are in its log since the last checkpoint. For
each its number, when it was made, how long its event took, what it called first, and how much
memory it changed. The state may be in use; --follow goes on with what is committed.`

func (a *app) logCommand() *cobra.Command {
	var follow bool
	var from uint64
	cmd := &cobra.Command{
		Use: "log TARGET", Short: "List the commits of a state", Long: logHelp,
		Args: exactTarget, ValidArgsFunction: completeTarget,
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := a.existing(args[0])
			if err != nil {
				return err
			}
			return a.log(cmd.Context(), t, from, follow)
		},
	}
	a.stateFlag(cmd)
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what is committed")
	cmd.Flags().Uint64Var(&from, "from", 0, "begin with commit `SEQ`")
	return cmd
}

func (a *app) log(ctx context.Context, t target, from uint64, follow bool) error {
	ctx, cancel := interruptible(ctx)
	defer cancel()
	for {
		err := archive.Log(t.state, from, func(c archive.Commit) error {
			from = c.Seq + 1
			if a.json {
				return a.printJSON(c)
			}
			when, function := "-", c.Function
			if c.Time != nil {
				when = c.Time.UTC().Format("2006-01-02T15:04:05.000Z")
			}
			if function == "" {
				function = "-"
			}
			_, err := fmt.Fprintf(a.out, "%d  %s  %-9v  %s  %d bytes in %d pages\n", c.Seq, when,
				c.Took.Round(time.Microsecond), escapeName(function), c.Bytes, c.Pages)
			return err
		})
		if err != nil || !follow {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// commitAt reads SEQ or TIME: a number, a time as RFC 3339 writes it, or a time of today.
func commitAt(state, text string) (uint64, error) {
	if seq, err := strconv.ParseUint(text, 10, 64); err == nil {
		return seq, nil
	}
	now := time.Now()
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02 15:04:05",
		"2006-01-02 15:04", "15:04:05", "15:04"} {
		at, err := time.ParseInLocation(layout, text, time.Local)
		if err != nil {
			continue
		}
		if len(layout) <= len("15:04:05") {
			at = time.Date(now.Year(), now.Month(), now.Day(), at.Hour(), at.Minute(), at.Second(),
				0, time.Local)
		}
		return archive.At(state, at)
	}
	return 0, usagef("--at %s: want the number of a commit, or a time such as "+
		"2006-01-02T15:04:05 or 15:04", text)
}

// checkedOut gives a state of its own, in a directory that done takes away, of a commit of another
// one.
func (a *app) checkedOut(ctx context.Context, t target, at string) (_ target, done func() error,
	err error) {
	seq, err := commitAt(t.state, at)
	if err != nil {
		return t, nil, err
	}
	dir, err := os.MkdirTemp("", "mmrun-at-")
	if err != nil {
		return t, nil, err
	}
	done = func() error { return os.RemoveAll(dir) }
	out := target{state: filepath.Join(dir, filepath.Base(t.state))}
	bar := a.bar(fmt.Sprintf("commit %d of %s", seq, t.state))
	err = archive.Archiver{Progress: bar.update}.CheckOut(ctx, t.state, seq, out.state)
	bar.finish()
	if err != nil {
		return t, nil, errors.Join(err, done())
	}
	return out, done, nil
}

// commitOf is the directory of the state that TARGET stands for, or of one made of the commit that
// TARGET@SEQ or TARGET@TIME is, and how to call it. done takes away what was made.
func (a *app) commitOf(ctx context.Context, text string) (dir, called string, done func() error,
	err error) {
	name, at := text, ""
	if i := strings.LastIndexByte(text, '@'); i > 0 {
		if _, err := os.Lstat(text); errors.Is(err, os.ErrNotExist) {
			name, at = text[:i], text[i+1:]
		}
	}
	t, err := a.existing(name)
	if err != nil || at == "" {
		return t.state, t.state, func() error { return nil }, err
	}
	out, done, err := a.checkedOut(ctx, t, at)
	return out.state, t.state + "@" + at, done, err
}

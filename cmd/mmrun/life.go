package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/mmrun/mmrun/archive"
	"github.com/mmrun/mmrun/internal/values"
)

const snapshotHelp = `Write all of a state, as of its last commit, into one portable file: it can
be restored on another machine, file system and operating system. The state must not be in use; a
program that has it open takes snapshots while events go on (Instance.Snapshot). Without -o the
snapshot goes to standard output.`

const restoreHelp = `Make a state of a snapshot, or of a directory that mmrun backup has made. All
of it is checked before the state gets its name, and whatever ends the work before that leaves
nothing. - reads a snapshot from standard input.`

const forkHelp = `Make a second state of the last commit of a state that nobody has open. Where
the file system shares blocks (XFS, Btrfs), that takes no time that grows with the memory if the
state was closed.`

const diffHelp = `Tell how state B differs from state A, each as of its last commit, or of an
earlier one that its history has (TARGET@SEQ, TARGET@14:30): pages and bytes of the memory, globals
by name, tables, sizes. The exit status is 0 either way, unless --exit-code is given.`

// interruptible gives a context that SIGINT and SIGTERM end: what is half made then is taken away.
func interruptible(ctx context.Context) (context.Context, context.CancelFunc) {
	return signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
}

func (a *app) snapshotCommand() *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use: "snapshot TARGET", Short: "Write a state into one portable file", Long: snapshotHelp,
		Example: "  mmrun snapshot counter.state -o counter.snapshot",
		Args:    exactTarget, ValidArgsFunction: completeTarget,
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := a.existing(args[0])
			if err != nil {
				return err
			}
			return a.snapshot(cmd.Context(), t, out)
		},
	}
	a.stateFlag(cmd)
	cmd.Flags().StringVarP(&out, "output", "o", "", "`FILE` to write, which must not be there")
	return cmd
}

func (a *app) snapshot(ctx context.Context, t target, path string) (err error) {
	ctx, cancel := interruptible(ctx)
	defer cancel()
	var to io.Writer = a.out
	done := func(error) error { return nil }
	if path != "" {
		f, err := newFile(path)
		if err != nil {
			return err
		}
		to, done = f, f.finish
	} else if isTerminal(a.out.to) {
		return usagef("the snapshot would go to a terminal: give -o FILE")
	}
	bar := a.bar("snapshot of " + t.state)
	m, err := archive.Archiver{Progress: bar.update}.Snapshot(ctx, t.state, to)
	bar.finish()
	if err = done(err); err != nil {
		return err
	}
	if path == "" {
		return nil
	}
	a.done("%s was written", path)
	if a.json {
		m.Frames = nil
		return a.printJSON(m)
	}
	_, err = fmt.Fprintf(a.out, "state %s: commit %d, %d of %d bytes of memory, in %s\n", t.state,
		m.Seq,
		m.DataBytes, m.MemoryBytes, path)
	return err
}

// madeFile is a file that gets its name when it is whole.
type madeFile struct {
	*os.File
	path string
}

func newFile(path string) (*madeFile, error) {
	if _, err := os.Lstat(path); err == nil {
		return nil, fmt.Errorf("%s: it is there already", path)
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*.tmp")
	if err != nil {
		return nil, err
	}
	return &madeFile{f, path}, nil
}

// finish gives the file its name, durably, or takes it away.
func (f *madeFile) finish(err error) error {
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Chmod(f.Name(), 0o644)
	}
	if err == nil {
		err = os.Rename(f.Name(), f.path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

func (a *app) restoreCommand() *cobra.Command {
	var state string
	var at uint64
	cmd := &cobra.Command{
		Use: "restore FILE|BACKUP --state NEW", Short: "Make a state of a snapshot or a backup",
		Long:    restoreHelp,
		Example: "  mmrun restore counter.snapshot --state counter.state",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if state == "" {
				return usagef("--state is missing: the directory to make")
			}
			return a.restore(cmd.Context(), args[0], at, state)
		},
	}
	cmd.Flags().Uint64Var(&at, "at", 0, "of a backup: commit `SEQ`, not the last one")
	cmd.Flags().StringVar(&state, "state", "", "`DIR` of the new state, which must not be there")
	complete(cmd, "state", completeDirs)
	return cmd
}

func (a *app) restore(ctx context.Context, from string, at uint64, state string) error {
	ctx, cancel := interruptible(ctx)
	defer cancel()
	if archive.IsBackup(from) {
		bar := a.bar("restoring " + state)
		seq, err := archive.Archiver{Progress: bar.update}.RestoreBackup(ctx, from, at, state)
		bar.finish()
		if err != nil {
			return err
		}
		return a.made(state, seq)
	}
	if at != 0 {
		return usagef("--at: %s is no backup", from)
	}
	var r io.Reader = a.in
	if from != "-" {
		f, err := os.Open(from)
		if err != nil {
			return err
		}
		defer f.Close()
		r = f
	}
	bar := a.bar("restoring " + state)
	seq, err := archive.Archiver{Progress: bar.update}.Restore(ctx, r, state)
	bar.finish()
	if err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	return a.made(state, seq)
}

// made tells of a state that was made.
func (a *app) made(state string, seq uint64) error {
	a.done("state %s was made", state)
	if a.json {
		return a.printJSON(struct {
			State string `json:"state"`
			Seq   uint64 `json:"seq"`
		}{state, seq})
	}
	_, err := fmt.Fprintf(a.out, "state %s: commit %d\n", state, seq)
	return err
}

func (a *app) forkCommand() *cobra.Command {
	var at string
	cmd := &cobra.Command{
		Use: "fork TARGET NEW", Short: "Make a second state of the last commit", Long: forkHelp,
		Example: "  mmrun fork counter.state experiment.state",
		Args:    cobra.ExactArgs(2), ValidArgsFunction: completeTarget,
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := a.existing(args[0])
			if err != nil {
				return err
			}
			ctx, cancel := interruptible(cmd.Context())
			defer cancel()
			bar := a.bar("fork of " + t.state)
			archiver := archive.Archiver{Progress: bar.update}
			var seq uint64
			if at == "" {
				seq, err = archiver.Fork(ctx, t.state, args[1])
			} else if seq, err = commitAt(t.state, at); err == nil {
				err = archiver.ForkAt(ctx, t.state, seq, args[1])
			}
			bar.finish()
			if err != nil {
				return err
			}
			return a.made(args[1], seq)
		},
	}
	a.stateFlag(cmd)
	cmd.Flags().StringVar(&at, "at", "",
		"of an earlier commit: its number, or a `TIME` such as 2006-01-02T15:04:05 or 15:04; "+
			"needs a history")
	return cmd
}

// errDifferent is the end of diff --exit-code with a difference.
var errDifferent = errors.New("the states differ")

func (a *app) diffCommand() *cobra.Command {
	var withBytes, exitCode bool
	cmd := &cobra.Command{
		Use: "diff A[@SEQ|TIME] B[@SEQ|TIME]", Short: "Tell how two states or commits differ",
		Long: diffHelp, Example: "  mmrun diff before.state after.state\n" +
			"  mmrun diff counter.state@2 counter.state@14:30",
		Args: cobra.ExactArgs(2), ValidArgsFunction: completeTarget,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := interruptible(cmd.Context())
			defer cancel()
			var dirs, called [2]string
			for i, text := range args {
				var done func() error
				var err error
				if dirs[i], called[i], done, err = a.commitOf(ctx, text); err != nil {
					return err
				}
				defer func() { _ = done() }()
			}
			bar := a.bar("comparing")
			d, err := archive.Archiver{Progress: bar.update}.Diff(ctx, dirs[0], dirs[1], withBytes)
			bar.finish()
			if err == nil {
				d.A.Dir, d.B.Dir = called[0], called[1]
				err = a.printDiff(d, withBytes)
			}
			if err == nil && exitCode && !d.Same() {
				err = errDifferent
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&withBytes, "bytes", false, "show the bytes of the memory that differ")
	cmd.Flags().BoolVar(&exitCode, "exit-code", false, "exit with 1 if there is a difference")
	return cmd
}

func (a *app) printDiff(d *archive.Difference, withBytes bool) error {
	if a.json {
		return a.printJSON(d)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "a  %s  commit %d, %d bytes of memory\n", d.A.Dir, d.A.Seq, d.A.MemoryBytes)
	fmt.Fprintf(&b, "b  %s  commit %d, %d bytes of memory\n", d.B.Dir, d.B.Seq, d.B.MemoryBytes)
	if !d.SameModule {
		fmt.Fprintf(&b, "modules %s and %s: globals and tables are not compared\n", d.A.Module,
			d.B.Module)
	}
	fmt.Fprintf(&b, "memory: %d bytes differ, in %d pages\n", d.Bytes, d.Pages)
	for _, r := range d.Ranges {
		fmt.Fprintf(&b, "  %#x\n    a %x\n    b %x\n", r.Offset, r.A, r.B)
	}
	if d.MoreRanges {
		fmt.Fprintf(&b, "  and more than these %d ranges\n", archive.MostRanges)
	}
	for _, g := range d.Globals {
		name := escapeName(g.Name)
		if name == "" {
			name = fmt.Sprint(g.Index)
		}
		t := typeByName(g.Type.String())
		fmt.Fprintf(&b, "global %s: %s, %s\n", name, values.Value{Type: t, Lo: g.A[0], Hi: g.A[1]},
			values.Value{Type: t, Lo: g.B[0], Hi: g.B[1]})
	}
	for _, t := range d.Tables {
		fmt.Fprintf(&b, "table %d: %d entries differ\n", t.Index, t.Entries)
	}
	for _, s := range d.Segments {
		fmt.Fprintf(&b, "segment %d: dropped in one of them\n", s)
	}
	if d.Meta {
		fmt.Fprintln(&b, "meta: differs")
	}
	if d.HostSide {
		fmt.Fprintln(&b, "what is kept beside the guest's own differs")
	}
	_, err := io.WriteString(a.out, b.String())
	return err
}

const compactHelp = `Give the blocks of a state's memory file back that hold nothing but zeros,
which a guest has cleared. Checkpoints do so by themselves for what is cleared in large pieces.`

func (a *app) compactCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "compact TARGET", Short: "Give cleared memory back to the file " +
			"system", Long: compactHelp,
		Args: exactTarget, ValidArgsFunction: completeTarget,
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := a.existing(args[0])
			if err != nil {
				return err
			}
			ctx, cancel := interruptible(cmd.Context())
			defer cancel()
			bar := a.bar("compacting " + t.state)
			freed, err := archive.Archiver{Progress: bar.update}.Compact(ctx, t.state)
			bar.finish()
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(struct {
					State string `json:"state"`
					Freed int64  `json:"freed"` // bytes
				}{t.state, freed})
			}
			_, err = fmt.Fprintf(a.out, "state %s: %d bytes given back\n", t.state, freed)
			return err
		},
	}
	a.stateFlag(cmd)
	return cmd
}

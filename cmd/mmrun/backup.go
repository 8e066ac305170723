package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/mmrun/mmrun/archive"
)

const backupHelp = `Bring a backup of a state, a directory, up to its last commit. The first time
that is a snapshot; later what was committed since, if the state keeps a history (--history of call,
run and serve), which also lets the state be in use. A state without one is shipped whole each
time, and must not be in use. After an interruption the same command goes on.

mmrun restore DEST --state NEW makes a state of the last commit that was shipped, or of --at SEQ.`

func (a *app) backupCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "backup TARGET DEST", Short: "Ship what is new in a state to a directory",
		Long: backupHelp, Example: "  mmrun backup counter.state /mnt/elsewhere/counter.backup",
		Args: cobra.ExactArgs(2), ValidArgsFunction: completeTarget,
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := a.existing(args[0])
			if err != nil {
				return err
			}
			return a.backup(cmd.Context(), t, args[1])
		},
	}
	a.stateFlag(cmd)
	return cmd
}

func (a *app) backup(ctx context.Context, t target, to string) error {
	ctx, cancel := interruptible(ctx)
	defer cancel()
	bar := a.bar("backup of " + t.state)
	report, err := archive.Archiver{Progress: bar.update}.Backup(ctx, t.state, to)
	bar.finish()
	if err != nil {
		return err
	}
	a.done("the backup was brought to commit %d", report.Seq)
	if a.json {
		return a.printJSON(report)
	}
	what := fmt.Sprintf("%d commits", report.Records)
	if report.Base != 0 {
		what = fmt.Sprintf("a snapshot of commit %d and ", report.Base) + what
	}
	_, err = fmt.Fprintf(a.out, "backup %s: commit %d; shipped: %s\n", to, report.Seq, what)
	return err
}

package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/mmrun/mmrun"
)

const checkpointHelp = `Open a state, fold its wal into its memory and globals files, and close
it. What the wal holds of a process that was killed is recovered; no event runs.`

func (a *app) checkpointCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:               "checkpoint TARGET",
		Short:             "Fold the wal of a state into its files",
		Long:              checkpointHelp,
		Args:              exactTarget,
		ValidArgsFunction: completeTarget,
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := a.target(args[0])
			if err != nil {
				return err
			}
			return a.checkpoint(cmd.Context(), t)
		},
	}
	a.openFlags(cmd)
	return cmd
}

func (a *app) checkpoint(ctx context.Context, t target) error {
	if err := t.existing(); err != nil {
		return err
	}
	s, err := a.open(ctx, openRequest{target: t, sync: mmrun.SyncNever})
	if err != nil {
		return err
	}
	finished := a.working("checkpoint of " + t.state)
	err = s.in.Checkpoint(ctx)
	finished()
	done := struct {
		State     string `json:"state"`
		Mode      string `json:"mode"`
		Seq       uint64 `json:"seq"`
		Recovered uint64 `json:"recovered"` // commits that were in the wal alone
	}{t.state, s.in.Mode().String(), s.in.Seq(), s.in.Stats().Recovered}
	if err := errors.Join(err, s.close(ctx)); err != nil {
		return err
	}
	a.done("state %s: the checkpoint at commit %d was made", t.state, done.Seq)
	if a.json {
		return a.printJSON(done)
	}
	_, err = fmt.Fprintf(a.out, "state %s: checkpoint at commit %d, %d recovered from the wal\n",
		t.state, done.Seq, done.Recovered)
	return err
}

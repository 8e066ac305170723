package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/mmrun/mmrun/fsck"
)

const repairHelp = `Bring a damaged state to its last intact commit. The files as they were are
kept in a directory beside it, STATE.damaged-N. What no intact commit is left of (a damaged page
that the wal does not hold, a torn continuous state) is refused, unless --force takes what is
there as it is. A state without damage is left alone.`

func (a *app) repairCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:               "repair TARGET",
		Short:             "Bring a damaged state to its last intact commit",
		Long:              repairHelp,
		Args:              exactTarget,
		ValidArgsFunction: completeTarget,
		RunE: func(_ *cobra.Command, args []string) error {
			t, err := a.target(args[0])
			if err != nil {
				return err
			}
			return a.repair(t)
		},
	}
	a.stateFlag(cmd)
	cmd.Flags().BoolVar(&a.force, "force", false,
		"take what is there as it is where no intact commit is left")
	return cmd
}

func (a *app) repair(t target) error {
	if err := t.existing(); err != nil {
		return err
	}
	keepPipeErrors()
	finished := a.working("repairing " + t.state)
	r, err := fsck.Repair(t.state, a.force)
	finished()
	if err != nil {
		return err
	}
	if len(r.Problems) > 0 {
		a.done("state %s: it is repaired and at commit %d, its files as they were are in %s",
			r.Dir, r.Seq, r.Backup)
	}
	if a.json {
		return a.printJSON(r)
	}
	if len(r.Problems) == 0 {
		_, err := fmt.Fprintf(a.out, "state %s is sound: nothing was done\n", r.Dir)
		return err
	}
	for _, p := range r.Problems {
		a.message("was wrong: %s", p)
	}
	for _, l := range r.Lost {
		a.message("lost: %s", l)
	}
	_, err = fmt.Fprintf(a.out, "state %s is at commit %d now; the files as they were are in %s\n",
		r.Dir, r.Seq, r.Backup)
	return err
}

package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/mmrun/mmrun/fsck"
)

const verifyHelp = `Check whether a state can be opened and whether its files hold what mmrun
wrote: header and slots of the globals file, the module, the wal and what it would bring back,
the length of the memory file and the checksums of its pages. Nothing is changed. The exit
status is 1 if a problem was found; a note is about something that costs nothing.`

func (a *app) verifyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:               "verify TARGET",
		Short:             "Check the files of a state",
		Long:              verifyHelp,
		Args:              exactTarget,
		ValidArgsFunction: completeTarget,
		RunE: func(_ *cobra.Command, args []string) error {
			t, err := a.target(args[0])
			if err != nil {
				return err
			}
			return a.verify(t)
		},
	}
	a.stateFlag(cmd)
	return cmd
}

func (a *app) verify(t target) error {
	if err := t.existing(); err != nil {
		return err
	}
	finished := a.working("verifying " + t.state)
	r, err := fsck.Verify(t.state)
	finished()
	if err != nil {
		return err
	}
	if a.json {
		err = a.printJSON(r)
	} else {
		err = a.printVerify(r)
	}
	if err != nil {
		return err
	}
	if !r.Sound {
		return fmt.Errorf("state %s is not sound", r.Dir)
	}
	if r.Module == "" {
		return nil
	}
	return t.sameModule(r.Module)
}

func (a *app) printVerify(r *fsck.VerifyReport) error {
	for _, c := range r.Checks {
		word := "ok"
		if len(c.Problems) > 0 {
			word = "PROBLEM"
		}
		if _, err := fmt.Fprintf(a.out, "%-10s %-8s %s\n", c.Name, word, c.Detail); err != nil {
			return err
		}
		for _, n := range c.Notes {
			fmt.Fprintf(a.out, "           note: %s\n", n)
		}
		for _, p := range c.Problems {
			a.message("%s: %s", c.Name, p)
		}
	}
	if r.Sound {
		_, err := fmt.Fprintf(a.out, "state %s is sound: it opens at commit %d\n", r.Dir, r.Seq)
		return err
	}
	return nil
}

package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/mmrun/mmrun"
)

const upgradeHelp = `Bring a state to a new build of its module. Either way the number of commits
goes on, and at any kill the old state or the new one is there, whole.

By export (without a flag): the old build exports mmrun_save, which prints what it holds to its
standard output; the new one exports mmrun_load, which reads that from its standard input.
--keep-memory: memory and globals carry over as they are, globals by name and then by index; that
the new build lays its data out as the old one did is your word. What has no place in the new
module is listed and refused, unless --allow names it. docs/life.md has recipes for several
languages.

The old state is kept as STATE.previous. --undo goes back to it, and refuses if commits were made
since, unless --discard-commits; --prune takes it away. --dry-run does all of it and throws it
away.`

func (a *app) upgradeCommand() *cobra.Command {
	var o mmrun.UpgradeOptions
	var undo, discard, prune bool
	cmd := &cobra.Command{
		Use: "upgrade STATE [NEW.wasm]", Short: "Bring a state to a new build of its module",
		Long: upgradeHelp,
		Example: `  mmrun upgrade counter.state counter2.wasm --keep-memory --dry-run
  mmrun upgrade counter.state --undo`,
		Args: cobra.RangeArgs(1, 2), ValidArgsFunction: completeTarget,
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := a.existing(args[0])
			if err != nil {
				return err
			}
			switch {
			case undo && prune, (undo || prune) != (len(args) == 1), discard && !undo:
				return usagef("want STATE and NEW.wasm, or STATE and one of --undo and --prune")
			case undo:
				seq, err := mmrun.UndoUpgrade(t.state, discard)
				if err != nil {
					return err
				}
				return a.made(t.state, seq)
			case prune:
				return mmrun.PruneUpgrade(t.state)
			}
			return a.upgrade(cmd, t, args[1], o)
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&o.KeepMemory, "keep-memory", false, "carry memory and globals over as they are")
	flags.BoolVar(&o.Data, "data", false,
		"with --keep-memory: write the new module's data segments over it")
	flags.StringArrayVar(&o.Allow, "allow", nil,
		"leave out what has no place, by `NAME`, as in global:x")
	flags.BoolVar(&o.DryRun, "dry-run", false, "do all of it and throw it away")
	flags.BoolVar(&undo, "undo", false, "go back to the state before the upgrade")
	flags.BoolVar(&discard, "discard-commits", false, "with --undo: whatever was committed since")
	flags.BoolVar(&prune, "prune", false, "take the state before the upgrade away")
	a.openFlags(cmd)
	a.guestFlags(cmd)
	return cmd
}

func (a *app) upgrade(cmd *cobra.Command, t target, path string, o mmrun.UpgradeOptions) error {
	if o.Data && !o.KeepMemory || len(o.Allow) > 0 && !o.KeepMemory {
		return usagef("--data and --allow go with --keep-memory")
	}
	wasm, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	ctx, cancel := interruptible(cmd.Context())
	defer cancel()
	s := &session{app: a, target: t}
	if err := s.newRuntime(ctx, wasm); err != nil {
		return err
	}
	defer s.closeRuntime(ctx)
	config, err := a.moduleConfig([]string{t.name()}, a.guestOut)
	if err != nil {
		return err
	}
	o.Options = []mmrun.Option{mmrun.WithModuleConfig(config), mmrun.WithLogger(a.logger())}
	bar := a.bar("upgrading " + t.state)
	r, err := mmrun.Upgrade(ctx, s.runtime, t.state, wasm, o)
	bar.finish()
	s.noteCache()
	if err != nil {
		if errors.Is(err, mmrun.ErrMismatch) {
			return fmt.Errorf("%w\n(--allow NAME leaves one out)", err)
		}
		return err
	}
	if !o.DryRun {
		a.done("state %s: it has the new module", t.state)
	}
	if a.json {
		return a.printJSON(r)
	}
	for _, m := range r.Mismatches {
		a.message("left out: %s: %s", m.Name, m.Why)
	}
	if o.DryRun {
		_, err = fmt.Fprintf(a.out, "state %s: it would be at commit %d, by %s\n", t.state, r.Seq,
			r.Way)
		return err
	}
	_, err = fmt.Fprintf(a.out, "state %s: commit %d, by %s; as it was, it is in %s\n", t.state,
		r.Seq, r.Way,
		r.Previous)
	return err
}

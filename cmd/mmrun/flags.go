package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
)

// wasmPage is the unit of memory growth in bytes.
const wasmPage = 65536

// stateFlag is the flag of all commands that take a TARGET.
func (a *app) stateFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&a.state, "state", "",
		"state `DIR` of a module; without it NAME.state beside NAME.wasm")
	complete(cmd, "state", completeStates)
}

// openFlags are the flags of commands that open a state.
func (a *app) openFlags(cmd *cobra.Command) {
	a.stateFlag(cmd)
	a.compileFlags(cmd)
}

// compileFlags are the flags of commands that compile a module.
func (a *app) compileFlags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&a.cache, "cache", "",
		"`DIR` for compiled modules; without it mmrun in the user's cache directory")
	flags.BoolVar(&a.noCache, "no-cache", false, "keep no compiled modules")
	flags.BoolVarP(&a.verbose, "verbose", "v", false,
		"say what is done: recoveries, checkpoints, the compile cache")
	complete(cmd, "cache", completeDirs)
}

// guestFlags are the flags of commands that run functions of a guest.
func (a *app) guestFlags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringArrayVar(&a.dirs, "dir", nil,
		"show a directory to the guest, `HOST:GUEST[:ro]`; a guest may look for them only once, "+
			"see "+
			"docs/guests.md")
	flags.StringArrayVar(&a.env, "env", nil,
		"environment variable of the guest, `KEY=VALUE`; read by many guests only once")
	flags.BoolVar(&a.lines, "debug-info", false,
		"let traps name source lines, if the module has DWARF; makes starts slower")
	flags.DurationVar(&a.timeout, "timeout", 0,
		"end an event that takes longer than this `DURATION`; costs about 2 µs a call")
	flags.Var(&a.memoryLimit, "memory-limit",
		"let the guest's memory grow to this `SIZE` at most, as in 64MiB, in wasm pages of 64KiB")
	flags.StringVar(&a.downtime, "downtime", "count",
		"`WHAT` the guest's monotonic clock makes of the time in which it was not running: count "+
			"or skip")
	complete(cmd, "downtime", cobra.FixedCompletions([]string{"count", "skip"},
		cobra.ShellCompDirectiveNoFileComp))
	complete(cmd, "dir", completeDirs)
	complete(cmd, "env", completeNothing)
	complete(cmd, "timeout", completeNothing)
	complete(cmd, "memory-limit", completeNothing)
}

// commitFlags are the flags of commands that commit events.
func (a *app) commitFlags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&a.mode, "mode", "",
		"`MODE`, atomic or continuous; without it the state's own, and atomic for a new one")
	flags.StringVar(&a.sync, "sync", "",
		"`WHEN` commits are made to survive power loss: always, never or a duration such as 1s")
	flags.StringVar(&a.tracker, "tracker", "",
		"`HOW` changed pages are found: kernel, barrier (the guest tells) or auto")
	flags.StringVar(&a.history, "history", "",
		"keep commits, so that they can be asked and forked: all, a time such as `7d`, or a size "+
			"such as 10GiB; "+
			"remembered by the state")
	flags.BoolVar(&a.force, "force", false, "take a torn continuous state as it is")
	complete(cmd, "mode", cobra.FixedCompletions([]string{
		"atomic\tan event is kept whole or not at all",
		"continuous\tevery store is kept at once, a kill inside an event tears the state",
	}, cobra.ShellCompDirectiveNoFileComp))
	complete(cmd, "tracker", cobra.FixedCompletions([]string{
		"auto\twhat suits most", "kernel\tthe operating system tells",
		"barrier\tthe guest tells: cheaper events, slower code",
	}, cobra.ShellCompDirectiveNoFileComp))
	complete(cmd, "sync", cobra.FixedCompletions([]string{
		"always\tbefore each answer", "never\tat checkpoints only", "1s\tat most so long after " +
			"an answer",
	}, cobra.ShellCompDirectiveNoFileComp))
}

// size is a flag of a number of bytes.
type size uint64

var units = []struct {
	suffix string
	bytes  uint64
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"", 1}}

// Set reads a number with or without a unit.
func (s *size) Set(text string) error {
	for _, u := range units {
		digits, ok := strings.CutSuffix(text, u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(digits, 10, 64)
		if err != nil || n > math.MaxInt64/u.bytes || n*u.bytes < wasmPage {
			break
		}
		*s = size(n * u.bytes)
		return nil
	}
	return fmt.Errorf("want a number of bytes, KiB, MiB or GiB, at least 64KiB")
}

func (s *size) String() string {
	if *s == 0 {
		return "" // no default to show in the help
	}
	for i := len(units) - 2; i >= 0; i-- {
		if u := units[i]; uint64(*s)%u.bytes == 0 {
			return fmt.Sprintf("%d%s", uint64(*s)/u.bytes, u.suffix)
		}
	}
	return strconv.FormatUint(uint64(*s), 10)
}

func (s *size) Type() string { return "size" }

// wasmPages is how many wasm pages have room, at most those that 32 bits can address.
func (s size) wasmPages() uint32 {
	return uint32(min(uint64(s)/wasmPage, 1<<16))
}

package rewriter

import (
	"slices"
	"strings"

	"github.com/mmrun/mmrun/rewriter/internal/barrier"
	"github.com/mmrun/mmrun/rewriter/internal/suspend"
	"github.com/mmrun/mmrun/rewriter/internal/wasm"
)

// Reserved is how the names of all exports begin that the rewrite adds.
const Reserved = "mmrun:"

// Options says what a rewrite does beyond making the state reachable. The zero value is a rewrite
// that does nothing else. Options are comparable: with the same module, equal options give equal
// bytes.
type Options struct {
	// Barrier lets the guest tell which pages of its memory it writes: see [Barrier].
	Barrier bool
	// Suspend lets a host leave a program in the middle of its calls, at those of imports that
	// wait, and come back to it later: see [Suspend]. It must not go with Barrier, whose checks
	// hold as long as nobody looks in between.
	Suspend bool
	// SuspendEverywhere is Suspend where each import is one that waits, and each call one that can
	// be left: for tests.
	SuspendEverywhere bool
}

// pass is one step of a rewrite. It knows nothing of other passes but what they leave in the
// module.
type pass struct {
	name string
	run  func(*wasm.Module, *Info) error
}

// passes are the steps in their order.
func (o Options) passes() []pass {
	passes := []pass{
		{"persist", persist},
	}
	if o.Suspend || o.SuspendEverywhere {
		passes = append(passes, pass{"suspend", func(m *wasm.Module, info *Info) error {
			return addSuspend(m, info, o.SuspendEverywhere)
		}})
	}
	if o.Barrier { // the last one, so that it sees every store
		passes = append(passes, pass{"barrier", addBarrier})
	}
	return passes
}

// waiting are the imports at which a program can wait.
var waiting = map[string][]string{
	"wasi_snapshot_preview1": {"fd_read", "poll_oneoff", "sched_yield", "sock_accept", "sock_recv"},
	"wasi_unstable":          {"fd_read", "poll_oneoff", "sched_yield", "sock_recv"},
	"mmrun":                  {"wait"},
}

func addSuspend(m *wasm.Module, info *Info, everywhere bool) error {
	waits := func(module, name string) bool { return slices.Contains(waiting[module], name) }
	sites, err := suspend.Apply(m, Reserved, waits, everywhere)
	info.Suspend = &Suspend{State: Reserved + suspend.State, SP: Reserved + suspend.SP,
		Limit: Reserved + suspend.Limit, Calls: Reserved + suspend.Calls, Sites: sites}
	return err
}

func addBarrier(m *wasm.Module, info *Info) error {
	if m.Memory == nil {
		return nil
	}
	info.Barrier = &Barrier{Count: Reserved + barrier.Count, Next: Reserved + barrier.Next,
		Forget: Reserved + barrier.Forget, Host: Reserved + barrier.Host,
		Active: Reserved + barrier.Active, Foreign: Reserved + barrier.Foreign}
	for i := range barrier.Noted {
		info.Barrier.Pages = append(info.Barrier.Pages, Reserved+barrier.PageName(i))
	}
	var err error
	info.Barrier.HostHidden, err = barrier.Apply(m, Reserved)
	return err
}

// Rewrite returns the rewritten module and what a host must know about it. The input is not
// modified. A module that has been rewritten already is refused: nothing tells it from one whose
// code was made to reach what a rewrite adds. Errors are *FormatError and *UnsupportedError.
// Rewrite is a pure function and safe for concurrent use.
func Rewrite(module []byte, options Options) ([]byte, Info, error) {
	m, err := wasm.Decode(module)
	if err != nil {
		return nil, Info{}, publicError(err)
	}
	if err := refuseReserved(m); err != nil {
		return nil, Info{}, publicError(err)
	}
	var info Info
	mark := mark{Info: &info}
	for _, p := range options.passes() {
		if err := p.run(m, &info); err != nil {
			return nil, Info{}, publicError(err)
		}
		mark.Passes = append(mark.Passes, p.name)
	}
	return m.Encode(mark.section()), info, nil
}

// IsProgram tells whether a module is a program with a main loop of its own: it exports _start, and
// no _initialize.
func IsProgram(module []byte) bool {
	m, err := wasm.Decode(module)
	return err == nil && m.ExportsFunc("_start", nil, nil) &&
		!m.ExportsFunc("_initialize", nil, nil)
}

// refuseReserved refuses what only a rewrite adds.
func refuseReserved(m *wasm.Module) error {
	if m.Custom(markerName) {
		return wasm.Unsupported(0,
			"the module has been rewritten already: it has a custom section %q; "+
				"take the module as it was before", markerName)
	}
	for _, e := range m.Exports {
		if strings.HasPrefix(e.Name, Reserved) {
			return wasm.Unsupported(0,
				"the module exports %q: names that start with %s are reserved for "+
					"what a rewrite adds", e.Name, Reserved)
		}
	}
	return nil
}

package spectest_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/internal/testkit/crash"
	"github.com/mmrun/mmrun/internal/testkit/oracle"
	"github.com/mmrun/mmrun/rewriter"
)

// plain runs modules as they are, on plain wazero.
type plain struct{ rt wazero.Runtime }

func (p plain) load(wasm []byte, registerAs string) (subject, error) {
	return p.live(wasm, registerAs, "")
}

func (p plain) rewrites() bool { return false }

// live makes an instance of a module as it is.
func (p plain) live(wasm []byte, registerAs, because string) (*instance, error) {
	mod, err := p.rt.InstantiateWithConfig(ctx, wasm, wazero.NewModuleConfig().WithName(registerAs))
	if err != nil {
		return nil, err
	}
	return &instance{mod: mod, because: because}, nil
}

// fallback is live for a machine that cannot run the module its own way. An error tells what it is
// an exception to, so that the assertions which expect one are not counted as the machine's own.
func (p plain) fallback(wasm []byte, registerAs, because string) (subject, error) {
	in, err := p.live(wasm, registerAs, because)
	if err != nil {
		return nil, &onPlainWazero{err, because}
	}
	return in, nil
}

type onPlainWazero struct {
	error
	because string
}

type instance struct {
	mod     api.Module
	because string
}

func (i *instance) exception() string { return i.because }

func (i *instance) invoke(function string, args []uint64) ([]uint64, error) {
	f := i.mod.ExportedFunction(function)
	if f == nil {
		return nil, fmt.Errorf("no function %q", function)
	}
	return f.Call(ctx, args...)
}

func (i *instance) get(global string) (uint64, error) {
	g := i.mod.ExportedGlobal(global)
	if g == nil {
		return 0, fmt.Errorf("no global %q", global)
	}
	return g.Get(), nil
}

// rewritten runs rewritten modules on plain wazero.
type rewritten struct {
	plain
	options rewriter.Options
}

func (r rewritten) load(wasm []byte, registerAs string) (subject, error) {
	if r.options.SuspendEverywhere { // which needs a module that is valid
		c, err := r.rt.CompileModule(ctx, wasm)
		if err != nil {
			return nil, err
		}
		if err := c.Close(ctx); err != nil {
			return nil, err
		}
	}
	m, err := oracle.CompileWith(ctx, r.rt, wasm, r.options)
	if err != nil {
		if reason := refused(err); reason != "" {
			return r.fallback(wasm, registerAs, reason)
		}
		return nil, err
	}
	mod, err := m.Start(ctx, wazero.NewModuleConfig().WithName(registerAs))
	if err != nil {
		return nil, err
	}
	return &instance{mod: mod}, nil
}

func (r rewritten) rewrites() bool { return true }

// refused gives the reason why a module cannot be rewritten, without what is of this module only.
func refused(err error) string {
	var u *rewriter.UnsupportedError
	if !errors.As(err, &u) {
		return ""
	}
	reason, _, _ := strings.Cut(u.Reason, ":")
	reason, _, _ = strings.Cut(reason, " (")
	return "refused: " + strings.Map(func(r rune) rune {
		if '0' <= r && r <= '9' {
			return 'N'
		}
		return r
	}, reason)
}

const (
	exporter = "other modules import from it, so it has to stay in place while they live"
	foreign  = "its state holds a reference to a host object or to another module's function"
)

// persisted runs modules in state directories, and opens one for each command anew.
type persisted struct {
	plain
	t    testing.TB
	dir  string
	mode mmrun.Mode
	kill bool // go on with the files as they are before the state is closed, as a kill leaves them
	how  mmrun.Tracker

	states int
}

func (p *persisted) load(wasm []byte, registerAs string) (subject, error) {
	if registerAs != "" {
		return p.fallback(wasm, registerAs, exporter)
	}
	p.states++
	s := &state{machine: p, wasm: wasm, dir: filepath.Join(p.dir, strconv.Itoa(p.states))}
	err := s.event(func(*mmrun.Instance) error { return nil })
	if err == nil {
		return s, nil
	}
	if entries, _ := os.ReadDir(s.dir); len(entries) > 0 {
		p.t.Errorf("a module that was refused has left a state directory behind: %v", err)
	}
	if reason := refused(err); reason != "" {
		return p.fallback(wasm, "", reason)
	}
	if errors.Is(err, mmrun.ErrUnsupported) {
		return p.fallback(wasm, "", foreign)
	}
	return nil, err
}

func (p *persisted) rewrites() bool { return true }

type state struct {
	machine *persisted
	wasm    []byte
	dir     string
	past    []func(subject) // what happened before the state could not be kept any more
	live    *instance
}

// event opens the state, does one thing and closes it.
func (s *state) event(do func(in *mmrun.Instance) error) (err error) {
	in, err := mmrun.Open(ctx, s.machine.rt, s.dir, s.wasm,
		mmrun.WithMode(s.machine.mode), mmrun.WithTracker(s.machine.how),
		mmrun.WithWALSize(mmrun.MinWALSize))
	if err != nil {
		return err
	}
	err = do(in)
	if s.machine.kill {
		killed := s.dir
		s.machine.states++
		s.dir = filepath.Join(s.machine.dir, strconv.Itoa(s.machine.states))
		if err := crash.CopyState(s.dir, killed); err != nil {
			s.machine.t.Fatal(err)
		}
		defer os.RemoveAll(killed)
	}
	closeErr := in.Close(ctx)
	if errors.Is(err, mmrun.ErrUnsupported) && errors.Is(closeErr, mmrun.ErrPoisoned) {
		closeErr = nil // continuous: what cannot be kept cannot be taken back either
	}
	if closeErr != nil {
		s.machine.t.Errorf("close: %v", closeErr)
	}
	return err
}

func (s *state) exception() string {
	if s.live != nil {
		return foreign
	}
	return ""
}

func (s *state) invoke(function string, args []uint64) (results []uint64, err error) {
	if s.live != nil {
		return s.live.invoke(function, args)
	}
	err = s.event(func(in *mmrun.Instance) (err error) {
		results, err = in.Call(ctx, function, args...)
		return err
	})
	if errors.Is(err, mmrun.ErrUnsupported) {
		if err := s.leave(); err != nil {
			return nil, err
		}
		return s.live.invoke(function, args)
	}
	s.past = append(s.past, func(to subject) { _, _ = to.invoke(function, args) })
	return results, err
}

func (s *state) get(global string) (v uint64, err error) {
	if s.live != nil {
		return s.live.get(global)
	}
	err = s.event(func(in *mmrun.Instance) error {
		return in.Update(ctx, func(tx *mmrun.Tx) (err error) {
			v, err = (&instance{mod: tx.Module()}).get(global)
			return err
		})
	})
	return v, err
}

// leave goes on with a plain instance that has seen the same calls.
func (s *state) leave() (err error) {
	if s.live, err = s.machine.live(s.wasm, "", foreign); err != nil {
		return err
	}
	for _, call := range s.past {
		call(s.live)
	}
	return nil
}

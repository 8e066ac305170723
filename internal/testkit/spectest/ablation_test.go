package spectest_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/mmrun/mmrun/internal/testkit/oracle"
	"github.com/mmrun/mmrun/internal/testkit/spectest"
)

// resumed runs rewritten modules on plain wazero and moves their state by hand into a fresh
// instance before each command, with a part of it left out.
type resumed struct {
	plain
	omit oracle.Omission
}

func (r resumed) rewrites() bool { return true }

func (r resumed) load(wasm []byte, registerAs string) (subject, error) {
	if registerAs != "" {
		return r.fallback(wasm, registerAs, exporter)
	}
	m, err := oracle.Compile(ctx, r.rt, wasm)
	if err != nil {
		if reason := refused(err); reason != "" {
			return r.fallback(wasm, registerAs, reason)
		}
		return nil, err
	}
	mod, err := m.Start(ctx, wazero.NewModuleConfig().WithName(""))
	if err != nil {
		return nil, err
	}
	return &moved{m: m, omit: r.omit, instance: instance{mod: mod}}, nil
}

type moved struct {
	instance
	m    *oracle.Module
	omit oracle.Omission
}

func (s *moved) invoke(function string, args []uint64) ([]uint64, error) {
	if err := s.move(); err != nil {
		return nil, err
	}
	return s.instance.invoke(function, args)
}

func (s *moved) get(global string) (uint64, error) {
	if err := s.move(); err != nil {
		return 0, err
	}
	return s.instance.get(global)
}

func (s *moved) move() error {
	if s.because != "" {
		return nil
	}
	state, err := oracle.Save(ctx, s.mod, s.m.Info)
	if errors.Is(err, oracle.ErrForeign) {
		s.because = foreign
		return nil
	}
	if err != nil {
		return err
	}
	if err := s.mod.Close(ctx); err != nil {
		return err
	}
	s.mod, err = s.m.Resume(ctx, wazero.NewModuleConfig().WithName(""), state, s.omit)
	return err
}

// What the scripts are worth as an oracle of resuming: with any part of it left out, assertions
// fail, and with nothing left out none does.
func TestSpecNoticesWhatIsLeftOut(t *testing.T) {
	ablations := []struct {
		name    string
		omit    oracle.Omission
		scripts []string // of suite v2
	}{
		{"nothing is left out", oracle.Nothing, []string{"global", "table_copy", "bulk",
			"float_exprs", "start"}},
		{"globals are not restored", oracle.Globals, []string{"global"}},
		{"tables are not restored", oracle.Tables, []string{"table_copy"}},
		{"segments are there again", oracle.Segments, []string{"bulk"}},
		{"data segments are active", oracle.DataIsActive, []string{"float_exprs"}},
		{"start functions run again", oracle.StartsAgain, []string{"start"}},
	}
	dir := wazeroDir(t)
	host, err := spectest.Host(dir)
	if err != nil {
		t.Fatal(err)
	}
	suite := spectest.Suites[slices.IndexFunc(spectest.Suites,
		func(s spectest.Suite) bool { return s.Name == "v2" })]
	scripts, err := suite.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range ablations {
		t.Run(a.name, func(t *testing.T) {
			failures := 0
			for _, script := range scripts {
				if !slices.Contains(a.scripts, script.Name) {
					continue
				}
				machine := resumed{plain{newRuntime(t, suite.Features|api.CoreFeaturesV2, host)},
					a.omit}
				r := &runner{script: script, machine: machine, tally: &tally{}}
				r.errorf = func(format string, args ...any) {
					if failures++; failures == 1 {
						t.Logf("%s", fmt.Sprintf(format, args...))
					}
				}
				r.run()
				t.Logf("%s: %d assertions, %d failures", script.Name, r.tally.assertions,
					r.failures)
			}
			if a.omit == oracle.Nothing && failures > 0 {
				t.Errorf("%d failures although nothing was left out", failures)
			}
			if a.omit != oracle.Nothing && failures == 0 {
				t.Error("no assertion has noticed")
			}
		})
	}
}

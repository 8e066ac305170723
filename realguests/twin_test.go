package realguests

import (
	"context"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/mmrun/mmrun/internal/testkit/oracle"
)

// twin is an instance without mmrun: the rewritten module on plain wazero.
type twin struct {
	guest  *guest
	world  *world
	module *oracle.Module
	mod    api.Module
	meta   []byte

	functions map[string]api.Function // of mod; a look-up costs microseconds
}

// step is what an event did, as the twin or a child saw it.
type step struct {
	Event  uint64
	Answer string
	Before string // SHA-256 of the state before the event
	After  string
}

func newTwin(tb testing.TB, g *guest, wasm []byte) *twin {
	tb.Helper()
	rt := wazero.NewRuntimeWithConfig(ctx,
		wazero.NewRuntimeConfig().WithCompilationCache(cache(tb)))
	tb.Cleanup(func() { rt.Close(ctx) })
	t := &twin{guest: g, world: newWorld()}
	if err := g.instantiateHost(rt, t.world); err != nil {
		tb.Fatal(err)
	}
	var err error
	if t.module, err = oracle.Compile(ctx, rt, wasm); err != nil {
		tb.Fatal(err)
	}
	if t.mod, err = t.module.Start(ctx, t.world.config()); err != nil {
		tb.Fatal(err)
	}
	return t
}

func (t *twin) Call(ctx context.Context, name string, params ...uint64) ([]uint64, error) {
	f, ok := t.functions[name]
	if !ok {
		if t.functions == nil {
			t.functions = make(map[string]api.Function)
		}
		f = t.mod.ExportedFunction(name)
		t.functions[name] = f
	}
	return f.Call(ctx, params...)
}

func (t *twin) Memory() api.Memory { return t.mod.Memory() }
func (t *twin) Module() api.Module { return t.mod }
func (t *twin) Meta() []byte       { return t.meta }
func (t *twin) SetMeta(b []byte)   { t.meta = b }

// step does one event.
func (t *twin) step(n uint64) (s step, err error) {
	s.Event = n
	if s.Before, err = sum(t.mod, t.module.Info); err != nil {
		return s, err
	}
	if s.Answer, err = t.guest.run(t.world, n, t); err != nil {
		return s, err
	}
	s.After, err = sum(t.mod, t.module.Info)
	return s, err
}

// life does all events without interruption.
func (t *twin) life(tb testing.TB) []step {
	tb.Helper()
	var steps []step
	for n := range t.guest.events {
		s, err := t.step(uint64(n) + 1)
		if err != nil {
			tb.Fatal(err)
		}
		steps = append(steps, s)
	}
	return steps
}

// resume moves the state by hand into a new instance, with a part of it left out.
func (t *twin) resume(omit oracle.Omission) error {
	state, err := oracle.Save(ctx, t.mod, t.module.Info)
	if err != nil {
		return err
	}
	if err := t.mod.Close(ctx); err != nil {
		return err
	}
	t.functions = nil
	t.mod, err = t.module.Resume(ctx, t.world.config(), state, omit)
	return err
}

package crash

import (
	"context"
	"fmt"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/mmrun/mmrun/rewriter"
)

// Twin is a guest on plain wazero. Events that fail are not applied to it, so it needs no rollback:
// it is what the state must be.
type Twin struct {
	Seq  uint64 // of the last commit; the first run is commit 1
	Meta []byte // of the last commit
	Info rewriter.Info

	workload *Workload
	rt       wazero.Runtime
	original []byte
	compiled wazero.CompiledModule
	mod      api.Module
	log      []Event // all that were committed
}

// NewTwin is a twin after its first run. rt must outlive it and has what the guest imports.
func NewTwin(ctx context.Context, rt wazero.Runtime, w *Workload) (*Twin, error) {
	// The rewritten module shows its private globals. CheckOriginal holds it against the other.
	wasm, info, err := rewriter.Rewrite(w.Wasm, rewriter.Options{})
	if err != nil {
		return nil, err
	}
	compiled, err := rt.CompileModule(ctx, wasm)
	if err != nil {
		return nil, err
	}
	t := &Twin{Info: info, workload: w, rt: rt, original: w.Wasm, compiled: compiled}
	return t, t.begin(ctx)
}

// begin runs the guest for the first time.
func (t *Twin) begin(ctx context.Context) (err error) {
	if t.mod != nil {
		if err := t.mod.Close(ctx); err != nil {
			return err
		}
	}
	if t.mod, err = t.rt.InstantiateModule(ctx, t.compiled,
		ModuleConfig().WithStartFunctions()); err != nil {
		return err
	}
	t.Seq, t.Meta = 1, nil
	names := []string{t.Info.Init, t.Info.Start}
	if t.Info.Initialize {
		names = append(names, "_initialize")
	}
	for _, name := range names {
		if name == "" {
			continue
		}
		if _, err := t.mod.ExportedFunction(name).Call(ctx); err != nil {
			return fmt.Errorf("twin: %s: %w", name, err)
		}
	}
	return nil
}

// Close ends the twin.
func (t *Twin) Close(ctx context.Context) error { return t.mod.Close(ctx) }

// MemoryBytes is the size of the memory.
func (t *Twin) MemoryBytes() uint64 {
	return uint64(len(memoryOf(t.mod, t.Info)))
}

// Event is the workload's event n for the state that the twin is in.
func (t *Twin) Event(n uint64) Event { return t.workload.Event(n, t.MemoryBytes()) }

// Apply does what e must do. It tells whether e commits, and the digest of its answers if it does.
func (t *Twin) Apply(ctx context.Context, e Event) (answers uint64, commits bool, err error) {
	switch e.End {
	case Traps, Refused, Panics:
		return 0, false, nil
	}
	answers, err = Run(plain{ctx, t.mod}, e)
	if err != nil && e.End == MayTrap {
		return 0, false, t.replay(ctx)
	}
	if err != nil {
		return 0, false, fmt.Errorf("twin: event %v: %w", e, err)
	}
	t.Seq++
	t.log = append(t.log, e)
	if e.Meta != nil {
		t.Meta = e.Meta
	}
	return answers, true, nil
}

// replay undoes an event that trapped half way, in the one way that needs no trust: all over again.
func (t *Twin) replay(ctx context.Context) error {
	if err := t.begin(ctx); err != nil {
		return err
	}
	log := t.log
	t.log = nil
	for _, e := range log {
		if _, _, err := t.Apply(ctx, e); err != nil {
			return fmt.Errorf("again: %w", err)
		}
	}
	return nil
}

// Image is the state that must be.
func (t *Twin) Image(ctx context.Context) (Image, error) { return Observe(ctx, t.mod, t.Info) }

// CheckOriginal does all committed events on the module as it was before it was rewritten, and
// compares the memory.
func (t *Twin) CheckOriginal(ctx context.Context) error {
	mod, err := t.rt.InstantiateWithConfig(ctx, t.original,
		ModuleConfig().WithStartFunctions("_initialize"))
	if err != nil {
		return err
	}
	defer mod.Close(ctx)
	for _, e := range t.log {
		if _, err := Run(plain{ctx, mod}, e); err != nil {
			return fmt.Errorf("original module: event %v: %w", e, err)
		}
	}
	got, want := Image{Memory: memoryOf(t.mod, t.Info)}, Image{Memory: memoryOf(mod, t.Info)}
	if diff := got.Diff(want); diff != "" {
		return fmt.Errorf("the rewritten module does not do what the original does: %s", diff)
	}
	return nil
}

// plain is a wazero instance as a Machine.
type plain struct {
	ctx context.Context
	mod api.Module
}

func (p plain) Memory() api.Memory { return p.mod.Memory() }

func (p plain) Call(name string, params ...uint64) ([]uint64, error) {
	f := p.mod.ExportedFunction(name)
	if f == nil {
		return nil, fmt.Errorf("no export %s", name)
	}
	results, err := f.Call(p.ctx, params...)
	return Mask(results, f.Definition().ResultTypes()), err
}

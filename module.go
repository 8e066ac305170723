package mmrun

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/mmrun/mmrun/internal/clock"
	"github.com/mmrun/mmrun/internal/engine"
	"github.com/mmrun/mmrun/internal/errs"
	"github.com/mmrun/mmrun/internal/guest"
	"github.com/mmrun/mmrun/internal/section"
	"github.com/mmrun/mmrun/rewriter"
)

// Module is a module that is ready to run in one runtime: rewritten, hashed and compiled once. Any
// number of instances can be opened from it. It is safe for concurrent use.
type Module struct {
	code *guest.Code
}

// CompileOption is an argument of Compile. There are none yet.
type CompileOption func(*compileOptions) error

type compileOptions struct{}

// Compile makes a module ready to run in rt. The module's bytes must not be changed afterwards.
// What it imports (WASI, host modules) must be in the runtime when an instance is opened.
func Compile(ctx context.Context, rt wazero.Runtime, wasm []byte,
	opts ...CompileOption) (*Module, error) {
	if rt == nil {
		return nil, errors.New("the runtime is nil")
	}
	var o compileOptions
	for _, opt := range opts {
		if opt == nil {
			return nil, errors.New("a compile option is nil")
		}
		if err := opt(&o); err != nil {
			return nil, err
		}
	}
	code, err := guest.Compile(ctx, rt, wasm, sha256.Sum256(wasm), rewriter.Options{})
	if err != nil {
		return nil, err
	}
	return &Module{code: code}, nil
}

// Open resumes the instance of the module kept in dir, or creates it there; see the function Open.
// It neither rewrites nor hashes nor compiles anything.
func (m *Module) Open(ctx context.Context, dir string, opts ...Option) (*Instance, error) {
	o, err := newOptions(opts)
	if err != nil {
		return nil, fmt.Errorf("state %s: %w", dir, err)
	}
	return open(ctx, dir, engine.Source{
		Hash: &m.code.Hash,
		Code: func([]byte, [32]byte, rewriter.Options) (*guest.Code, error) {
			if !m.code.Retain() {
				return nil, errors.New("the module has been closed")
			}
			return m.code, nil
		},
	}, o)
}

// Hash is the SHA-256 of the module as it was given.
func (m *Module) Hash() [32]byte { return m.code.Hash }

// Wasm is the module as it was given; not to be changed.
func (m *Module) Wasm() []byte { return m.code.Wasm }

// StateModule tells which module the state in dir belongs to, by its SHA-256. It opens nothing and
// needs permission to read alone.
func StateModule(dir string) (hash [32]byte, err error) {
	return engine.ModuleOf(filepath.Clean(dir))
}

// Close gives the compiled code up. It goes when the last instance has been closed.
func (m *Module) Close(ctx context.Context) error { return m.code.Release(ctx) }

// Functions lists the module's exported functions, by name.
func (m *Module) Functions() map[string]api.FunctionDefinition { return exportedFunctions(m.code) }

// Open resumes the instance kept in dir, or creates it there from wasm. A nil wasm takes the module
// kept in dir. Another module than the one that created the state is refused (ErrModuleMismatch),
// and so is a state that somebody else has open (ErrLocked). Whoever opens many instances of one
// module compiles it once, with [Compile].
//
// The first run of a module writes its data segments and runs its start function and, if it
// exports one, _initialize; that is commit 1. A resume runs none of them. A state directory is
// created whole or not at all.
//
// The caller owns the runtime, and what the module imports (WASI, host modules) must have been
// instantiated in it. The runtime must outlive the instance. The end of ctx does not end the
// instance.
//
// The number of bytes read from the memory file does not depend on its size.
func Open(ctx context.Context, rt wazero.Runtime, dir string, wasm []byte,
	opts ...Option) (*Instance, error) {
	if rt == nil {
		return nil, errors.New("the runtime is nil")
	}
	o, err := newOptions(opts)
	if err != nil {
		return nil, fmt.Errorf("state %s: %w", dir, err)
	}
	src := engine.Source{Code: func(kept []byte, hash [32]byte, form rewriter.Options) (
		*guest.Code, error) {
		if wasm != nil {
			kept = wasm
		}
		return guest.Compile(ctx, rt, kept, hash, form)
	}}
	if wasm != nil {
		hash := sha256.Sum256(wasm)
		src.Hash = &hash
	}
	return open(ctx, dir, src, o)
}

func open(ctx context.Context, dir string, src engine.Source, o *engine.Options) (*Instance,
	error) {
	in := &Instance{functions: make(map[string]*Function)}
	if h, ok := o.Handler.(*stdio); ok {
		// An option may be used for several instances, each of which has its own.
		in.io = &stdio{rest: h.rest, turn: make(chan struct{}, 1)}
		o.Config = o.Config.WithStdin(in.io).WithStdout(stdout{in.io})
	}
	if o.Program {
		in.program = newProgram(in)
		o.Config = in.program.configure(o.Config)
	}
	if o.Clock {
		in.clock = clock.New(o.Now, time.Now)
		if in.program != nil {
			in.program.clock = in.clock.Read
		}
		o.Config = o.Config.WithNanotime(in.clock.Read, 1)
		o.FirstKept = func() []engine.Change {
			in.keepClock()
			return slices.Clone(in.event.extras.Kept)
		}
	}
	keeper := &historyKeeper{dir: filepath.Clean(dir)}
	in.history = keeper
	if err := keeper.configure(o); err != nil {
		return nil, errs.State(keeper.dir, "history", err)
	}
	in.notes = o.Notes || keeper.on
	store, err := engine.Open(ctx, filepath.Clean(dir), src, o)
	if err != nil {
		return nil, err
	}
	in.store = store
	in.event.extras.Kept = in.event.extras.Kept[:0]
	if in.clock != nil {
		in.clock.Resume(store.Kept(section.Clock), !o.SkipDowntime)
	}
	if in.io != nil {
		if b := in.io.take(); b != nil { // of the first run
			_ = in.io.release(b)
		}
	}
	for _, f := range store.Guest().Code().Compiled().ImportedFunctions() {
		module, _, _ := f.Import()
		in.hostCalls = in.hostCalls || !strings.HasPrefix(module, "wasi_")
	}
	if err := keeper.ensureBase(ctx, in); err != nil {
		return nil, errors.Join(err, in.Close(context.WithoutCancel(ctx)))
	}
	if err := in.tellResumed(ctx); err != nil {
		return nil, errors.Join(err, in.Close(context.WithoutCancel(ctx)))
	}
	return in, nil
}

package guest

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/mmrun/mmrun/internal/errs"
	"github.com/mmrun/mmrun/mmapmem"
	"github.com/mmrun/mmrun/rewriter"
)

// Code is a module made ready to run in one runtime: hashed once, and rewritten and compiled once
// in each variant that is needed, for all its guests. It is safe for concurrent use.
type Code struct {
	Wasm []byte   // the module as the user gave it; not to be changed
	Hash [32]byte // its SHA-256
	Info rewriter.Info

	runtime wazero.Runtime
	first   wazero.CompiledModule // of the variant that was made first

	mu       sync.Mutex
	variants map[rewriter.Options]*variant
	users    int // whoever compiled it, and each guest; at none the compiled code goes
}

// variant is the code as one rewrite has made it.
type variant struct {
	info     rewriter.Info
	compiled wazero.CompiledModule
}

// Compile rewrites and compiles a module of that SHA-256, in the variant that will be needed. The
// caller is its first user.
func Compile(ctx context.Context, rt wazero.Runtime, wasm []byte, hash [32]byte,
	options rewriter.Options) (*Code, error) {
	v, err := newVariant(ctx, rt, wasm, options)
	if err != nil {
		return nil, err
	}
	return &Code{
		Wasm: wasm, Hash: hash, Info: v.info, runtime: rt, first: v.compiled, users: 1,
		variants: map[rewriter.Options]*variant{options: v},
	}, nil
}

func newVariant(ctx context.Context, rt wazero.Runtime, wasm []byte, options rewriter.Options) (
	*variant, error) {
	if options.Suspend {
		if err := validate(ctx, wasm); err != nil {
			return nil, fmt.Errorf("module: compile: %w", err)
		}
	}
	rewritten, info, err := rewriter.Rewrite(wasm, options)
	var unsupported *rewriter.UnsupportedError
	switch {
	case errors.As(err, &unsupported):
		return nil, errs.As(errs.ErrUnsupported, fmt.Errorf("module: %w", err))
	case err != nil:
		return nil, fmt.Errorf("module: %w", err)
	}
	compiled, err := rt.CompileModule(ctx, rewritten)
	if err != nil {
		return nil, fmt.Errorf("module: compile: %w", err)
	}
	return &variant{info, compiled}, nil
}

// validate refuses a module that is not valid as it is: the pass suspend drops what cannot be
// reached.
func validate(ctx context.Context, wasm []byte) error {
	rt := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter().WithCoreFeatures(
		api.CoreFeaturesV2|experimental.CoreFeaturesThreads|experimental.CoreFeaturesTailCall|
			experimental.CoreFeaturesExtendedConst|experimental.CoreFeaturesExceptionHandling))
	defer rt.Close(ctx)
	m, err := rt.CompileModule(ctx, wasm)
	if err == nil {
		err = m.Close(ctx)
	}
	return err
}

// variant gives the code in one form; it is made when it is first asked for.
func (c *Code) variant(ctx context.Context, options rewriter.Options) (*variant, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if v, ok := c.variants[options]; ok {
		return v, nil
	}
	v, err := newVariant(ctx, c.runtime, c.Wasm, options)
	if err == nil {
		c.variants[options] = v
	}
	return v, err
}

// Compiled is what wazero knows of the rewritten module. What of it is the module's own is the same
// in all variants.
func (c *Code) Compiled() wazero.CompiledModule { return c.first }

// Retain counts one more user. It is false when the last one has gone already.
func (c *Code) Retain() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.users == 0 {
		return false
	}
	c.users++
	return true
}

// Release counts one user less; the compiled code goes with the last one.
func (c *Code) Release(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.users--; c.users > 0 {
		return nil
	}
	var err error
	for _, v := range c.variants {
		err = errors.Join(err, v.compiled.Close(ctx))
	}
	return err
}

// MaxPages is how large the memory of a module may become, in wasm pages.
func MaxPages(info *rewriter.Info) uint32 {
	switch m := info.Memory; {
	case m == nil:
		return 0
	case m.HasMax:
		return min(m.Max, mmapmem.MaxWasmPages)
	}
	return mmapmem.MaxWasmPages
}

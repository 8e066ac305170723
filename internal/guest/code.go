package guest

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/tetratelabs/wazero"

	"github.com/mmrun/mmrun/internal/errs"
	"github.com/mmrun/mmrun/mmapmem"
	"github.com/mmrun/mmrun/rewriter"
)

// Code is a module made ready to run in one runtime: rewritten, hashed and compiled once for all
// its guests. It is safe for concurrent use.
type Code struct {
	Wasm []byte   // the module as the user gave it; not to be changed
	Hash [32]byte // its SHA-256
	Info rewriter.Info

	runtime  wazero.Runtime
	compiled wazero.CompiledModule

	mu    sync.Mutex
	users int // whoever compiled it, and each guest; at none the compiled code goes
}

// Compile rewrites and compiles a module of that SHA-256. The caller is its first user.
func Compile(ctx context.Context, rt wazero.Runtime, wasm []byte,
	hash [32]byte) (*Code, error) {
	rewritten, info, err := rewriter.Rewrite(wasm, rewriter.Options{})
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
	return &Code{
		Wasm: wasm, Hash: hash, Info: info,
		runtime: rt, compiled: compiled, users: 1,
	}, nil
}

// Compiled is what wazero knows of the rewritten module.
func (c *Code) Compiled() wazero.CompiledModule { return c.compiled }

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
	return c.compiled.Close(ctx)
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

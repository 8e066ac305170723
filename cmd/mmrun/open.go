package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/rewriter"
	"github.com/mmrun/mmrun/vfs"
)

// features is everything that wazero can do. What a state cannot be kept of, such as shared memory,
// mmrun refuses by name.
const features = api.CoreFeaturesV2 | experimental.CoreFeaturesThreads | experimental.CoreFeaturesTailCall |
	experimental.CoreFeaturesExtendedConst | experimental.CoreFeaturesExceptionHandling

// functions are a module's exported functions by name.
type functions map[string]api.FunctionDefinition

// session is an open instance and what it needs.
type session struct {
	app     *app
	target  target
	runtime wazero.Runtime
	cache   *compileCache
	effects *effects
	in      *mmrun.Instance
}

// openRequest is what a command wants of an instance.
type openRequest struct {
	target target
	sync   mmrun.SyncPolicy // unless the command line has one
	// check, if not nil, looks at the module's functions before a state is created for it.
	check func(functions) error
}

// open opens or creates the instance of a target.
func (a *app) open(ctx context.Context, req openRequest) (*session, error) {
	opts, err := a.options(req.sync)
	if err != nil {
		return nil, err
	}
	wasm, err := req.target.wasm()
	if err != nil {
		return nil, err
	}
	s := &session{app: a, target: req.target, effects: &effects{to: a.errOut}}
	config, err := a.moduleConfig(req.target.name(), s.effects)
	if err != nil {
		return nil, err
	}
	opts = append(opts, mmrun.WithModuleConfig(config))
	// Which compiled code to use is known from the module. If the one kept in the state cannot be
	// read, Open says so.
	code := wasm
	if code == nil {
		const longest = 1 << 30
		code, _ = vfs.ReadAll(vfs.OS, filepath.Join(req.target.state, "module.wasm"), longest)
	}
	for {
		if err = s.newRuntime(ctx, code); err != nil {
			return nil, err
		}
		if err = s.precheck(ctx, wasm, req.check); err == nil {
			s.in, err = mmrun.Open(ctx, s.runtime, req.target.state, wasm, opts...)
		}
		if err == nil {
			break
		}
		again := s.cacheAtFault(ctx, code, err)
		if !again {
			err = s.explain(ctx, code, err)
		}
		s.closeRuntime(ctx)
		if !again {
			return nil, err
		}
		a.cacheOff = true
	}
	if s.cache != nil {
		if err := s.cache.note(); err != nil {
			a.cacheWarning(err)
		}
	}
	return s, s.effects.release()
}

func (a *app) options(sync mmrun.SyncPolicy) ([]mmrun.Option, error) {
	opts := []mmrun.Option{mmrun.WithLogger(a.logger())}
	if a.mode != "" {
		mode, err := mmrun.ParseMode(a.mode)
		if err != nil {
			return nil, usagef("--mode: %w", err)
		}
		opts = append(opts, mmrun.WithMode(mode))
	}
	if a.sync != "" {
		var err error
		if sync, err = mmrun.ParseSync(a.sync); err != nil {
			return nil, usagef("--sync: %w", err)
		}
	}
	if a.force {
		opts = append(opts, mmrun.WithAcceptTorn())
	}
	if a.timeout < 0 {
		return nil, usagef("--timeout %v: want a positive duration", a.timeout)
	}
	return append(opts, mmrun.WithSync(sync)), nil
}

// newRuntime makes a runtime with WASI in it.
func (s *session) newRuntime(ctx context.Context, code []byte) error {
	// With DWARF, wazero keeps a source map of the whole module in the compile cache, and reads that back in
	// small pieces: the second start of a large module would not be much faster than the first.
	config := wazero.NewRuntimeConfig().WithCoreFeatures(features).WithDebugInfoEnabled(s.app.lines)
	s.cache = nil
	if code != nil {
		if s.cache = s.app.openCache(code); s.cache != nil {
			config = config.WithCompilationCache(s.cache.cache)
		}
	}
	if s.app.timeout > 0 {
		config = config.WithCloseOnContextDone(true)
	}
	s.runtime = wazero.NewRuntimeWithConfig(ctx, config)
	if _, err := wasi_snapshot_preview1.Instantiate(ctx, s.runtime); err != nil {
		s.closeRuntime(ctx)
		return err
	}
	return nil
}

// compile gives the compiled module as Open uses it; behind Open, or before it, that costs no second
// compilation.
func (s *session) compile(ctx context.Context, wasm []byte) (wazero.CompiledModule, error) {
	rewritten, _, err := rewriter.Rewrite(wasm)
	if err != nil {
		return nil, err
	}
	return s.runtime.CompileModule(ctx, rewritten)
}

// precheck keeps a wrong command line from creating a state. Errors of the module itself are left
// to Open.
func (s *session) precheck(ctx context.Context, wasm []byte, check func(functions) error) error {
	if check == nil || wasm == nil {
		return nil
	}
	if exists, err := mmrun.Exists(s.target.state); exists || err != nil {
		return nil
	}
	compiled, err := s.compile(ctx, wasm)
	if err != nil {
		return nil
	}
	return check(ownFunctions(compiled.ExportedFunctions()))
}

// ownFunctions leaves out what the rewriter has added.
func ownFunctions(all map[string]api.FunctionDefinition) functions {
	for name := range all {
		if strings.HasPrefix(name, rewriter.Reserved) {
			delete(all, name)
		}
	}
	return all
}

// cacheAtFault tells, after a failed Open, whether it may work without the cache: a disk that is full
// fails a compilation whose result cannot be kept.
func (s *session) cacheAtFault(ctx context.Context, code []byte, cause error) bool {
	if s.cache == nil || errors.Is(cause, mmrun.ErrUnsupported) {
		return false
	}
	if _, _, err := rewriter.Rewrite(code); err != nil {
		return false
	}
	_, err := s.compile(ctx, code)
	if err == nil {
		return false
	}
	plain := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter().WithCoreFeatures(features))
	defer plain.Close(ctx)
	if _, withoutErr := (&session{runtime: plain}).compile(ctx, code); withoutErr != nil {
		return false
	}
	s.app.cacheWarning(err)
	return true
}

// explain makes an error of Open one that says what to do about the module.
func (s *session) explain(ctx context.Context, code []byte, err error) error {
	if code != nil && strings.Contains(err.Error(), "instantiate") {
		if missing := s.missingImport(ctx, code); missing != "" {
			return renamed{fmt.Sprintf("module %s: %s", s.modulePath(), missing), err}
		}
	}
	return inModule(s.target.module, err)
}

func (s *session) modulePath() string {
	if s.target.module != "" {
		return s.target.module
	}
	return filepath.Join(s.target.state, "module.wasm")
}

// missingImport names the first import that nobody provides.
func (s *session) missingImport(ctx context.Context, code []byte) string {
	compiled, err := s.compile(ctx, code)
	if err != nil {
		return ""
	}
	for _, f := range compiled.ImportedFunctions() {
		module, name, _ := f.Import()
		host := s.runtime.Module(module)
		if host == nil {
			return fmt.Sprintf("it imports function %q of module %q; this command provides only WASI (%s), a program that embeds mmrun can provide more",
				name, module, wasi_snapshot_preview1.ModuleName)
		}
		there, ok := host.ExportedFunctionDefinitions()[name]
		if !ok {
			return fmt.Sprintf("it imports function %q of module %q, which has no such function", name, module)
		}
		if !slices.Equal(there.ParamTypes(), f.ParamTypes()) || !slices.Equal(there.ResultTypes(), f.ResultTypes()) {
			return fmt.Sprintf("it imports function %q of module %q as %s, which is %s",
				name, module, mmrun.Signature(f), mmrun.Signature(there))
		}
	}
	return ""
}

func (s *session) closeRuntime(ctx context.Context) {
	_ = s.runtime.Close(ctx)
	if s.cache != nil {
		_ = s.cache.cache.Close(ctx)
	}
}

// close ends the session with a checkpoint.
func (s *session) close(ctx context.Context) error {
	err := s.in.Close(ctx)
	s.closeRuntime(ctx)
	return err
}

// call is one event: the guest's output is released if it was committed.
func (s *session) call(ctx context.Context, name string, def api.FunctionDefinition, stack []uint64) ([]value, error) {
	if s.app.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.app.timeout)
		defer cancel()
	}
	results, err := s.in.Call(ctx, name, stack...)
	if err != nil {
		if s.in.Mode() == mmrun.Continuous {
			return nil, errors.Join(err, s.effects.release()) // the event stays
		}
		s.effects.drop()
		return nil, s.timedOut(ctx, err)
	}
	return unstack(def.ResultTypes(), results), s.effects.release()
}

func (s *session) timedOut(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	return renamed{fmt.Sprintf("%s (--timeout %v)", firstLine(err), s.app.timeout), err}
}

// aftermath says where a failed event has left the state.
func (s *session) aftermath(err error) string {
	switch {
	case errors.Is(err, mmrun.ErrPoisoned):
		return fmt.Sprintf("state %s: open it again to go on from its last commit", s.target.state)
	case s.in.Mode() == mmrun.Continuous:
		return fmt.Sprintf("state %s: stays as the guest left it, which is commit %d", s.target.state, s.in.Seq())
	}
	return fmt.Sprintf("state %s: is back at commit %d", s.target.state, s.in.Seq())
}

// sameModule is an error if the target's module is not the one of its state.
func (t target) sameModule(want string) error {
	wasm, err := t.wasm()
	if err != nil || wasm == nil {
		return err
	}
	if got := fmt.Sprintf("%x", sha256.Sum256(wasm)); got != want {
		return fmt.Errorf("state %s: it belongs to the module with SHA-256 %s, %s has %s", t.state, want, t.module, got)
	}
	return nil
}

package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/fsck"
	"github.com/mmrun/mmrun/internal/values"
	"github.com/mmrun/mmrun/rewriter"
)

// features is everything that wazero can do. What a state cannot be kept of, such as shared memory,
// mmrun refuses by name.
const features = api.CoreFeaturesV2 | experimental.CoreFeaturesThreads |
	experimental.CoreFeaturesTailCall | experimental.CoreFeaturesExtendedConst |
	experimental.CoreFeaturesExceptionHandling

// session is an open instance and what it needs.
type session struct {
	app     *app
	target  target
	runtime wazero.Runtime
	cache   *compileCache
	effects *effects
	in      *mmrun.Instance

	// unseen is why what guests printed in events that were committed could not be written.
	unseen error
	// answered is the commit that the last answer of the loop was about, 0 for an event that
	// failed.
	answered uint64
}

// openRequest is what a command wants of an instance.
type openRequest struct {
	target target
	sync   mmrun.SyncPolicy // unless the command line has one
	// check, if not nil, looks at the module's functions before a state is created for it.
	check func(functions) error
	// handler: the guest's standard input and output belong to events.
	handler bool
	// program: it is one with a main loop of its own, and these are its arguments.
	program bool
	args    []string
}

// open opens or creates the instance of a target.
func (a *app) open(ctx context.Context, req openRequest) (*session, error) {
	keepPipeErrors()
	opts, err := a.options(req.sync)
	if err != nil {
		return nil, err
	}
	wasm, err := req.target.wasm()
	if err != nil {
		return nil, err
	}
	s := &session{app: a, target: req.target, effects: &effects{to: a.guestOut}}
	config, err := a.moduleConfig(append([]string{req.target.name()}, req.args...), s.effects)
	if err != nil {
		return nil, err
	}
	opts = append(opts, mmrun.WithModuleConfig(config))
	if req.program {
		opts = append(opts, mmrun.WithProgram())
	}
	if req.handler {
		opts = append(opts, mmrun.WithHandler(a.guestOut))
	}
	// Which compiled code to use is known from the module. If the one kept in the state cannot be
	// read, Open says so.
	code := wasm
	if code == nil {
		code, _ = fsck.Module(req.target.state)
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
	s.noteCache()
	s.unseen = s.effects.release() // of the first run
	return s, nil
}

// noteCache remembers what has been compiled.
func (s *session) noteCache() {
	if s.cache == nil {
		return
	}
	if err := s.cache.note(); err != nil {
		s.app.cacheWarning(err)
	}
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
	if a.tracker != "" {
		tracker, err := mmrun.ParseTracker(a.tracker)
		if err != nil {
			return nil, usagef("--tracker: %w", err)
		}
		opts = append(opts, mmrun.WithTracker(tracker))
	}
	opts = append(opts, mmrun.WithEventNotes())
	if a.history != "" {
		opts = append(opts, mmrun.WithHistory(a.history))
	}
	switch a.downtime {
	case "count", "": // commands that run no events have no such flag
		opts = append(opts, mmrun.WithClock(mmrun.CountDowntime))
	case "skip":
		opts = append(opts, mmrun.WithClock(mmrun.SkipDowntime))
	default:
		return nil, usagef("--downtime %s: want count or skip", a.downtime)
	}
	if a.force {
		opts = append(opts, mmrun.WithAcceptTorn())
	}
	if a.timeout < 0 {
		return nil, usagef("--timeout %v: want a positive duration", a.timeout)
	}
	return append(opts, mmrun.WithSync(sync)), nil
}

// newRuntime makes a runtime with what guests may import in it.
func (s *session) newRuntime(ctx context.Context, code []byte) error {
	// With DWARF, wazero keeps a source map of the whole module in the compile cache, and reads
	// that back in small pieces: the second start of a large module would not be much faster than
	// the first.
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
	if limit := s.app.memoryLimit; limit > 0 {
		config = config.WithMemoryLimitPages(limit.wasmPages())
	}
	s.runtime = wazero.NewRuntimeWithConfig(ctx, config)
	if err := provideImports(ctx, s.runtime); err != nil {
		s.closeRuntime(ctx)
		return err
	}
	return nil
}

// compile gives the compiled module as Open uses it; behind Open, or before it, that costs no
// second compilation.
func (s *session) compile(ctx context.Context, wasm []byte) (wazero.CompiledModule, error) {
	rewritten, _, err := rewriter.Rewrite(wasm, rewriter.Options{})
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
	if exists, err := fsck.Exists(s.target.state); exists || err != nil {
		return nil
	}
	compiled, err := s.compile(ctx, wasm)
	if err != nil {
		return nil
	}
	return check(ownFunctions(compiled.ExportedFunctions()))
}

// cacheAtFault tells, after a failed Open, whether it may work without the cache: a disk that is
// full fails a compilation whose result cannot be kept.
func (s *session) cacheAtFault(ctx context.Context, code []byte, cause error) bool {
	if s.cache == nil || errors.Is(cause, mmrun.ErrUnsupported) {
		return false
	}
	if _, _, err := rewriter.Rewrite(code, rewriter.Options{}); err != nil {
		return false
	}
	_, err := s.compile(ctx, code)
	if err == nil {
		return false
	}
	plain := wazero.NewRuntimeWithConfig(ctx,
		wazero.NewRuntimeConfigInterpreter().WithCoreFeatures(features))
	defer plain.Close(ctx)
	if _, withoutErr := (&session{runtime: plain}).compile(ctx, code); withoutErr != nil {
		return false
	}
	s.app.cacheWarning(err)
	return true
}

// explain makes an error of Open one that says what to do about it.
func (s *session) explain(ctx context.Context, code []byte, err error) error {
	if code != nil && strings.Contains(err.Error(), "instantiate") {
		if missing := s.missingImports(ctx, code); missing != "" {
			return renamed{fmt.Sprintf("module %s: %s", s.target.path(), missing), err}
		}
	}
	err = inModule(s.target.module, err)
	if limit := s.app.memoryLimit; limit > 0 && strings.Contains(err.Error(), "memory") {
		return fmt.Errorf("%w (--memory-limit %v is %d wasm pages)", err, &limit, limit.wasmPages())
	}
	return err
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

// call is one event. What the guest printed is released if the event was committed.
func (s *session) call(ctx context.Context, name string, def api.FunctionDefinition,
	stack []uint64) ([]values.Value, error) {
	ctx, cancel := s.timeout(ctx)
	defer cancel()
	results, err := s.in.Call(ctx, name, stack...)
	switch {
	case err == nil:
	case s.in.Mode() == mmrun.Continuous:
		s.release() // the event stays
		return nil, s.failed(ctx, err)
	default:
		s.effects.drop()
		return nil, s.failed(ctx, err)
	}
	s.release()
	return values.Unstack(def.ResultTypes(), results), nil
}

// query is a call of which nothing is kept but what it says.
func (s *session) query(ctx context.Context, name string, def api.FunctionDefinition,
	stack []uint64) ([]values.Value, error) {
	ctx, cancel := s.timeout(ctx)
	defer cancel()
	var results []uint64
	err := s.in.View(ctx, func(tx *mmrun.Tx) (err error) {
		results, err = tx.Call(ctx, name, stack...)
		return err
	})
	s.release()
	if err != nil {
		return nil, s.failed(ctx, err)
	}
	return values.Unstack(def.ResultTypes(), results), nil
}

// timeout is the context of one event.
func (s *session) timeout(ctx context.Context) (context.Context, context.CancelFunc) {
	if s.app.timeout > 0 {
		return context.WithTimeout(ctx, s.app.timeout)
	}
	return ctx, func() {}
}

// release lets out what the guest printed.
func (s *session) release() {
	if err := s.effects.release(); err != nil && s.unseen == nil {
		s.unseen = err
	}
}

// failed is the error of an event that failed.
func (s *session) failed(ctx context.Context, err error) error {
	return eventError{seq: s.in.Seq(), error: explainEvent(s.timedOut(ctx, err))}
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
		return fmt.Sprintf("state %s: stays as the guest left it, which is commit %d",
			s.target.state, s.in.Seq())
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
		return fmt.Errorf("state %s: it belongs to the module with SHA-256 %s, %s has %s",
			t.state, want, t.module, got)
	}
	return nil
}

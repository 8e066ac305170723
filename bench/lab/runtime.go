package lab

import (
	"errors"

	"github.com/tetratelabs/wazero"
)

// engine is a wazero runtime as a new process has it: nothing is compiled, but there may be
// compiled code on the disk.
type engine struct {
	wazero.Runtime
	cache wazero.CompilationCache // nil without one
}

// newEngine makes one that keeps compiled code in cacheDir, or nowhere if that is empty.
func newEngine(cacheDir string) (*engine, error) {
	config := wazero.NewRuntimeConfig()
	e := new(engine)
	if cacheDir != "" {
		var err error
		if e.cache, err = wazero.NewCompilationCacheWithDir(cacheDir); err != nil {
			return nil, err
		}
		config = config.WithCompilationCache(e.cache)
	}
	e.Runtime = wazero.NewRuntimeWithConfig(ctx, config)
	return e, nil
}

func (e *engine) close() error {
	err := e.Close(ctx)
	if e.cache != nil {
		err = errors.Join(err, e.cache.Close(ctx))
	}
	return err
}

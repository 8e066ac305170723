package lab

import (
	"errors"

	"github.com/tetratelabs/wazero/api"
)

// Plain is wazero alone.
type Plain struct {
	engine *engine
	module api.Module
	setup  map[string]api.Function
}

// NewPlain compiles and instantiates the guest. Compiled code is taken from cacheDir, or kept
// there, unless that is empty.
func NewPlain(wasm []byte, cacheDir string) (*Plain, error) {
	e, err := newEngine(cacheDir)
	if err != nil {
		return nil, err
	}
	p := &Plain{engine: e, setup: make(map[string]api.Function)}
	if p.module, err = e.Instantiate(ctx, wasm); err != nil {
		return nil, errors.Join(err, e.close())
	}
	return p, nil
}

// Event is CallWithStack on a function that was looked up once.
func (p *Plain) Event(export string) func([]uint64) error {
	f := p.module.ExportedFunction(export)
	return func(stack []uint64) error { return f.CallWithStack(ctx, stack) }
}

// CallEvent is Event with Call, which allocates its results.
func (p *Plain) CallEvent(export string) func([]uint64) error {
	f := p.module.ExportedFunction(export)
	return func(stack []uint64) error {
		_, err := f.Call(ctx, stack...)
		return err
	}
}

func (p *Plain) Setup(export string, params ...uint64) error {
	f, ok := p.setup[export]
	if !ok {
		f = p.module.ExportedFunction(export)
		p.setup[export] = f
	}
	_, err := f.Call(ctx, params...)
	return err
}

func (p *Plain) Settle() error { return nil }
func (p *Plain) Close() error  { return p.engine.close() }

package mmrun

import (
	"context"
	"fmt"
	"strings"

	"github.com/tetratelabs/wazero/api"
)

// Tx is an event in progress. It is valid only inside the function it was given to, and only on
// that goroutine.
type Tx struct {
	in      *Instance
	open    bool
	failed  error // the first call that failed: what it left behind must not be committed
	meta    []byte
	metaSet bool
}

// Call calls an exported function. If it traps, the event cannot be committed any more, whether
// the error is returned from the event's function or not.
func (tx *Tx) Call(ctx context.Context, name string, params ...uint64) ([]uint64, error) {
	f, err := tx.in.function(name, len(params))
	if err == nil {
		err = tx.usable()
	}
	if err != nil {
		return nil, err
	}
	results, err := f.call(ctx, params)
	return results, tx.note(err)
}

// Function returns an exported function, nil if there is none of that name. It is resolved once:
// keep it for as long as the instance is open, and call it inside events.
func (tx *Tx) Function(name string) *Function {
	f, err := tx.in.find(name)
	if err != nil {
		return nil
	}
	return f
}

// Memory is the guest's linear memory, nil if it has none. What is written to it is part of the
// event. It must not be used after the event.
func (tx *Tx) Memory() api.Memory {
	if tx.in.mem == nil || tx.usable() != nil {
		return nil
	}
	return tx.in.guest.mod.Memory()
}

// Module is the present wazero instance of the guest, for host code that needs more than Tx
// gives. It is valid until the end of the event: a rollback may replace it.
func (tx *Tx) Module() api.Module { return tx.in.guest.mod }

// Meta returns the user's bytes as of this point of the event. They must not be changed.
func (tx *Tx) Meta() []byte {
	if tx.metaSet {
		return tx.meta
	}
	return tx.in.state.Meta
}

// SetMeta sets the user's bytes that are committed with the event: an input cursor, a schema
// version. They are copied. A commit compares them with those before, and logs what differs; each
// checkpoint writes all of them. A commit is refused if they do not fit, with tables and globals, in
// 64 MiB ([globalsfile.MaxSlot]).
func (tx *Tx) SetMeta(b []byte) {
	tx.meta = append(tx.meta[:0], b...)
	tx.metaSet = true
}

func (tx *Tx) usable() error {
	if tx.open && tx.failed == nil {
		return nil
	}
	return tx.refusal()
}

func (tx *Tx) refusal() error {
	if !tx.open {
		return fmt.Errorf("state %s: a Tx was used outside of its event", tx.in.dir)
	}
	return tx.failed
}

func (tx *Tx) note(err error) error {
	if err != nil && tx.failed == nil {
		tx.failed = err
	}
	return err
}

// Function is an exported function of an instance. Use it inside events only.
type Function struct {
	in      *Instance
	name    string
	def     api.FunctionDefinition
	fn      api.Function
	life    uint64 // of the guest that fn belongs to
	params  int    // values on the stack; a v128 takes two
	results int
	stack   []uint64 // as long as a call needs
}

// Definition describes the function: its name, parameters and results.
func (f *Function) Definition() api.FunctionDefinition { return f.def }

// CallWithStack calls the function with the parameters in stack, which receives the results. It
// must be long enough for either; a v128 takes two elements. It does not allocate.
func (f *Function) CallWithStack(ctx context.Context, stack []uint64) error {
	tx := &f.in.tx
	if err := tx.usable(); err != nil {
		return err
	}
	if len(stack) < len(f.stack) {
		return fmt.Errorf("function %s: a stack of %d values, %d are needed", f.name, len(stack), len(f.stack))
	}
	if err := f.run(ctx, stack); err != nil {
		return tx.note(err)
	}
	return nil
}

func (f *Function) run(ctx context.Context, stack []uint64) error {
	g := f.in.guest
	if f.life != g.life {
		f.fn = g.mod.ExportedFunction(f.name)
		f.life = g.life
	}
	if g.closed() {
		return fmt.Errorf("function %s: the guest has ended itself in this event", f.name)
	}
	if err := f.fn.CallWithStack(ctx, stack); err != nil {
		return fmt.Errorf("function %s: %w", f.name, err)
	}
	return nil
}

func (f *Function) call(ctx context.Context, params []uint64) ([]uint64, error) {
	copy(f.stack, params)
	err := f.run(ctx, f.stack)
	if err != nil || f.results == 0 {
		return nil, err
	}
	return append([]uint64(nil), f.stack[:f.results]...), nil
}

// function finds an exported function of the module itself, to be called with n values.
func (in *Instance) function(name string, n int) (*Function, error) {
	f, err := in.find(name)
	if err != nil {
		return nil, err
	}
	if n != f.params {
		return nil, fmt.Errorf("function %s: %d parameter values given, %s takes %d", f.name, n, Signature(f.def), f.params)
	}
	in.lastFunction = f
	return f, nil
}

func (in *Instance) find(name string) (*Function, error) {
	if f := in.lastFunction; f != nil && f.name == name {
		return f, nil
	}
	if f, ok := in.functions[name]; ok {
		return f, nil
	}
	fn := in.guest.mod.ExportedFunction(name)
	if fn == nil || strings.HasPrefix(name, reservedPrefix) {
		return nil, asKind(ErrNoFunction, fmt.Errorf("function %s: the module exports no function of that name", name))
	}
	f := &Function{in: in, name: name, def: fn.Definition(), fn: fn, life: in.guest.life}
	f.params, f.results = slots(f.def.ParamTypes()), slots(f.def.ResultTypes())
	f.stack = make([]uint64, max(f.params, f.results))
	in.functions[name] = f
	return f, nil
}

// reservedPrefix begins the names of what the rewriter adds.
const reservedPrefix = "mmrun:"

// v128 is missing among wazero's value types.
const v128 api.ValueType = 0x7b

// slots is the number of stack values that values of these types take.
func slots(types []api.ValueType) int {
	n := len(types)
	for _, t := range types {
		if t == v128 {
			n++
		}
	}
	return n
}

// Functions lists the module's exported functions, by name.
func (in *Instance) Functions() map[string]api.FunctionDefinition {
	defs := in.guest.compiled.ExportedFunctions()
	for name := range defs {
		if strings.HasPrefix(name, reservedPrefix) {
			delete(defs, name)
		}
	}
	return defs
}

// Signature writes a function's type as in "(i32, i64) -> (f64)".
func Signature(def api.FunctionDefinition) string {
	list := func(types []api.ValueType) string {
		names := make([]string, len(types))
		for i, t := range types {
			names[i] = api.ValueTypeName(t)
			if t == v128 {
				names[i] = "v128"
			}
		}
		return "(" + strings.Join(names, ", ") + ")"
	}
	return list(def.ParamTypes()) + " -> " + list(def.ResultTypes())
}

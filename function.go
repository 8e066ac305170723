package mmrun

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/tetratelabs/wazero/api"

	"github.com/mmrun/mmrun/internal/errs"
	"github.com/mmrun/mmrun/internal/guest"
	"github.com/mmrun/mmrun/internal/values"
)

// Function is an exported function of an instance. Use it inside events only.
type Function struct {
	in         *Instance
	name       string
	def        api.FunctionDefinition
	fn         api.Function
	generation uint64 // of the guest that fn belongs to
	isMain     bool   // a command's _start, which runs once in the life of a state
	params     int    // values on the stack; a v128 takes two
	results    int
	stack      []uint64 // as long as a call needs
}

// Definition describes the function: its name, parameters and results.
func (f *Function) Definition() api.FunctionDefinition { return f.def }

// CallWithStack calls the function with the parameters in stack, which receives the results. It
// must be long enough for either; a v128 takes two elements. It does not allocate, unless the
// module imports host functions.
func (f *Function) CallWithStack(ctx context.Context, stack []uint64) error {
	e := &f.in.event
	switch {
	case e.id.Load() == 0:
		return errs.As(ErrNotInEvent, fmt.Errorf("function %s: called outside of an event", f.name))
	case e.failed != nil:
		return e.failed
	case len(stack) < len(f.stack):
		return fmt.Errorf("function %s: a stack of %d values, %d are needed",
			f.name, len(stack), len(f.stack))
	}
	if err := f.run(ctx, stack); err != nil {
		return e.note(err)
	}
	return nil
}

func (f *Function) run(ctx context.Context, stack []uint64) error {
	if f.isMain {
		if err := f.in.startMain(f.name); err != nil {
			return err
		}
	}
	if f.in.notes && f.in.event.first == "" {
		f.in.event.first = f.name
	}
	g := f.in.store.Guest()
	if f.generation != g.Generation() {
		f.fn = g.Module().ExportedFunction(f.name)
		f.generation = g.Generation()
	}
	if g.Closed() {
		return &EventError{Function: f.name, Err: errClosedInside}
	}
	if err := f.fn.CallWithStack(f.in.eventContext(ctx), stack); err != nil {
		return &EventError{Function: f.name, Err: err}
	}
	return nil
}

var errClosedInside = fmt.Errorf("the guest has ended in this event: it has called proc_exit, or " +
	"host code has closed its module or its runtime")

// call calls the function with params; the results are at the beginning of f.stack.
func (f *Function) call(ctx context.Context, params []uint64) error {
	copy(f.stack, params)
	return f.run(ctx, f.stack)
}

// firstResult is the first result of the last call, 0 if it has none.
func (f *Function) firstResult() uint64 {
	if f.results == 0 {
		return 0
	}
	return f.stack[0]
}

func (f *Function) copyResults() []uint64 {
	if f.results == 0 {
		return nil
	}
	return append([]uint64(nil), f.stack[:f.results]...)
}

// function finds an exported function of the module itself, to be called with n values.
func (in *Instance) function(name string, n int) (*Function, error) {
	f, err := in.find(name)
	if err != nil {
		return nil, err
	}
	if n != f.params {
		return nil, fmt.Errorf("function %s: %d parameter values given, %s takes %d",
			name, n, Signature(f.def), f.params)
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
	g := in.store.Guest()
	fn := g.Module().ExportedFunction(name)
	if fn == nil || isReserved(name) {
		return nil, noFunction(name)
	}
	def := fn.Definition()
	if g.Code().Info.Initialize && exportedAs(def, guest.InitializeName) {
		return nil, errs.As(ErrRunsOnce,
			fmt.Errorf("function %s: it runs once in the life of a state, "+
				"and ran when this one was created; again it would run the guest's constructors "+
				"over "+
				"what the guest has now (call the other functions it exports, or begin another "+
				"state)",
				name))
	}
	f := &Function{in: in, name: name, def: def, fn: fn, generation: g.Generation(),
		isMain: isMain(def)}
	f.params, f.results = slots(f.def.ParamTypes()), slots(f.def.ResultTypes())
	f.stack = make([]uint64, max(f.params, f.results))
	in.functions[name] = f
	return f, nil
}

// isMain tells whether a function is the main function of a command.
func isMain(def api.FunctionDefinition) bool {
	return len(def.ParamTypes()) == 0 && len(def.ResultTypes()) == 0 && exportedAs(def, "_start")
}

// exportedAs tells whether a function has that name among others: one function may be exported
// under several.
func exportedAs(def api.FunctionDefinition, name string) bool {
	return slices.Contains(def.ExportNames(), name)
}

// startMain refuses to run a command's main function but as the first event of a state.
func (in *Instance) startMain(name string) error {
	const firstRun = 1 // the commit of a state that no event has changed yet
	if seq := in.Seq(); in.event.started || seq > firstRun {
		return errs.As(ErrRunsOnce,
			fmt.Errorf("function %s: a command runs its main function once "+
				"in the life of a state, as its first event, and this state is at commit %d "+
				"(call the "+
				"other functions it exports, begin another state, or build the guest as a reactor)",
				name, seq))
	}
	in.event.started = true
	return nil
}

func noFunction(name string) error {
	return errs.As(ErrNoFunction, fmt.Errorf(
		"function %s: the module exports no function of that name", name))
}

// isReserved tells whether a name is one of what the rewriter adds.
func isReserved(name string) bool { return strings.HasPrefix(name, "mmrun:") }

// exportedFunctions are a module's own exported functions, by name.
func exportedFunctions(code *guest.Code) map[string]api.FunctionDefinition {
	defs := code.Compiled().ExportedFunctions()
	for name := range defs {
		if isReserved(name) {
			delete(defs, name)
		}
	}
	return defs
}

// slots is the number of stack values that values of these types take.
func slots(types []api.ValueType) int {
	n := len(types)
	for _, t := range types {
		if t == values.V128 {
			n++
		}
	}
	return n
}

// Signature writes a function's type as in "(i32, i64) -> (f64)".
func Signature(def api.FunctionDefinition) string {
	return values.Signature(def.ParamTypes(), def.ResultTypes())
}

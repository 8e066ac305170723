package mmrun

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/mmrun/mmrun/internal/values"
	"github.com/tetratelabs/wazero/api"
)

// Value is what a typed call passes and returns: the Go types of wasm's numbers. None stands for no
// result.
type Value interface {
	int32 | uint32 | int64 | uint64 | float32 | float64 | None
}

// None is the result of a function that has none.
type None struct{}

// TypedFunc is an exported function whose signature was checked when it was made, with up to three
// parameters of the types A, B and C (None where there are fewer) and the result R. It belongs to
// the module, serves all its instances, and is safe for concurrent use. Beside [Instance.Call] it
// saves the slices of parameters and results (BenchmarkTypedCall).
type TypedFunc[R, A, B, C Value] struct {
	name   string
	params int
}

// Func0 finds the exported function name of type () -> R.
func Func0[R Value](m *Module, name string) (TypedFunc[R, None, None, None], error) {
	return newTyped[R, None, None, None](m, name)
}

// Func1 finds the exported function name of type (A) -> R.
func Func1[R, A Value](m *Module, name string) (TypedFunc[R, A, None, None], error) {
	return newTyped[R, A, None, None](m, name)
}

// Func2 finds the exported function name of type (A, B) -> R.
func Func2[R, A, B Value](m *Module, name string) (TypedFunc[R, A, B, None], error) {
	return newTyped[R, A, B, None](m, name)
}

// Func3 finds the exported function name of type (A, B, C) -> R.
func Func3[R, A, B, C Value](m *Module, name string) (TypedFunc[R, A, B, C], error) {
	return newTyped[R, A, B, C](m, name)
}

func newTyped[R, A, B, C Value](m *Module, name string) (f TypedFunc[R, A, B, C], err error) {
	def, ok := m.Functions()[name]
	if !ok {
		return f, noFunction(name)
	}
	want := []api.ValueType{typeOf[A](), typeOf[B](), typeOf[C]()}
	for len(want) > 0 && want[len(want)-1] == 0 {
		want = want[:len(want)-1]
	}
	results := []api.ValueType{typeOf[R]()}
	if results[0] == 0 {
		results = nil
	}
	if !slices.Equal(want, def.ParamTypes()) || !slices.Equal(results, def.ResultTypes()) {
		return f, fmt.Errorf("function %s: it is %s, asked for as %s",
			name, Signature(def), values.Signature(want, results))
	}
	return TypedFunc[R, A, B, C]{name: name, params: len(want)}, nil
}

// Call is one event, as Instance.Call. Of the arguments, those whose type is None are ignored.
func (f TypedFunc[R, A, B, C]) Call(ctx context.Context, in *Instance, a A, b B, c C) (R, error) {
	var done outcome
	word, err := in.wordEvent(ctx, f.name, f.words(a, b, c), f.params, &done)
	return wordTo[R](word), in.release(err, &done)
}

// In is a call inside an event, as Tx.Call.
func (f TypedFunc[R, A, B, C]) In(ctx context.Context, tx *Tx, a A, b B, c C) (R, error) {
	if err := tx.usable(); err != nil {
		return wordTo[R](0), err
	}
	fn, err := tx.in.function(f.name, f.params)
	if err != nil {
		return wordTo[R](0), err
	}
	words := f.words(a, b, c)
	if err := fn.call(ctx, words[:f.params]); err != nil {
		return wordTo[R](0), tx.in.event.note(err)
	}
	return wordTo[R](fn.firstResult()), nil
}

func (f TypedFunc[R, A, B, C]) words(a A, b B, c C) [3]uint64 {
	return [3]uint64{wordOf(a), wordOf(b), wordOf(c)}
}

// wordEvent is one call as one event, of a function whose first n parameters are params.
func (in *Instance) wordEvent(ctx context.Context, name string, params [3]uint64, n int,
	done *outcome) (uint64, error) {
	if err := in.enter(ctx); err != nil {
		return 0, err
	}
	defer in.leave(done)
	f, err := in.callFunction(ctx, name, params[:n], done)
	if err != nil {
		return 0, err
	}
	return f.firstResult(), nil
}

// typeOf is wasm's type of V, 0 for None.
func typeOf[V Value]() api.ValueType {
	var v V
	switch any(v).(type) {
	case int32, uint32:
		return api.ValueTypeI32
	case int64, uint64:
		return api.ValueTypeI64
	case float32:
		return api.ValueTypeF32
	case float64:
		return api.ValueTypeF64
	}
	return 0
}

func wordOf[V Value](v V) uint64 {
	switch v := any(v).(type) {
	case int32:
		return api.EncodeI32(v)
	case uint32:
		return uint64(v)
	case int64:
		return uint64(v)
	case uint64:
		return v
	case float32:
		return uint64(math.Float32bits(v))
	case float64:
		return math.Float64bits(v)
	}
	return 0
}

func wordTo[V Value](word uint64) (v V) {
	switch p := any(&v).(type) {
	case *int32:
		*p = int32(word)
	case *uint32:
		*p = uint32(word)
	case *int64:
		*p = int64(word)
	case *uint64:
		*p = word
	case *float32:
		*p = math.Float32frombits(uint32(word))
	case *float64:
		*p = math.Float64frombits(word)
	}
	return v
}

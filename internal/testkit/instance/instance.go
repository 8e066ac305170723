// Package instance gives tests instances that must open, answer and close.
package instance

import (
	"context"
	"testing"

	"github.com/tetratelabs/wazero"

	"github.com/mmrun/mmrun"
)

var ctx = context.Background()

// Runtime is closed at the end of the test.
func Runtime(t testing.TB) wazero.Runtime {
	rt := wazero.NewRuntime(ctx)
	t.Cleanup(func() { rt.Close(ctx) })
	return rt
}

// Call is one event that must succeed and give one result.
func Call(t testing.TB, in *mmrun.Instance, name string, params ...uint64) uint64 {
	t.Helper()
	results, err := in.Call(ctx, name, params...)
	if err != nil {
		t.Fatalf("%s%v: %v", name, params, err)
	}
	if len(results) == 0 {
		return 0
	}
	return uint64(uint32(results[0]))
}

// Open is an instance that is closed at the end of the test.
func Open(t testing.TB, rt wazero.Runtime, dir string, wasm []byte,
	opts ...mmrun.Option) *mmrun.Instance {
	t.Helper()
	in, err := mmrun.Open(ctx, rt, dir, wasm, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := in.Close(ctx); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return in
}

// Close closes an instance now.
func Close(t testing.TB, in *mmrun.Instance) {
	t.Helper()
	if err := in.Close(ctx); err != nil {
		t.Fatalf("close: %v", err)
	}
}

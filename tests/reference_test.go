package tests

import (
	"path/filepath"
	"testing"

	"github.com/tetratelabs/wazero"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/internal/testkit/guests"
)

// Function references come from segments, from ref.func and from other tables, and on wazero's
// compiler no two of them are equal.
func TestTablesAndReferencesSurvive(t *testing.T) {
	null := uint64(1)
	steps := []struct {
		call   string
		params []uint64
		want   uint64
	}{
		{"call", []uint64{5}, 10}, // double
		{"swap", nil, 0},
		{"call", []uint64{5}, 1<<32 - 5}, // negate
		{"call_at", []uint64{1, 5}, 10},
		{"call_spare", []uint64{1, 5}, 25},
		{"keep", []uint64{1}, 0},
		{"call_kept", []uint64{6}, 12},
		{"set_null", []uint64{1}, 0},
		{"is_null", []uint64{1}, null},
		{"call_kept", []uint64{6}, 12},
		{"elem_init", []uint64{1, 0, 2}, 0}, // square, increment
		{"call_at", []uint64{1, 5}, 25},
		{"call_at", []uint64{2, 5}, 6},
		{"table_grow", []uint64{3}, 4},
		{"call_at", []uint64{6, 8}, 9},
		{"table_copy", []uint64{0, 1, 1}, 0},
		{"call", []uint64{7}, 49},
		{"elem_drop", nil, 0},
		{"table_fill", []uint64{1, 3}, 0},
		{"call_at", []uint64{3, 1}, 1<<32 - 1},
		{"table_size", nil, 7},
		{"keep", []uint64{0}, 0},
		{"call_kept", []uint64{3}, 9},
	}
	configs := map[string]wazero.RuntimeConfig{
		"compiler":    wazero.NewRuntimeConfig(),
		"interpreter": wazero.NewRuntimeConfigInterpreter(),
	}
	for engine, config := range configs {
		for _, mode := range modes {
			t.Run(engine+"/"+mode.String(), func(t *testing.T) {
				rt := wazero.NewRuntimeWithConfig(ctx, config)
				t.Cleanup(func() { rt.Close(ctx) })
				dir := filepath.Join(t.TempDir(), "s")
				in := open(t, rt, dir, guests.Load(t, "swap"), mmrun.WithMode(mode))
				for _, s := range steps {
					if got := call(t, in, s.call, s.params...); got != s.want {
						t.Fatalf("%s%v gave %d, want %d", s.call, s.params, got, s.want)
					}
					closeInstance(t, in)
					in = open(t, rt, dir, nil)
				}
				if _, err := in.Call(ctx, "elem_init", 0, 0, 1); err == nil {
					t.Error("a segment that was dropped is there again")
				}
			})
		}
	}
}

package tests

import (
	"bytes"
	"context"
	"encoding/binary"
	"path/filepath"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/internal/testkit/guests"
)

// barrierGuest is the guest of barrier.wat, whose host functions write where nobody marks, or tell.
func barrierGuest(t *testing.T, rt wazero.Runtime, config wazero.ModuleConfig) (
	in *mmrun.Instance, reopen func() *mmrun.Instance) {
	t.Helper()
	_, err := rt.NewHostModuleBuilder("env").
		NewFunctionBuilder().WithFunc(func(ctx context.Context, m api.Module) {
		mmrun.MarkWritten(ctx, 20_000, 1)
		m.Memory().WriteByte(20_000, 1)
		if _, err := m.ExportedFunction("again").Call(ctx); err != nil {
			panic(err)
		}
		mmrun.MarkWritten(ctx, 30_000, 1)
		m.Memory().WriteByte(30_000, 3)
	}).Export("outer").
		NewFunctionBuilder().WithFunc(func(_ context.Context, m api.Module) {
		m.Memory().WriteByte(600_000, 2)
	}).Export("inner").
		NewFunctionBuilder().WithFunc(func(context.Context, api.Module) {}).Export("tail").
		Instantiate(ctx)
	if err != nil {
		t.Fatal(err)
	}
	dir, wasm := filepath.Join(t.TempDir(), "s"), guests.Load(t, "barrier")
	opts := []mmrun.Option{mmrun.WithTracker(mmrun.Barrier), mmrun.WithModuleConfig(config)}
	in, err = openSeen(rt, dir, wasm, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return in, func() *mmrun.Instance {
		abandon(in)
		return open(t, rt, dir, nil)
	}
}

// A host reads its list of buffers while it writes: what it writes into the list changes where it
// writes next.
func TestBufferOverItsOwnListIsSeen(t *testing.T) {
	rt := newRuntime(t)
	if _, err := wasi_snapshot_preview1.Instantiate(ctx, rt); err != nil {
		t.Fatal(err)
	}
	input := make([]byte, 16, 24)
	le := binary.LittleEndian
	le.PutUint32(input[0:], 1024)
	le.PutUint32(input[4:], 16)
	le.PutUint32(input[8:], 500_000) // in place of 8192
	le.PutUint32(input[12:], 8)
	input = append(input, "surprise"...)
	in, reopen := barrierGuest(t, rt, wazero.NewModuleConfig().WithStdin(bytes.NewReader(input)))
	if errno := call(t, in, "read", 8); errno != 0 {
		t.Fatalf("fd_read: %d", errno)
	}
	if got := call(t, in, "load", 500_000); got != 's' {
		t.Skipf("this WASI reads its list first: %d", got)
	}
	if got := call(t, reopen(), "load", 500_000); got != 's' {
		t.Errorf("%d after a kill, want %d", got, 's')
	}
}

// What an outer call tells is not credited to the one that it has led to.
func TestNestedHostCallsTellForThemselves(t *testing.T) {
	rt := newRuntime(t)
	if _, err := wasi_snapshot_preview1.Instantiate(ctx, rt); err != nil {
		t.Fatal(err)
	}
	in, reopen := barrierGuest(t, rt, wazero.NewModuleConfig())
	call(t, in, "nested")
	if got := in.Stats().ComparedAll; got != 1 {
		t.Errorf("%d events compared all pages, want 1: inner does not tell", got)
	}
	in = reopen()
	for at, want := range map[uint64]uint64{20_000: 1, 600_000: 2, 30_000: 3} {
		if got := call(t, in, "load", at); got != want {
			t.Errorf("%d at %d after a kill, want %d", got, at, want)
		}
	}
}

// Functions that an embedder provides in the place of wazero's WASI may write anything.
func TestForeignWASIIsNotTrusted(t *testing.T) {
	rt := newRuntime(t)
	_, err := rt.NewHostModuleBuilder(wasi_snapshot_preview1.ModuleName).
		NewFunctionBuilder().WithFunc(func(_ context.Context, m api.Module, at, n uint32) uint32 {
		m.Memory().WriteByte(700_000, 5)
		return 0
	}).Export("random_get").
		NewFunctionBuilder().WithFunc(
		func(a, b, c, d uint32) uint32 {
			return 0
		}).Export("fd_read").
		Instantiate(ctx)
	if err != nil {
		t.Fatal(err)
	}
	in, reopen := barrierGuest(t, rt, wazero.NewModuleConfig())
	call(t, in, "random", 64)
	if got := call(t, reopen(), "load", 700_000); got != 5 {
		t.Errorf("%d after a kill, want 5", got)
	}
}

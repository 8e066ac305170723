package tests

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/internal/testkit/guests"
)

// wantRunsOnce checks that an event was refused, with a sentence that says why and what to do.
func wantRunsOnce(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, mmrun.ErrRunsOnce) ||
		!strings.Contains(err.Error(), "once in the life of a state") ||
		!strings.Contains(err.Error(), "begin another state") {
		t.Errorf("error %v, want ErrRunsOnce with the way out", err)
	}
}

// _initialize runs a reactor's constructors, which is done when the state is created.
func TestInitializeIsNoEvent(t *testing.T) {
	for _, mode := range modes {
		rt := newRuntime(t)
		wasi_snapshot_preview1.MustInstantiate(ctx, rt)
		dir := filepath.Join(t.TempDir(), "s")
		in := open(t, rt, dir, guests.Load(t, "cmap"), mmrun.WithMode(mode))
		call(t, in, "put", 1, 100)
		_, err := in.Call(ctx, "_initialize")
		wantRunsOnce(t, err)
		err = in.Update(ctx, func(tx *mmrun.Tx) error {
			if tx.Function("_initialize") != nil {
				t.Error("Tx.Function gives _initialize")
			}
			_, err := tx.Call(ctx, "_initialize")
			return err
		})
		wantRunsOnce(t, err)
		if got := call(t, in, "get", 1); got != 100 {
			t.Errorf("%v: get gave %d, want 100", mode, got)
		}
	}
}

// A command's _start is the first event of a state, and no other. A start that failed, or was a
// query, has not happened.
func TestMainFunctionRunsOnce(t *testing.T) {
	rt := newRuntime(t)
	dir := filepath.Join(t.TempDir(), "s")
	wasm := guests.Load(t, "command")
	in := open(t, rt, dir, wasm)
	undone := errors.New("undone")
	start := func(tx *mmrun.Tx) error {
		_, err := tx.Call(ctx, "_start")
		return err
	}
	if err := in.View(ctx, start); err != nil {
		t.Fatal(err)
	}
	err := in.Update(ctx, func(tx *mmrun.Tx) error { return errors.Join(start(tx), undone) })
	if !errors.Is(err, undone) || errors.Is(err, mmrun.ErrRunsOnce) {
		t.Fatal(err)
	}
	err = in.Update(ctx, func(tx *mmrun.Tx) error { return errors.Join(start(tx), start(tx)) })
	wantRunsOnce(t, err)
	if got := call(t, in, "runs"); got != 0 {
		t.Fatalf("main ran %d times, all of them undone", got)
	}
	closeInstance(t, in)

	dir += "2"
	in = open(t, rt, dir, wasm)
	call(t, in, "_start")
	closeInstance(t, in)
	in = open(t, rt, dir, wasm)
	if got := call(t, in, "add", 5); got != 5 {
		t.Fatalf("add gave %d", got)
	}
	for _, name := range []string{"_start", "main", "_start"} { // main is another name of it
		_, err := in.Call(ctx, name)
		wantRunsOnce(t, err)
	}
	err = in.View(ctx, func(tx *mmrun.Tx) error {
		return tx.Function("_start").CallWithStack(context.Background(), nil)
	})
	wantRunsOnce(t, err)
	if runs, sum := call(t, in, "runs"), call(t, in, "add", 1); runs != 1 || sum != 6 {
		t.Errorf("main ran %d times, the sum is %d, want 1 and 6", runs, sum)
	}
}

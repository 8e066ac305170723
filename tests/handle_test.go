package tests

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/internal/testkit/guests"
)

// wasiRuntime has WASI in it.
func wasiRuntime(t testing.TB) wazero.Runtime {
	rt := newRuntime(t)
	if _, err := wasi_snapshot_preview1.Instantiate(ctx, rt); err != nil {
		t.Fatal(err)
	}
	return rt
}

// What a guest reads is the event, what it prints is the effect; what it refuses, and what fails,
// has not happened.
func TestHandler(t *testing.T) {
	var complaints, rest bytes.Buffer
	rt, dir := wasiRuntime(t), filepath.Join(t.TempDir(), "s")
	opts := []mmrun.Option{
		mmrun.WithHandler(&rest),
		mmrun.WithModuleConfig(wazero.NewModuleConfig().WithStderr(&complaints)),
	}
	in := open(t, rt, dir, guests.Load(t, "handler"), opts...)
	handle := func(event, want string) error {
		t.Helper()
		effect, err := in.Handle(ctx, []byte(event))
		if string(effect) != want {
			t.Errorf("%q: effect %q, want %q", event, effect, want)
		}
		return err
	}
	for _, event := range []string{"echo", "", "e\nmore lines\n", "n" /* prints nothing */} {
		want := event
		if event == "n" {
			want = ""
		}
		if err := handle(event, want); err != nil {
			t.Errorf("%q: %v", event, err)
		}
	}
	var refused *mmrun.RefusedError
	if err := handle("refuse", ""); !errors.Is(err, mmrun.ErrRefused) ||
		!errors.As(err, &refused) ||
		refused.Code != 7 {
		t.Errorf("refused: %v", err)
	}
	if err := handle("trap", ""); !errors.Is(err, mmrun.ErrTrap) {
		t.Errorf("trapped: %v", err)
	}
	if err := handle("x", ""); err == nil {
		t.Error("an exit is no end of an event")
	}
	if err := handle("complain", ""); !errors.Is(err, mmrun.ErrRefused) ||
		complaints.String() != "complaint\n" {
		t.Errorf("complained: %v, %q", err, complaints.String())
	}
	if err := handle("big", ""); !errors.Is(err, mmrun.ErrEffectTooLarge) {
		t.Errorf("too much: %v", err)
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := in.Handle(ended, []byte("late")); err == nil {
		t.Error("an event under a context that has ended")
	}
	if got := call(t, in, "get"); got != 4 {
		t.Errorf("%d events were taken, want 4", got)
	}
	// What other events print comes when they are committed, a query's, too.
	call(t, in, "say")
	_ = in.Update(ctx, func(tx *mmrun.Tx) error {
		_, _ = tx.Call(ctx, "say")
		return errEnough
	})
	if rest.String() != "complaint\n" {
		t.Errorf("other events printed %q", rest.String())
	}
	// Several in one event: nothing is out before all is done.
	var effects [2][]byte
	err := in.Update(ctx, func(tx *mmrun.Tx) (err error) {
		for i := range effects {
			if effects[i], err = tx.Handle(ctx, []byte(fmt.Sprint("e", i))); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil || string(effects[0]) != "e0" || string(effects[1]) != "e1" {
		t.Errorf("%q, %v", effects, err)
	}
	seq := in.Seq()
	closeInstance(t, in)
	in = open(t, rt, dir, nil, opts...)
	if in.Seq() != seq || call(t, in, "get") != 6 {
		t.Error("not all is there after a resume")
	}
}

func TestHandleNeedsWhatItNeeds(t *testing.T) {
	rt := wasiRuntime(t)
	in := open(t, rt, filepath.Join(t.TempDir(), "s"), guests.Load(t, "handler"))
	if _, err := in.Handle(ctx, nil); !errors.Is(err, mmrun.ErrUnsupported) ||
		!strings.Contains(err.Error(), "WithHandler") {
		t.Error(err)
	}
	in = open(t, rt, filepath.Join(t.TempDir(), "s"), guests.Load(t, "counter"),
		mmrun.WithHandler(nil))
	if _, err := in.Handle(ctx, nil); !errors.Is(err, mmrun.ErrNoFunction) {
		t.Error(err)
	}
}

// The same program in several languages: ordinary reading and printing.
func TestGuestbooks(t *testing.T) {
	modules := map[string][]byte{"c": guests.Load(t, "guestbook_c"),
		"rust": guests.Load(t, "guestbook_rust")}
	if !testing.Short() {
		modules["go"] = guests.Go(t, "../examples/guestbook/go")
	}
	for language, wasm := range modules {
		t.Run(language, func(t *testing.T) {
			rt, dir := wasiRuntime(t), filepath.Join(t.TempDir(), "s")
			for round := 1; round <= 3; round++ {
				in, err := openSeen(rt, dir, wasm, mmrun.WithHandler(nil))
				if err != nil {
					t.Fatal(err)
				}
				for i, name := range []string{"Ada", "Grace", "Ada Two"} {
					guests := 3
					if round == 1 {
						guests = i + 1
					}
					want := fmt.Sprintf("Hello %s, visit %d, guests %d\n", name, round, guests)
					if got, err := in.Handle(ctx, []byte(name+"\n")); err != nil ||
						string(got) != want {
						t.Fatalf("%q, %v, want %q", got, err, want)
					}
				}
				if _, err := in.Handle(ctx, nil); !errors.Is(err, mmrun.ErrRefused) {
					t.Errorf("an empty event: %v", err)
				}
				abandon(in)
			}
		})
	}
}

// A request that is repeated has its first effect again, and no other one.
func TestOnce(t *testing.T) {
	rt, dir, wasm := newRuntime(t), filepath.Join(t.TempDir(), "s"), guests.Load(t, "counter")
	in, err := openSeen(rt, dir, wasm)
	if err != nil {
		t.Fatal(err)
	}
	inc := func(tx *mmrun.Tx) ([]byte, error) {
		r, err := tx.Call(ctx, "inc")
		return fmt.Append(nil, r), err
	}
	ask := func(key, body string) (mmrun.Outcome, error) {
		return in.Once(ctx, mmrun.Request{Key: key, Function: "inc", Body: []byte(body)}, inc)
	}
	first, err := ask("a", "x")
	if err != nil || first.Repeated || string(first.Effect) != "[1]" {
		t.Fatal(first, err)
	}
	if second, err := ask("b", "x"); err != nil || string(second.Effect) != "[2]" {
		t.Fatal(second, err)
	}
	for _, how := range []string{"at once", "after a kill", "after a close"} {
		again, err := ask("a", "x")
		if err != nil || !again.Repeated || again.Seq != first.Seq ||
			string(again.Effect) != "[1]" {
			t.Fatalf("%s: %+v, %v", how, again, err)
		}
		if _, err := ask("a", "y"); !errors.Is(err, mmrun.ErrKeyReused) {
			t.Errorf("%s: another body: %v", how, err)
		}
		if how == "at once" {
			abandon(in)
		} else {
			closeInstance(t, in)
		}
		if in, err = openSeen(rt, dir, nil); err != nil {
			t.Fatal(err)
		}
	}
	// What failed leaves no receipt.
	failed := mmrun.Request{Key: "f", Function: "inc"}
	if _, err := in.Once(ctx, failed, func(tx *mmrun.Tx) ([]byte, error) {
		_, _ = inc(tx)
		return nil, errEnough
	}); err == nil {
		t.Error("it failed")
	}
	if _, err := in.Once(ctx, failed, func(tx *mmrun.Tx) ([]byte, error) {
		return make([]byte, 2<<20), nil
	}); !errors.Is(err, mmrun.ErrEffectTooLarge) {
		t.Error(err)
	}
	if out, err := in.Once(ctx, failed, inc); err != nil || out.Repeated ||
		string(out.Effect) != "[3]" {
		t.Errorf("%+v, %v", out, err)
	}
	// Many at once with the same keys: each counts once.
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() {
			for j := range 50 {
				if _, err := ask(fmt.Sprint("many ", j), ""); err != nil {
					t.Error(i, err)
				}
			}
		})
	}
	all.Wait()
	if got := call(t, in, "get"); got != 53 {
		t.Errorf("%d, want 53", got)
	}
	for _, key := range []string{"", strings.Repeat("k", 300)} {
		if _, err := ask(key, ""); err == nil {
			t.Errorf("a key of %d bytes", len(key))
		}
	}
	closeInstance(t, in)
}

// The position in a stream is a part of each commit.
func TestStreamPosition(t *testing.T) {
	rt, dir, wasm := newRuntime(t), filepath.Join(t.TempDir(), "s"), guests.Load(t, "counter")
	in, err := openSeen(rt, dir, wasm)
	if err != nil {
		t.Fatal(err)
	}
	var pending []byte
	for i := range 2000 {
		if i%700 == 699 {
			pending = nil
		}
		pending = append(pending, byte(i))
		want := mmrun.Stream{In: int64(i) * 1000, Check: []byte{1, byte(i)}, Out: int64(i),
			Pending: pending}
		err := in.Update(ctx, func(tx *mmrun.Tx) error {
			tx.SetStream(mmrun.Stream{In: 1, Pending: []byte("replaced")})
			tx.SetStream(want)
			if i%3 == 0 {
				return errEnough
			}
			_, err := tx.Call(ctx, "inc")
			return err
		})
		if (err != nil) != (i%3 == 0) {
			t.Fatal(err)
		}
		if i%97 == 0 {
			abandon(in)
			if in, err = openSeen(rt, dir, nil); err != nil {
				t.Fatal(err)
			}
		}
		if i%3 == 0 {
			continue
		}
		_ = in.View(ctx, func(tx *mmrun.Tx) error {
			got, err := tx.Stream()
			if err != nil || got.In != want.In || got.Out != want.Out ||
				!bytes.Equal(got.Check, want.Check) || !bytes.Equal(got.Pending, want.Pending) {
				t.Fatalf("event %d: %v, %v, want %v", i, got, err, want)
			}
			return nil
		})
	}
	closeInstance(t, in)
}

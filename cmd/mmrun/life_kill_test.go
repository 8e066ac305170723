package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/fsck"
)

// lives is a state that commands work on and are killed.
type lives struct {
	t            *testing.T
	rt           wazero.Runtime
	root         string
	state        string
	wasm, next   string // two builds of the module
	sum          [32]byte
	killed, done int
}

// run runs a command and kills it within a time, by chance; it tells whether the command came to
// its end, and how.
func (l *lives) run(within time.Duration, args ...string) (ended bool, code int) {
	l.t.Helper()
	cmd := command(l.t, args...)
	if err := cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	kill := func() { _ = cmd.Process.Kill() }
	timer := time.AfterFunc(time.Duration(rand.Int64N(int64(within))), kill)
	_ = cmd.Wait()
	timer.Stop()
	if !cmd.ProcessState.Exited() {
		l.killed++
		return false, 0
	}
	l.done++
	return true, cmd.ProcessState.ExitCode()
}

// must runs a command to its end.
func (l *lives) must(args ...string) {
	l.t.Helper()
	if out, err := command(l.t, args...).CombinedOutput(); err != nil {
		l.t.Fatalf("mmrun %q: %v\n%s", args, err, out)
	}
}

// whole holds a state against what it is to be.
func (l *lives) whole(dir, after string) {
	l.t.Helper()
	if v, err := fsck.Verify(dir); err != nil || !v.Sound {
		l.t.Fatalf("after %s: %v, %+v", after, err, v)
	}
	sum, err := contentOf(l.t, l.rt, dir)
	if err != nil {
		l.t.Fatalf("after %s: %v", after, err)
	}
	if sum != l.sum {
		l.t.Fatalf("after %s the state holds something else", after)
	}
}

func contentOf(t *testing.T, rt wazero.Runtime, dir string) (sum [32]byte, err error) {
	in, err := mmrun.Open(t.Context(), rt, dir, nil)
	if err != nil {
		return sum, err
	}
	err = in.View(t.Context(), func(tx *mmrun.Tx) error {
		m := tx.Module().Memory()
		b, _ := m.Read(0, m.Size())
		sum = sha256.Sum256(b)
		return nil
	})
	return sum, errors.Join(err, in.Close(t.Context()))
}

// A command that makes, moves or compacts a state leaves it whole wherever it is killed, makes no
// half of one, and does its work when it is run again.
func TestLifeKilled(t *testing.T) {
	rounds := 25
	if testing.Short() {
		rounds = 3
	}
	wasm, state := copyGuest(t, "stores")
	rt := wazero.NewRuntime(t.Context())
	t.Cleanup(func() { _ = rt.Close(t.Context()) })
	l := &lives{t: t, rt: rt, root: filepath.Dir(wasm), state: state, wasm: wasm,
		next: filepath.Join(filepath.Dir(wasm), "next.wasm")}
	b, err := os.ReadFile(wasm)
	if err != nil {
		t.Fatal(err)
	}
	// The next build is the same one with a custom section.
	if err := os.WriteFile(l.next, append(b, 0, 5, 4, 'n', 'e', 'x', 't'), 0o600); err != nil {
		t.Fatal(err)
	}
	const pages = 256
	l.must("call", wasm, "grow", fmt.Sprint(pages-1))
	l.must("call", wasm, "touch", "0", "2", fmt.Sprint(pages*8), "77")
	if l.sum, err = contentOf(t, rt, state); err != nil {
		t.Fatal(err)
	}
	snapshot := filepath.Join(l.root, "s.snapshot")
	l.must("snapshot", state, "-o", snapshot)

	start := time.Now()
	l.must("fork", state, filepath.Join(l.root, "timed"))
	within := 3 * time.Since(start) / 2
	for i := range rounds {
		made := filepath.Join(l.root, fmt.Sprint("made", i))
		l.makes(within, made+".fork", "fork", state, made+".fork")
		l.makes(within, made+".restored", "restore", snapshot, "--state", made+".restored")
		l.snapshots(within, made+".snapshot")
		l.run(within, "compact", state)
		l.whole(state, "compact")
		l.upgrades(within)
	}
	t.Logf("%d killed, %d came to their end", l.killed, l.done)
	if l.killed == 0 {
		t.Error("no command was killed")
	}
}

// makes: a command that makes a state.
func (l *lives) makes(within time.Duration, made string, args ...string) {
	l.t.Helper()
	if ended, code := l.run(within, args...); ended && code != 0 {
		l.t.Fatalf("mmrun %q: exit status %d", args, code)
	}
	if _, err := os.Stat(filepath.Join(made, "globals")); errors.Is(err, os.ErrNotExist) {
		l.must(args...)
	}
	l.whole(made, args[0])
	l.whole(l.state, args[0])
	if err := os.RemoveAll(made); err != nil {
		l.t.Fatal(err)
	}
}

func (l *lives) snapshots(within time.Duration, file string) {
	l.t.Helper()
	l.run(within, "snapshot", l.state, "-o", file)
	if _, err := os.Stat(file); errors.Is(err, os.ErrNotExist) {
		l.must("snapshot", l.state, "-o", file)
	}
	l.must("restore", file, "--state", file+".restored")
	l.whole(file+".restored", "snapshot")
	l.whole(l.state, "snapshot")
	if err := errors.Join(os.Remove(file), os.RemoveAll(file+".restored")); err != nil {
		l.t.Fatal(err)
	}
}

// upgrades goes to the next build, back, there again, and for ever.
func (l *lives) upgrades(within time.Duration) {
	l.t.Helper()
	previous := l.state + ".previous"
	there := func() bool {
		_, err := os.Stat(previous)
		return err == nil
	}
	forward := []string{"upgrade", l.state, l.next, "--keep-memory"}
	back := []string{"upgrade", l.state, "--undo"}
	prune := []string{"upgrade", l.state, "--prune"}
	for _, step := range []struct {
		args []string
		done func() bool
	}{
		{forward, there}, {back, func() bool { return !there() }}, {forward, there},
		{prune, func() bool { return !there() }},
	} {
		l.run(within, step.args...)
		if rand.IntN(2) == 0 { // who looks also ends what was begun
			l.whole(l.state, fmt.Sprint(step.args))
		}
		if !step.done() {
			// An upgrade that was all but done is ended first, and then refused: it is there.
			_ = command(l.t, step.args...).Run()
		}
		if !step.done() {
			l.t.Fatalf("mmrun %q: not done", step.args)
		}
		l.whole(l.state, fmt.Sprint(step.args))
	}
	l.wasm, l.next = l.next, l.wasm
}

package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mmrun/mmrun/internal/testkit/guests"
)

// After any number of kills the output is byte for byte that of a run that was never interrupted,
// refused events and lines that are no events included.
func TestExactlyOnceOverFiles(t *testing.T) {
	for _, kind := range []struct {
		name, guest string
		flags       []string
		line        func(i int) string
	}{
		{"handler", "guestbook_c", []string{"--handle"}, func(i int) string {
			if i%101 == 100 {
				return "" // refused
			}
			return fmt.Sprint("guest ", i*7919%3000)
		}},
		{"functions", "cmap", nil, func(i int) string {
			if i%101 == 100 {
				return "# comment\nnonsense 1"
			}
			return fmt.Sprintf("put %d %d", i*7919%500, i)
		}},
	} {
		t.Run(kind.name, func(t *testing.T) {
			events, kills := 50_000, 50
			if testing.Short() {
				events, kills = 3000, 8
			}
			var input bytes.Buffer
			for i := range events {
				fmt.Fprintln(&input, kind.line(i))
			}
			dir := t.TempDir()
			wasm := filepath.Join(dir, "guest.wasm")
			in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
			for path, b := range map[string][]byte{wasm: guests.Load(t, kind.guest),
				in: input.Bytes()} {
				if err := os.WriteFile(path, b, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			args := func(name, out string) []string {
				return append(append([]string{"run"}, kind.flags...), "--in", in, "--out", out,
					"--state", filepath.Join(dir, name), wasm)
			}
			plain := filepath.Join(dir, "plain")
			start := time.Now()
			_ = command(t, args("plain.state", plain)...).Run()
			took := time.Since(start)
			want, err := os.ReadFile(plain)
			if err != nil || bytes.Count(want, []byte("\n")) < events*9/10 {
				t.Fatalf("%d bytes, %v", len(want), err)
			}
			killed := 0
			for killed < kills {
				cmd := command(t, args("state", out)...)
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				done := make(chan struct{})
				go func() {
					select {
					case <-done:
					case <-time.After(time.Duration(rand.Int64N(int64(took)/int64(kills)*3 + 1e7))):
						_ = cmd.Process.Kill()
					}
				}()
				_ = cmd.Wait()
				close(done)
				if cmd.ProcessState.Exited() {
					break // all of it was done before the last kills
				}
				killed++
				if killed%5 == 0 { // and the file may be longer than what was committed
					f, err := os.OpenFile(out, os.O_APPEND|os.O_WRONLY, 0)
					if err == nil {
						_, _ = f.WriteString("of a commit that a power cut took")
						_ = f.Close()
					}
				}
			}
			_ = command(t, args("state", out)...).Run()
			got, err := os.ReadFile(out)
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("after %d kills: %d bytes, want %d, %v", killed, len(got), len(want), err)
			}
			t.Logf("%d kills", killed)
		})
	}
}

// An input that is not the one that was read, and an output that is not the one that was written,
// are refused with a reason; nothing is changed.
func TestOtherFilesAreRefused(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(path(name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(path("counter.wasm"), guests.Load(t, "counter"), 0o644); err != nil {
		t.Fatal(err)
	}
	run := func(status int, want string, flags ...string) {
		t.Helper()
		_, stderr := mmrunOutput(t, status, append(append([]string{"run", "--in", path("in"),
			"--out",
			path("out")}, flags...), path("counter.wasm"))...)
		if !strings.Contains(stderr, want) {
			t.Errorf("%q, want %q", stderr, want)
		}
	}
	output := func(want string) {
		t.Helper()
		if got, err := os.ReadFile(path("out")); err != nil || string(got) != want {
			t.Errorf("output %q, %v, want %q", got, err, want)
		}
	}
	write("in", "inc\ninc\nin")
	run(exitDone, "the last 2 bytes of the input are no whole event yet")
	output("1\n2\n")
	write("in", "inc\ninc\ninc\n")
	run(exitDone, "")
	output("1\n2\n3\n")
	write("in", "inc\n")
	run(exitFailed, "the input has been cut: 12 bytes of it have been taken, there are 4")
	write("in", "inc\nget\ninc\ninc\n")
	run(exitFailed, "another input, or it was changed")
	write("in", "inc\ninc\ninc\ninc\n")
	write("out", "1\n") // what was not known to be on the disk is written again
	run(exitDone, "")
	output("1\n2\n3\n4\n")
	run(exitUsage, "--in and --out go together", "--out=")
	run(exitUsage, "--frame goes with --handle", "--frame=json")
	_, stderr := mmrunOutput(t, exitFailed, "run", "--in", path("in"), "--out", path("out"),
		"--state",
		path("other"), path("counter.wasm"))
	if !strings.Contains(stderr, "8 bytes that this state has not written") {
		t.Error(stderr)
	}
}

// A loop that follows its input answers what comes, and notices that the file is cut or replaced.
func TestFollow(t *testing.T) {
	dir := t.TempDir()
	in, out, wasm := filepath.Join(dir, "in"), filepath.Join(dir, "out"), filepath.Join(dir,
		"c.wasm")
	if err := os.WriteFile(wasm, guests.Load(t, "counter"), 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(in)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd := command(t, "run", "--follow", "--in", in, "--out", out, wasm)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for i, piece := range []string{"inc\n", "i", "nc\nin", "c\ninc\n"} {
		if _, err := f.WriteString(piece); err != nil {
			t.Fatal(err)
		}
		want := []string{"1\n", "1\n", "1\n2\n", "1\n2\n3\n4\n"}[i]
		waitFor(t, func() bool {
			got, _ := os.ReadFile(out)
			return string(got) == want
		})
	}
	if err := os.Rename(in, in+".old"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(in, []byte("inc\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil || !strings.Contains(stderr.String(),
		"replaced by another file") {
		t.Errorf("%v: %s", err, stderr.String())
	}
}

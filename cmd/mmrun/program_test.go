package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A program that reads a file and writes another one is killed at random instants, and writes what
// it writes when nobody kills it.
func TestProgramKilled(t *testing.T) {
	kills, lines := 60, 40_000
	if testing.Short() {
		kills, lines = 8, 10_000
	}
	wasm, _ := copyGuest(t, "program_O2")
	dir := filepath.Dir(wasm)
	in := filepath.Join(dir, "in")
	var input bytes.Buffer
	for i := range lines {
		fmt.Fprintf(&input, "line %d\n", i)
	}
	if err := os.WriteFile(in, input.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	args := func(name string) []string {
		return []string{"run", "--in", in, "--out", filepath.Join(dir, name+".out"), "--state",
			filepath.Join(dir, name), wasm, "--", "argument"}
	}
	start := time.Now()
	plain := command(t, args("plain")...)
	_ = plain.Run()
	took := time.Since(start)
	if code := plain.ProcessState.ExitCode(); code != 3 {
		t.Fatalf("exit status %d", code)
	}
	want, err := os.ReadFile(filepath.Join(dir, "plain.out"))
	if end := fmt.Sprintf("%d: line %d\ndone", lines, lines-1); err != nil ||
		!bytes.Contains(want, []byte(end)) {
		t.Fatal(err, len(want))
	}
	killed := 0
	for ; killed < kills; killed++ {
		cmd := command(t, args("s")...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		timer := time.AfterFunc(time.Duration(rand.Int64N(int64(took)/4)),
			func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		timer.Stop()
		if cmd.ProcessState.Exited() {
			break
		}
	}
	last := command(t, args("s")...)
	_ = last.Run()
	got, err := os.ReadFile(filepath.Join(dir, "s.out"))
	if err != nil || !bytes.Equal(got, want) || last.ProcessState.ExitCode() != 3 {
		t.Errorf("after %d kills: %d bytes, want %d, exit status %d, %v", killed, len(got),
			len(want),
			last.ProcessState.ExitCode(), err)
	}
	t.Logf("%d kills", killed)
}

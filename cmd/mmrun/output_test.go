package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
)

// outputs are standard outputs that take no answer. Each gives the arguments of a process and its
// standard output.
var outputs = map[string]func(t *testing.T, cmd *exec.Cmd){
	"full disk": func(t *testing.T, cmd *exec.Cmd) {
		full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
		if err != nil {
			t.Skip(err)
		}
		t.Cleanup(func() { full.Close() })
		cmd.Stdout = full
	},
	"no reader": func(t *testing.T, cmd *exec.Cmd) {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		r.Close()
		t.Cleanup(func() { w.Close() })
		cmd.Stdout = w
	},
	"closed": func(t *testing.T, cmd *exec.Cmd) { // no process of Go's can be started like that
		if runtime.GOOS == "windows" {
			t.Skip("needs a POSIX shell")
		}
		sh, err := exec.LookPath("sh")
		if err != nil {
			t.Skip(err)
		}
		// The name under which this test's binary is mmrun has to be one on the path.
		dir := t.TempDir()
		if err := os.Symlink(cmd.Path, dir+"/mmrun"); err != nil {
			t.Fatal(err)
		}
		cmd.Args = append([]string{sh, "-c", `exec "$0" "$@" >&-`, dir + "/mmrun"}, cmd.Args[1:]...)
		cmd.Path = sh
	},
}

// An answer that cannot be written ends in exit status 1 and a sentence that says what has been
// committed: a caller that tried again would do it twice.
func TestLostAnswerSaysWhatIsCommitted(t *testing.T) {
	const checkpointed = "the checkpoint at commit 1 was made, but its answer could not be " +
		"written: "
	const made = "commit 2 was made, but its answer could not be written: "
	for name, replace := range outputs {
		for _, c := range []struct {
			args, input string
			says        string
			seq         uint64 // that the state is at
		}{
			{"call counter.wasm inc", "", made, 2},
			{"call counter.wasm inc --sync never", "", made, 2},
			{"call --json counter.wasm inc", "", made, 2},
			{"run counter.wasm", "inc\ninc\n", made, 2},
			{"run --json counter.wasm", "inc\ninc\n", made, 2},
			{"run counter.wasm", "nosuch\ninc\n", "mmrun: the answer could not be written: ", 1},
			{"query counter.wasm get", "", "mmrun: the answer could not be written: ", 1},
			{"checkpoint counter.wasm", "", checkpointed, 1},
		} {
			t.Run(name+"/"+c.args, func(t *testing.T) {
				wasm, state := copyGuest(t, "counter")
				mmrunOutput(t, exitDone, "run", wasm) // creates the state
				cmd := command(t, strings.Fields(strings.Replace(c.args, "counter.wasm", wasm,
					1))...)
				var stderr bytes.Buffer
				cmd.Stderr, cmd.Stdin = &stderr, strings.NewReader(c.input)
				replace(t, cmd)
				err := cmd.Run()
				var exit *exec.ExitError
				if !errors.As(err, &exit) || exit.ExitCode() != exitFailed {
					t.Errorf("ended with %v, want exit status %d", err, exitFailed)
				}
				if !strings.Contains(stderr.String(), c.says) {
					t.Errorf("it says %q, want %q", stderr.String(), c.says)
				}
				if r := inspect(t, state); r.Seq != c.seq || r.CheckpointSeq != c.seq {
					t.Errorf("commit %d, checkpoint %d, want %d", r.Seq, r.CheckpointSeq, c.seq)
				}
			})
		}
	}
}

// What a guest printed and nobody can read is told like a lost answer, which is written.
func TestLostOutputOfGuestSaysWhatIsCommitted(t *testing.T) {
	wasm, state := copyGuest(t, "rust_wasi")
	mmrunOutput(t, exitDone, "run", wasm)
	for i, args := range [][]string{{"call", "--json", wasm, "push", "5"},
		{"run", "--json", wasm}} {
		seq := i + 2
		cmd := command(t, args...)
		cmd.Stdin = strings.NewReader("push 5\npush 6\n")
		outputs["full disk"](t, cmd)
		var stdout bytes.Buffer
		cmd.Stderr, cmd.Stdout = cmd.Stdout, &stdout
		var exit *exec.ExitError
		if err := cmd.Run(); !errors.As(err, &exit) || exit.ExitCode() != exitFailed {
			t.Errorf("mmrun %s ended with %v, want exit status %d", args[0], err, exitFailed)
		}
		var a struct {
			Seq   uint64
			Error string
		}
		err := json.Unmarshal(stdout.Bytes(), &a)
		if err != nil || a.Seq != uint64(seq) || a.Error != "" {
			t.Errorf("mmrun %s answers %q, %v, want that of commit %d",
				args[0], stdout.String(), err, seq)
		}
		if r := inspect(t, state); r.Seq != uint64(seq) {
			t.Errorf("commit %d, want %d", r.Seq, seq)
		}
	}
}

// fullAtClose is a file of which only the end tells that it could not be written.
type fullAtClose struct{ bytes.Buffer }

func (*fullAtClose) Close() error { return errors.New("no room") }

func TestOutputThatFailsAtCloseIsALostAnswer(t *testing.T) {
	wasm, _ := copyGuest(t, "counter")
	const lost = " could not be written: no room"
	for _, c := range []struct {
		input string
		args  []string
		says  string
	}{
		{"", []string{"call", wasm, "inc"}, "commit 2 was made, but its answer" + lost},
		{"inc\n", []string{"run", wasm}, "commit 3 was made, but its answer" + lost},
		{"", []string{"verify", wasm}, "mmrun: the answer" + lost},
	} {
		var stderr bytes.Buffer
		args := append([]string{c.args[0], "--no-cache"}, c.args[1:]...)
		if c.args[0] == "verify" {
			args = c.args
		}
		status := run(args, strings.NewReader(c.input), &fullAtClose{}, &stderr)
		if status != exitFailed || !strings.Contains(stderr.String(), c.says) {
			t.Errorf("%s: exit status %d, %q", c.args[0], status, stderr.String())
		}
	}
}

// A closed standard output cannot be told from /dev/null that was opened for both; a caller that
// discards both streams like that wants to hear nothing, and > /dev/null is for writing only.
func TestDiscardedOutputIsNoFailure(t *testing.T) {
	for name, flag := range map[string]int{"written": os.O_WRONLY, "both": os.O_RDWR} {
		wasm, _ := copyGuest(t, "counter")
		null, err := os.OpenFile(os.DevNull, flag, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer null.Close()
		cmd := command(t, "call", wasm, "inc")
		cmd.Stdout = null
		if name == "both" {
			cmd.Stderr = null
		}
		if err := cmd.Run(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

var _ io.Closer = (*fullAtClose)(nil)

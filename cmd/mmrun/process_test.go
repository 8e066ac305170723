package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mmrun/mmrun/fsck"
	"github.com/mmrun/mmrun/internal/testkit/guests"
)

// command is a process of its own that runs mmrun: this test's binary under another name
// (TestMain).
func command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Args[0] = "mmrun"
	cmd.Env = append(os.Environ(), "XDG_CACHE_HOME="+processCacheDir)
	return cmd
}

// processCacheDir is one directory for the compiled modules of all tests: they run the same few
// guests.
var processCacheDir = filepath.Join(os.TempDir(), fmt.Sprintf("mmrun-test-%d", os.Getpid()))

// mmrunOutput runs the command to its end.
func mmrunOutput(t *testing.T, wantStatus int, args ...string) (stdout, stderr string) {
	t.Helper()
	cmd := command(t, args...)
	var out, errOut strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if got := cmd.ProcessState.ExitCode(); got != wantStatus {
		t.Fatalf("mmrun %s: exit status %d, want %d\n%s",
			strings.Join(args, " "), got, wantStatus, errOut.String())
	}
	return out.String(), errOut.String()
}

// copyGuest puts a guest where its state may be beside it.
func copyGuest(t *testing.T, name string) (wasm, state string) {
	t.Helper()
	wasm = filepath.Join(t.TempDir(), name+moduleSuffix)
	if err := os.WriteFile(wasm, guests.Load(t, name), 0o644); err != nil {
		t.Fatal(err)
	}
	return wasm, strings.TrimSuffix(wasm, moduleSuffix) + stateSuffix
}

// loop is a running mmrun run.
type loop struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func startLoop(t *testing.T, args ...string) *loop {
	t.Helper()
	l := newLoop(t, args...)
	l.start()
	return l
}

// newLoop is a loop that has not been started.
func newLoop(t *testing.T, args ...string) *loop {
	t.Helper()
	l := &loop{t: t, cmd: command(t, append([]string{"run"}, args...)...)}
	l.cmd.Stderr = os.Stderr
	var err error
	if l.in, err = l.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := l.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	l.out = bufio.NewReader(out)
	return l
}

func (l *loop) start() {
	l.t.Helper()
	if err := l.cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { _ = l.cmd.Process.Kill() })
}

func (l *loop) send(line string) {
	l.t.Helper()
	if _, err := fmt.Fprintln(l.in, line); err != nil {
		l.t.Fatal(err)
	}
}

func (l *loop) ask(line string) string {
	l.t.Helper()
	l.send(line)
	answer, err := l.out.ReadString('\n')
	if err != nil {
		l.t.Fatalf("%s: %v", line, err)
	}
	return strings.TrimSuffix(answer, "\n")
}

// kill is kill -9.
func (l *loop) kill() {
	_ = l.cmd.Process.Kill()
	_ = l.cmd.Wait()
}

func TestAcknowledgedAnswersSurviveKill(t *testing.T) {
	for _, mode := range []string{"atomic", "continuous"} {
		t.Run(mode, func(t *testing.T) {
			wasm, _ := copyGuest(t, "counter")
			acknowledged := 0
			for range 10 {
				l := startLoop(t, "--mode", mode, wasm)
				for range 1 + rand.IntN(50) {
					got, err := strconv.Atoi(l.ask("inc"))
					if err != nil || got != acknowledged+1 {
						t.Fatalf("inc gave %d (%v), want %d", got, err, acknowledged+1)
					}
					acknowledged = got
				}
				l.kill()
			}
		})
	}
}

func TestSignalEndsRunWithCheckpoint(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no signal that one process can send another one")
	}
	for _, sig := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		t.Run(sig.String(), func(t *testing.T) {
			wasm, state := copyGuest(t, "counter")
			l := startLoop(t, wasm)
			l.ask("inc")
			l.ask("inc")
			if r := inspect(t, state); r.CheckpointSeq == r.Seq || r.Seq != 3 {
				t.Errorf("before the signal: commit %d, checkpoint %d", r.Seq, r.CheckpointSeq)
			}
			if err := l.cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			if err := l.cmd.Wait(); err != nil {
				t.Fatalf("run ended with %v", err)
			}
			if r := inspect(t, state); r.CheckpointSeq != 3 || r.Seq != 3 || r.InUse {
				t.Errorf("after the signal: commit %d, checkpoint %d, in use %v",
					r.Seq, r.CheckpointSeq, r.InUse)
			}
		})
	}
}

// The event that runs when the signal comes is committed and answered, and the process says what it
// waits for.
func TestSignalLetsEventEnd(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no signal that one process can send another one")
	}
	wasm, state := copyGuest(t, "stores")
	l := startLoop(t, "--mode", "continuous", wasm) // which shows from outside that an event runs
	l.ask("count")
	l.send("random 1 100000000") // takes a while
	waitFor(t, func() bool { return inspect(t, state).InEvent })
	if err := l.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(l.out)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.cmd.Wait(); err != nil {
		t.Fatalf("run ended with %v", err)
	}
	if r := inspect(t, state); string(rest) != "\n" || r.Seq != 3 || r.InEvent || !r.Clean {
		t.Errorf("answers %q, commit %d, want an empty line and 3", rest, r.Seq)
	}
}

// An event that never ends: the first signal says that it is waited for and how to end at once,
// the second one does so, also where a guest's loop could take the only processor. What was
// committed is there.
func TestSecondSignalEndsAtOnce(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no signal that one process can send another one")
	}
	for name, second := range map[string]syscall.Signal{
		"SIGTERM": syscall.SIGTERM, "SIGINT": syscall.SIGINT, "SIGQUIT": syscall.SIGQUIT,
	} {
		t.Run(name, func(t *testing.T) {
			wasm, state := copyGuest(t, "names")
			l := newLoop(t, wasm)
			// Garbage collections all the time: one that is on waits for the end of the event.
			l.cmd.Env = append(l.cmd.Env, "GOMAXPROCS=1", "GOGC=1")
			l.cmd.Stderr = nil
			stderr, err := l.cmd.StderrPipe()
			if err != nil {
				t.Fatal(err)
			}
			l.start()
			l.ask("say 1")
			l.send("hang")
			lines := bufio.NewReader(stderr)
			next := func(want string) {
				t.Helper()
				for {
					line, err := lines.ReadString('\n')
					if err != nil {
						t.Fatalf("%v, want %q", err, want)
					}
					if strings.Contains(line, want) {
						return
					}
				}
			}
			next("gone") // of say
			next("gone") // of hang: it has begun
			if err := l.cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			next("mmrun: SIGTERM: the event that runs is waited for, then the loop ends; a " +
				"second signal, " +
				"SIGQUIT or kill -9 ends it at once")
			if err := l.cmd.Process.Signal(second); err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, lines)
			if err := l.cmd.Wait(); err == nil {
				t.Error("run ended as if it had done its work")
			}
			if r := inspect(t, state); r.Seq != 2 || r.InUse || r.Problem != "" {
				t.Errorf("commit %d, want 2; %+v", r.Seq, r)
			}
			mmrunOutput(t, exitDone, "verify", state)
		})
	}
}

func TestStateInUseNamesItsOwner(t *testing.T) {
	wasm, state := copyGuest(t, "counter")
	l := startLoop(t, wasm)
	l.ask("inc")
	pid := strconv.Itoa(l.cmd.Process.Pid)
	for _, args := range [][]string{
		{"call", wasm, "inc"}, {"call", state, "get"}, {"run", state}, {"verify", state},
		{"checkpoint", wasm},
	} {
		_, stderr := mmrunOutput(t, exitFailed, args...)
		if !strings.Contains(stderr, "in use by process "+pid) || strings.Count(stderr, "\n") != 1 {
			t.Errorf("mmrun %s: %q does not name process %s", args[0], stderr, pid)
		}
	}
	stdout, _ := mmrunOutput(t, exitDone, "inspect", state)
	words := strings.Join(strings.Fields(stdout), " ")
	if !strings.Contains(words, "in use by process "+pid) ||
		!strings.Contains(words, "commit 2 (checkpoint 1, in the wal 1 more)") {
		t.Errorf("inspect of a state in use:\n%s", stdout)
	}
	if got := l.ask("inc"); got != "2" {
		t.Errorf("inc gave %s, want 2", got)
	}
}

// inspect and verify show what the wal of a killed process holds, checkpoint brings it in.
func TestWALOfKilledProcess(t *testing.T) {
	wasm, state := copyGuest(t, "types")
	l := startLoop(t, wasm)
	l.ask("set_globals 7 8 0.5 -inf")
	l.ask("modify 5")
	l.kill()
	r := inspect(t, state)
	if r.InUse || r.Seq != 3 || r.CheckpointSeq != 1 || r.Problem != "" {
		t.Errorf("after the kill: %+v", r)
	}
	stdout, _ := mmrunOutput(t, exitDone, "inspect", "--json", state)
	for _, want := range []string{`"type":"i32","value":8`, `"type":"i64","value":9`,
		`"type":"f32","value":1.5`, `"type":"f64","value":"-inf"`} {
		if !strings.Contains(stdout, want) {
			t.Errorf("inspect does not show %s:\n%s", want, stdout)
		}
	}
	stdout, _ = mmrunOutput(t, exitDone, "verify", state)
	if !strings.Contains(stdout, "2 commits behind the checkpoint, the last one is 3") {
		t.Errorf("verify:\n%s", stdout)
	}
	stdout, _ = mmrunOutput(t, exitDone, "checkpoint", state)
	if !strings.Contains(stdout, "checkpoint at commit 3, 2 recovered") {
		t.Errorf("checkpoint:\n%s", stdout)
	}
	if stdout, _ = mmrunOutput(t, exitDone, "call", state, "load", "0"); stdout != "1\n" {
		t.Errorf("load gave %q, want 1", stdout)
	}
}

// A record in the wal wants the memory file as long as it was. That must not make a file that
// has been cut long again, with zeros for what is gone.
func TestCutMemoryIsRefusedDespiteWAL(t *testing.T) {
	wasm, state := copyGuest(t, "types")
	mmrunOutput(t, exitDone, "call", wasm, "store", "500000", "42")
	l := startLoop(t, wasm)
	l.ask("store 0 1")
	l.kill()
	if err := os.Truncate(filepath.Join(state, "memory"), 65536); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"verify", state}, {"call", state, "load", "500000"}} {
		_, stderr := mmrunOutput(t, exitFailed, args...)
		if !strings.Contains(stderr, "memory has 65536 bytes, 1048576 were committed") {
			t.Errorf("mmrun %s: %s", args[0], stderr)
		}
	}
}

func TestTornStateIsRefusedUnlessForced(t *testing.T) {
	wasm, state := copyGuest(t, "types")
	mmrunOutput(t, exitDone, "call", "--mode", "continuous", wasm, "none")
	l := startLoop(t, wasm)
	l.send("spin_storing")
	waitFor(t, func() bool { return inspect(t, state).InEvent })
	waitFor(t, func() bool { // it is, and it has stored something
		memory, err := os.ReadFile(filepath.Join(state, "memory"))
		return err == nil && len(memory) > 8 && [8]byte(memory) != [8]byte{}
	})
	l.kill()
	for _, args := range [][]string{
		{"call", state, "none"}, {"run", wasm}, {"verify", state}, {"checkpoint", state},
	} {
		if _, stderr := mmrunOutput(t, exitFailed, args...); !strings.Contains(stderr, "torn") {
			t.Errorf("mmrun %s: %s", args[0], stderr)
		}
	}
	if r := inspect(t, state); r.Problem == "" || r.Event != r.Seq+1 {
		t.Errorf("inspect: event %d, commit %d, problem %q", r.Event, r.Seq, r.Problem)
	}
	stdout, _ := mmrunOutput(t, exitDone, "call", "--force", state, "load", "0")
	if n, err := strconv.Atoi(strings.TrimSpace(stdout)); err != nil || n == 0 {
		t.Errorf("load gave %q, want what the event had stored", stdout)
	}
	mmrunOutput(t, exitDone, "call", state, "none")
}

// The reader of the answers goes away: the loop ends with an error and a checkpoint.
func TestClosedOutputEndsRun(t *testing.T) {
	wasm, state := copyGuest(t, "counter")
	cmd := command(t, "run", wasm)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	out.Close()
	fmt.Fprintln(in, "inc")
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != exitFailed {
		t.Errorf("run ended with %v, want exit status %d", err, exitFailed)
	}
	if r := inspect(t, state); r.Seq != 2 || r.CheckpointSeq != 2 {
		t.Errorf("commit %d, checkpoint %d, want 2", r.Seq, r.CheckpointSeq)
	}
}

func inspect(t *testing.T, state string) *fsck.Report {
	t.Helper()
	r, err := fsck.Inspect(state)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// waitFor polls what another process does, which says nothing of its own accord.
func waitFor(t *testing.T, done func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for ; time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if done() {
			return
		}
	}
	t.Fatal("it did not happen within a minute")
}

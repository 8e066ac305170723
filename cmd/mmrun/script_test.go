package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/mmrun/mmrun/internal/testkit/guests"
)

func TestMain(m *testing.M) {
	testscript.Main(cleaned{m}, map[string]func(){
		"mmrun": func() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) },
	})
}

// cleaned removes what the tests of processes share, when they have run.
type cleaned struct{ m *testing.M }

func (c cleaned) Run() int {
	defer os.RemoveAll(processCacheDir)
	return c.m.Run()
}

// TestScripts runs the command as people do; a script's name says what it is about. The scripts
// find the guests of testdata in their working directory and have these commands beside those of
// testscript:
//
//	status N ARG...     run mmrun: its exit status must be N, and it must not have panicked
//	guest NAME          copy the Go guest NAME.wasm, or skip the script
//	keep NAME DIR       remember the content of all files in DIR but the lock file
//	same NAME DIR       the content must be as remembered
//	chop FILE N         cut the file to N bytes
//	noise FILE FROM N   overwrite N bytes at FROM with noise; without numbers, all of it
//	longline FILE N     write a line of N bytes
//	readonly DIR        mount the directory read-only for the script, or skip it
//	count FILE REGEXP N the file must have N matches
func TestScripts(t *testing.T) {
	cache := t.TempDir() // one for all scripts: they run the same guests
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			env.Setenv("XDG_CACHE_HOME", cache)
			env.Setenv("HOME", env.WorkDir)
			words, err := os.ReadFile("../../realguests/testdata/words.wasm") // AssemblyScript
			if err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(env.WorkDir, "words.wasm"), words,
				0o644); err != nil {
				return err
			}
			for _, name := range append(guests.Names(t), guests.BadNames(t)...) {
				to := filepath.Join(env.WorkDir, filepath.FromSlash(name)+".wasm")
				if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
					return err
				}
				if err := os.WriteFile(to, guests.Load(t, name), 0o644); err != nil {
					return err
				}
			}
			return nil
		},
		Condition: func(cond string) (bool, error) {
			if cond == "root" {
				return os.Geteuid() == 0 && runtime.GOOS == "linux", nil
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"status": scriptStatus,
			"guest": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Check(os.WriteFile(ts.MkAbs(args[0]+".wasm"), guests.Go(t, args[0]), 0o644))
			},
			"keep": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Setenv("kept_"+args[0], digest(ts, args[1]))
			},
			"same": func(ts *testscript.TestScript, neg bool, args []string) {
				if same := ts.Getenv("kept_"+args[0]) == digest(ts, args[1]); same == neg {
					ts.Fatalf("same content: %v", same)
				}
			},
			"chop": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Check(os.Truncate(ts.MkAbs(args[0]), number(ts, args[1])))
			},
			"noise":    scriptNoise,
			"readonly": scriptReadOnly,
			"longline": func(ts *testscript.TestScript, _ bool, args []string) {
				line := append(bytes.Repeat([]byte("x"), int(number(ts, args[1]))), '\n')
				ts.Check(os.WriteFile(ts.MkAbs(args[0]), line, 0o644))
			},
			"count": func(ts *testscript.TestScript, _ bool, args []string) {
				found := regexp.MustCompile(args[1]).FindAllString(ts.ReadFile(args[0]), -1)
				if int64(len(found)) != number(ts, args[2]) {
					ts.Fatalf("%d matches of %s, want %s", len(found), args[1], args[2])
				}
			},
		},
	})
}

func scriptStatus(ts *testscript.TestScript, _ bool, args []string) {
	err := ts.Exec("mmrun", args[1:]...)
	got := 0
	if exit := (*exec.ExitError)(nil); err != nil {
		var ok bool
		if exit, ok = err.(*exec.ExitError); !ok {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if int64(got) != number(ts, args[0]) {
		ts.Fatalf("exit status %d, want %s", got, args[0])
	}
	stderr := ts.ReadFile("stderr")
	for _, sign := range []string{"/cmd/mmrun/", "SIGBUS", "SIGSEGV", "fatal error: "} {
		if strings.Contains(stderr, sign) {
			ts.Fatalf("the command has crashed")
		}
	}
	if got != 0 && !strings.HasPrefix(stderr, "mmrun: ") && !strings.Contains(stderr, "\nmmrun: ") {
		ts.Fatalf("no message")
	}
}

func scriptNoise(ts *testscript.TestScript, _ bool, args []string) {
	path := ts.MkAbs(args[0])
	content, err := os.ReadFile(path)
	ts.Check(err)
	from, n := int64(0), int64(len(content))
	if len(args) == 3 {
		from, n = number(ts, args[1]), number(ts, args[2])
	}
	x := uint64(88172645463325252) // the same noise each time
	for i := from; i < from+n; i++ {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		content[i] = byte(x >> 32)
	}
	ts.Check(os.WriteFile(path, content, 0o644))
}

func scriptReadOnly(ts *testscript.TestScript, _ bool, args []string) {
	dir := ts.MkAbs(args[0])
	for _, mount := range [][]string{{"--bind", dir, dir}, {"-o", "remount,bind,ro", dir}} {
		if out, err := exec.Command("mount", mount...).CombinedOutput(); err != nil {
			ts.Logf("%s", out)
			_ = exec.Command("umount", dir).Run()
			ts.Exec("true")
			ts.Setenv("readonly", "")
			return
		}
	}
	ts.Setenv("readonly", dir)
	ts.Defer(func() { _ = exec.Command("umount", dir).Run() })
}

func number(ts *testscript.TestScript, s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	ts.Check(err)
	return n
}

// digest is the content of all files of a directory, the lock file's left out: that holds the
// number of the process that opened the state last.
func digest(ts *testscript.TestScript, dir string) string {
	h := sha256.New()
	root := ts.MkAbs(dir)
	ts.Check(filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == "lock" {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		name, _ := filepath.Rel(root, path)
		fmt.Fprintf(h, "\n%s\n", name)
		_, err = io.Copy(h, f)
		return err
	}))
	return fmt.Sprintf("%x", h.Sum(nil))
}

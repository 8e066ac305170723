package main

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"sync"

	"github.com/tetratelabs/wazero"
)

// moduleConfig is what the guest sees of the outside: real clocks, real randomness, the directories
// and variables of the command line, and no standard input.
func (a *app) moduleConfig(args []string, stdout io.Writer) (wazero.ModuleConfig, error) {
	config := wazero.NewModuleConfig().
		WithArgs(args...).
		WithStdout(stdout).
		WithStderr(a.guestOut).
		WithSysWalltime().
		WithSysNanotime().
		WithSysNanosleep().
		WithRandSource(rand.Reader) // the same bytes again after each resume, without it
	for _, e := range a.env {
		key, value, ok := strings.Cut(e, "=")
		if !ok || key == "" {
			return nil, usagef("--env %s: want KEY=VALUE", e)
		}
		config = config.WithEnv(key, value)
	}
	if len(a.dirs) == 0 {
		return config, nil
	}
	mounts := wazero.NewFSConfig()
	for _, d := range a.dirs {
		m, err := parseMount(d)
		if err != nil {
			return nil, err
		}
		if m.readOnly {
			mounts = mounts.WithReadOnlyDirMount(m.host, m.guest)
		} else {
			mounts = mounts.WithDirMount(m.host, m.guest)
		}
	}
	return config.WithFSConfig(mounts), nil
}

// mount is a directory of the host under the name that the guest sees.
type mount struct {
	host, guest string
	readOnly    bool
}

// parseMount reads HOST:GUEST[:ro], or a single directory that has the same name on both sides. The
// host's part may hold colons, as on Windows.
func parseMount(s string) (mount, error) {
	rest, readOnly := strings.CutSuffix(s, ":ro")
	m := mount{host: rest, guest: rest, readOnly: readOnly}
	drive := runtime.GOOS == "windows" && len(rest) > 1 && rest[1] == ':'
	if i := strings.LastIndex(rest, ":"); i >= 0 && !(drive && i == 1) {
		m.host, m.guest = rest[:i], rest[i+1:]
	}
	if m.host == "" || m.guest == "" {
		return m, usagef("--dir %s: want HOST:GUEST or HOST:GUEST:ro", s)
	}
	info, err := os.Stat(m.host)
	if err != nil {
		return m, fmt.Errorf("--dir %s: %w", s, err)
	}
	if !info.IsDir() {
		return m, fmt.Errorf("--dir %s: %s is not a directory", s, m.host)
	}
	return m, nil
}

// effects holds back what the guest writes to its standard output until the event that wrote it is
// committed: what is rolled back must not have been seen. Its standard error is not held back, so
// that the reasons for a trap are there to read.
type effects struct {
	to  io.Writer
	mu  sync.Mutex
	buf bytes.Buffer
}

// maxEffects bounds what one event can print, in bytes: until its commit all of it is kept in
// memory.
const maxEffects = 64 << 20

var errTooMuchOutput = errors.New("an event printed more than 64 MiB")

func (e *effects) Write(p []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.buf.Len()+len(p) > maxEffects {
		return 0, errTooMuchOutput
	}
	return e.buf.Write(p)
}

func (e *effects) release() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	_, err := e.buf.WriteTo(e.to)
	if w, ok := e.to.(*escapingWriter); ok && err == nil {
		err = w.flush() // the event is over
	}
	return err
}

func (e *effects) drop() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.buf.Reset()
}

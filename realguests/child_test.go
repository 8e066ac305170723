package realguests

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/internal/testkit/oracle"
	"github.com/mmrun/mmrun/rewriter"
)

// The environment variables that make this test binary a child.
const (
	childGuest = "REALGUESTS_CHILD" // name of the guest
	childWasm  = "REALGUESTS_WASM"  // file
	childState = "REALGUESTS_STATE" // directory
	childMode  = "REALGUESTS_MODE"
	childCache = "REALGUESTS_CACHE"
	childDie   = "REALGUESTS_DIE" // event to die in
	tornStatus = 42               // exit status: the state is torn
)

func TestMain(m *testing.M) {
	if os.Getenv(childGuest) == "" {
		os.Exit(m.Run())
	}
	err := child()
	if errors.Is(err, mmrun.ErrTorn) {
		os.Exit(tornStatus)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// child opens a state, goes on with the events where it stands, and prints each as a line of JSON
// when it is committed. Before the next event it waits for a line on standard input.
func child() error {
	wasm, err := os.ReadFile(os.Getenv(childWasm))
	if err != nil {
		return err
	}
	mode, err := mmrun.ParseMode(os.Getenv(childMode))
	if err != nil {
		return err
	}
	w := newWorld()
	dieAt, err := strconv.ParseUint(os.Getenv(childDie), 10, 64)
	if err != nil {
		return err
	}
	cache, err := wazero.NewCompilationCacheWithDir(os.Getenv(childCache))
	if err != nil {
		return err
	}
	all := allGuests()
	g := all[slices.IndexFunc(all, func(g *guest) bool { return g.name == os.Getenv(childGuest) })]
	in, err := open(g, w, wazero.NewRuntimeConfig().WithCompilationCache(cache),
		os.Getenv(childState), wasm, mode)
	if err != nil {
		return err
	}
	_, info, err := rewriter.Rewrite(wasm, rewriter.Options{})
	if err != nil {
		return err
	}
	w.dieAt = dieAt
	orders := bufio.NewScanner(os.Stdin)
	// The first run was commit 1, so event n is commit n+1.
	for n := in.Seq(); n <= uint64(len(g.events)); n++ {
		if !orders.Scan() {
			return errors.New("no parent")
		}
		s, err := persistentStep(g, w, in, info, n)
		if err != nil {
			return err
		}
		line, err := json.Marshal(s)
		if err != nil {
			return err
		}
		fmt.Printf("%s\n", line)
	}
	return in.Close(ctx)
}

// open opens a guest's state under mmrun. The runtime ends with the process or the caller's test.
func open(g *guest, w *world, config wazero.RuntimeConfig, dir string, wasm []byte,
	mode mmrun.Mode) (*mmrun.Instance, error) {
	rt := wazero.NewRuntimeWithConfig(ctx, config)
	if err := g.instantiateHost(rt, w); err != nil {
		return nil, err
	}
	return mmrun.Open(ctx, rt, dir, wasm, mmrun.WithMode(mode), mmrun.WithModuleConfig(w.config()))
}

// persistentStep does one event under mmrun.
func persistentStep(g *guest, w *world, in *mmrun.Instance, info rewriter.Info, n uint64) (s step,
	err error) {
	s.Event = n
	err = in.Update(ctx, func(tx *mmrun.Tx) error {
		if s.Before, err = sum(tx.Module(), info); err != nil {
			return err
		}
		if s.Answer, err = g.run(w, n, tx); err != nil {
			return err
		}
		if w.dieAt == n {
			die() // the guest has called no host function to die in
		}
		s.After, err = sum(tx.Module(), info)
		return err
	})
	return s, err
}

func sum(mod api.Module, info rewriter.Info) (string, error) {
	state, err := oracle.Save(ctx, mod, info)
	if err != nil {
		return "", err
	}
	return state.Sum(), nil
}

// family is the directory in which children of one guest live and die.
type family struct {
	tb    testing.TB
	guest *guest
	mode  mmrun.Mode
	wasm  string
	state string
}

func newFamily(tb testing.TB, g *guest, wasm []byte, mode mmrun.Mode) *family {
	dir := tb.TempDir()
	f := &family{tb: tb, guest: g, mode: mode, wasm: filepath.Join(dir, "guest.wasm"),
		state: filepath.Join(dir, "guest.state")}
	if err := os.WriteFile(f.wasm, wasm, 0o666); err != nil {
		tb.Fatal(err)
	}
	return f
}

// run starts a child that dies inside event dieAt, or is killed after event killAfter while it
// waits for the next; 0 is never. It returns what the child has committed and its exit status, -1
// if it was killed.
func (f *family) run(dieAt, killAfter uint64) (steps []step, status int) {
	f.tb.Helper()
	cacheDir(f.tb)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childGuest+"="+f.guest.name, childWasm+"="+f.wasm,
		childState+"="+f.state,
		childMode+"="+f.mode.String(), childCache+"="+cacheDir(f.tb),
		childDie+"="+strconv.FormatUint(dieAt, 10))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		f.tb.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		f.tb.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		f.tb.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	fmt.Fprintln(in) // an error shows as the child's end
	for lines.Scan() {
		var s step
		if err := json.Unmarshal(lines.Bytes(), &s); err != nil {
			f.tb.Fatalf("child: %q: %v", lines.Text(), err)
		}
		steps = append(steps, s)
		if killAfter != 0 && s.Event >= killAfter {
			_ = cmd.Process.Kill() // it may have ended by itself
			break
		}
		fmt.Fprintln(in)
	}
	_ = cmd.Wait() // the status says it
	return steps, cmd.ProcessState.ExitCode()
}

// cacheDir is where all tests and children of one test binary keep compiled code.
var sharedCache struct {
	once sync.Once
	dir  string
	err  error
}

func cacheDir(tb testing.TB) string {
	tb.Helper()
	c := &sharedCache
	c.once.Do(func() {
		var base string
		if base, c.err = os.UserCacheDir(); c.err == nil {
			c.dir = filepath.Join(base, "mmrun-guests", "compiled")
			c.err = os.MkdirAll(c.dir, 0o777)
		}
	})
	if c.err != nil {
		tb.Fatal(c.err)
	}
	return c.dir
}

func cache(tb testing.TB) wazero.CompilationCache {
	tb.Helper()
	c, err := wazero.NewCompilationCacheWithDir(cacheDir(tb))
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

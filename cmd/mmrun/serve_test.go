package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mmrun/mmrun/internal/testkit/guests"
)

// serving is a running mmrun serve.
type serving struct {
	t    *testing.T
	args []string
	cmd  *exec.Cmd
	url  string
	log  *strings.Builder
}

func startServing(t *testing.T, args ...string) *serving {
	t.Helper()
	s := &serving{t: t, args: append([]string{"serve", "--listen", "127.0.0.1:0"}, args...)}
	s.start()
	t.Cleanup(func() { _ = s.cmd.Process.Kill() })
	return s
}

func (s *serving) start() {
	s.t.Helper()
	s.cmd, s.log = command(s.t, s.args...), &strings.Builder{}
	s.cmd.Stderr = s.log
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		_ = s.cmd.Wait()
		s.t.Fatalf("%v: %s", err, s.log)
	}
	s.url = strings.TrimSuffix(line, "\n")
}

func (s *serving) post(path, key string) (status int, body string, err error) {
	r, err := http.NewRequest(http.MethodPost, s.url+path, nil)
	if err != nil {
		return 0, "", err
	}
	r.Header.Set("Content-Type", "application/json")
	if key != "" {
		r.Header.Set("Idempotency-Key", key)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	return answer.StatusCode, string(b), err
}

// Requests that are repeated until they are answered take effect once, whenever the server is
// killed: the answers of a counter are all different, and none is missing at the end.
func TestServeKilled(t *testing.T) {
	kills, clients, names := 12, 4, 6
	if testing.Short() {
		kills = 4
	}
	wasm, _ := copyGuest(t, "counter")
	s := startServing(t, wasm, "--data", filepath.Join(t.TempDir(), "data"), "--max-open", "4")
	var mu sync.RWMutex // held for writing while there is no server
	stop := make(chan struct{})
	var all sync.WaitGroup
	answers := make([]map[string]bool, names)
	var answersMu sync.Mutex
	for i := range answers {
		answers[i] = make(map[string]bool)
	}
	for c := range clients {
		all.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				n := rand.IntN(names)
				key := fmt.Sprintf("%d/%d", c, i)
				for {
					mu.RLock()
					status, body, err := s.post(fmt.Sprintf("/v1/instances/%d/call/inc", n), key)
					mu.RUnlock()
					if err == nil && status == 200 {
						answersMu.Lock()
						if answers[n][body] {
							t.Errorf("instance %d: %s twice", n, body)
						}
						answers[n][body] = true
						answersMu.Unlock()
						break
					}
					if err == nil && status != 429 {
						t.Errorf("%d %s", status, body)
						return
					}
					time.Sleep(time.Millisecond)
				}
			}
		})
	}
	for range kills {
		time.Sleep(time.Duration(50+rand.IntN(150)) * time.Millisecond)
		_ = s.cmd.Process.Kill() // while requests run
		_ = s.cmd.Wait()
		mu.Lock()
		s.start()
		mu.Unlock()
	}
	time.Sleep(50 * time.Millisecond)
	close(stop)
	all.Wait()
	for n := range names {
		answer, err := http.Get(fmt.Sprintf("%s/v1/instances/%d/query/get", s.url, n))
		if err != nil {
			t.Fatal(err)
		}
		var got struct{ Results []int }
		err = json.NewDecoder(answer.Body).Decode(&got)
		answer.Body.Close()
		if err != nil || len(got.Results) != 1 || got.Results[0] != len(answers[n]) {
			t.Errorf("instance %d: %v, %v, want %d", n, got, err, len(answers[n]))
		}
	}
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Wait(); err != nil {
		t.Errorf("%v: %s", err, s.log)
	}
}

func TestServeRefusesWhatIsNotSafe(t *testing.T) {
	wasm, _ := copyGuest(t, "counter")
	dir := t.TempDir()
	token := filepath.Join(dir, "token")
	if err := os.WriteFile(token, []byte("short\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	data := []string{"--data", filepath.Join(dir, "data")}
	for _, c := range []struct {
		status int
		want   string
		args   []string
	}{
		{exitUsage, "--data is missing", nil},
		{exitUsage, "the loopback alone", append(data, "--listen", "0.0.0.0:0")},
		{exitUsage, "the loopback alone", append(data, "--listen", ":0")},
		{exitUsage, "want HOST:PORT", append(data, "--listen", "nonsense")},
		{exitUsage, "want auto or explicit", append(data, "--create", "never")},
		{exitUsage, "want NAME=FILE", append(data, "--module", "x")},
		{exitUsage, "go together", append(data, "--tls-cert", "x")},
		{exitUsage, "--disk-limit", append(data, "--disk-limit", "1MiB")},
		{exitFailed, "can be guessed", append(data, "--token-file", token)},
		{exitFailed, "no such file", append(data, "--module", "x=nonsense.wasm")},
	} {
		_, stderr := mmrunOutput(t, c.status, append([]string{"serve", wasm}, c.args...)...)
		if !strings.Contains(stderr, c.want) {
			t.Errorf("%v: %q, want %q", c.args, stderr, c.want)
		}
	}
}

// With a token and over TLS nobody else is answered; a Unix socket is left by a kill and taken
// again.
func TestServeWithTokenAndSocket(t *testing.T) {
	wasm, _ := copyGuest(t, "counter")
	dir := t.TempDir()
	token := filepath.Join(dir, "token")
	if err := os.WriteFile(token, []byte("0123456789abcdef\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := startServing(t, wasm, "--data", filepath.Join(dir, "data"), "--token-file", token)
	if status, body, err := s.post("/v1/instances/x/call/inc", ""); err != nil || status != 401 {
		t.Error(status, body, err)
	}
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
	socket := "unix:" + filepath.Join(dir, "socket")
	for range 2 {
		s := startServing(t, wasm, "--data", filepath.Join(dir, "data"), "--listen", socket)
		if s.url != socket {
			t.Error(s.url)
		}
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
	}
}

// The page in a browser shows what goes on.
func TestPageInABrowser(t *testing.T) {
	browser, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("there is no chromium")
	}
	wasm := filepath.Join(t.TempDir(), "stores.wasm")
	if err := os.WriteFile(wasm, guests.Load(t, "stores"), 0o644); err != nil {
		t.Fatal(err)
	}
	s := startServing(t, wasm, "--data", filepath.Join(t.TempDir(), "data"))
	stop := make(chan struct{})
	var all sync.WaitGroup
	defer all.Wait()
	defer close(stop)
	all.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
			}
			body := fmt.Sprintf(`{"args":[%d,1]}`, i*4096%65536)
			answer, err := http.Post(s.url+"/v1/instances/%3Cb%3Ename/call/one", "application/json",
				strings.NewReader(body))
			if err == nil {
				answer.Body.Close()
			}
		}
	})
	for _, c := range []struct{ hash, want string }{
		{"", "&lt;b&gt;name</a>"},
		{"#%3Cb%3Ename", "a cell is 1 page of 4 KiB"},
	} {
		picture := filepath.Join(t.TempDir(), "page.png")
		var dom string
		for range 5 { // a browser on a busy machine may be late
			cmd := exec.Command(browser, "--headless=new", "--no-sandbox", "--disable-gpu",
				"--user-data-dir="+t.TempDir(), "--timeout=4000", "--virtual-time-budget=4000",
				"--window-size=900,900", "--screenshot="+picture, "--dump-dom", s.url+"/"+c.hash)
			out, err := cmd.Output()
			var exit *exec.ExitError
			if err != nil && !errors.As(err, &exit) {
				t.Fatal(err)
			}
			if dom = string(out); strings.Contains(dom, c.want) {
				break
			}
		}
		if !strings.Contains(dom, c.want) {
			t.Errorf("%q: the page does not show %q:\n%s", c.hash, c.want, dom)
		}
		if to := os.Getenv("MMRUN_SCREENSHOTS"); to != "" {
			b, err := os.ReadFile(picture)
			if err == nil {
				err = os.WriteFile(filepath.Join(to, fmt.Sprintf("page%d.png", len(c.hash))), b,
					0o644)
			}
			if err != nil {
				t.Error(err)
			}
		}
	}
}

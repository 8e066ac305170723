package server

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/internal/testkit/guests"
	"github.com/mmrun/mmrun/registry"
)

var ctx = context.Background()

// service is a server with its registry.
type service struct {
	t        *testing.T
	url      string
	server   *Server
	registry *registry.Registry
	token    string
}

// start makes a server of several modules; the first one is the one without a name.
func start(t *testing.T, o Options, ro registry.Options, names ...string) *service {
	t.Helper()
	rt := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfig().WithCloseOnContextDone(true))
	t.Cleanup(func() { rt.Close(ctx) })
	if _, err := wasi_snapshot_preview1.Instantiate(ctx, rt); err != nil {
		t.Fatal(err)
	}
	ro.Instance = func(string) []mmrun.Option { return []mmrun.Option{mmrun.WithHandler(nil)} }
	s := &service{t: t, token: o.Token}
	for i, name := range names {
		m, err := mmrun.Compile(ctx, rt, guests.Load(t, name))
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			s.registry, err = registry.Open(t.TempDir(), m, ro)
		} else {
			err = s.registry.AddModule(name, m)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	s.server = New(s.registry, o)
	h := httptest.NewServer(s.server)
	t.Cleanup(func() {
		s.server.Drain()
		h.Close()
		if err := s.registry.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	s.url = h.URL
	return s
}

// ask sends a request and gives status, body and headers.
func (s *service) ask(method, path, body string, headers ...string) (int, string, http.Header) {
	s.t.Helper()
	r, err := http.NewRequest(method, s.url+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	if s.token != "" {
		r.Header.Set("Authorization", "Bearer "+s.token)
	}
	if method == http.MethodPost && strings.Contains(path, "/call/") {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
		if headers[i] == "Host" {
			r.Host = headers[i+1]
		}
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return answer.StatusCode, string(b), answer.Header
}

// want holds an answer against what it should be; a body that begins with { is compared as a
// prefix.
func (s *service) want(status int, text, method, path, body string, headers ...string) {
	s.t.Helper()
	got, answer, _ := s.ask(method, path, body, headers...)
	if got != status || !strings.Contains(answer, text) {
		s.t.Errorf("%s %s: %d %s, want %d %s", method, path, got, answer, status, text)
	}
}

func TestCallsEventsAndQueries(t *testing.T) {
	s := start(t, Options{}, registry.Options{}, "types", "handler", "counter")
	post, get := http.MethodPost, http.MethodGet
	s.want(200, `{"results":[],"seq":2}`, post, "/v1/instances/a/call/store", `{"args":[8,42]}`)
	s.want(200, `{"results":[42],"seq":2}`, get, "/v1/instances/a/query/load?arg=8", "")
	// A name is anything, and each has its own state.
	for _, name := range []string{"a%2Fb", "%2E%2E", "%2E", "%C3%A4%20b", "A",
		strings.Repeat("x", 500)} {
		s.want(200, `"seq":2}`, post, "/v1/instances/"+name+"/call/store", `{"args":[8,"43"]}`)
		s.want(200, `[43]`, get, "/v1/instances/"+name+"/query/load?arg=8", "")
	}
	s.want(200, "echo", post, "/v1/instances/h/events?module=handler", "echo")
	status, effect, h := s.ask(post, "/v1/instances/h/events", "e\x00\xff")
	if status != 200 || effect != "e\x00\xff" || h.Get("Mmrun-Seq") != "3" {
		t.Errorf("%d %q %v", status, effect, h)
	}
	s.want(200, `{"instances":["`, get, "/v1/instances?limit=2", "")
	status, list, _ := s.ask(get, "/v1/instances?limit=1000", "")
	var page struct{ Instances []string }
	if err := json.Unmarshal([]byte(list), &page); err != nil || status != 200 {
		t.Fatal(list, err)
	}
	slices.Sort(page.Instances)
	if want := []string{".", "..", "A", "a", "a/b", "h", strings.Repeat("x", 500),
		"ä b"}; !slices.Equal(
		page.Instances, want) {
		t.Errorf("%q", page.Instances)
	}
	s.want(200, `"open":true`, get, "/v1/instances/a", "")
	s.want(201, "", http.MethodPut, "/v1/instances/new?module=counter", "")
	s.want(409, `"kind":"exists"`, http.MethodPut, "/v1/instances/new", "")
	s.want(200, `{"results":[1],"seq":2}`, post, "/v1/instances/new/call/inc", ``)
	s.want(204, "", http.MethodDelete, "/v1/instances/new", "")
	s.want(404, `"kind":"no-instance"`, http.MethodDelete, "/v1/instances/new", "")
	s.want(404, `"kind":"no-instance"`, get, "/v1/instances/new", "")
}

// Each error has its status and its kind, and says whether the event was committed.
func TestProblems(t *testing.T) {
	s := start(t, Options{Timeout: 100 * time.Millisecond, MaxBody: 1000},
		registry.Options{MaxInstances: 3}, "types", "handler")
	post, get := http.MethodPost, http.MethodGet
	call := func(f string) string { return "/v1/instances/a/call/" + f }
	s.want(200, "", post, call("store"), `{"args":[8,42]}`)
	for _, c := range []struct {
		status             int
		kind               string
		method, path, body string
	}{
		{404, "no-function", post, call("nonsense"), ""},
		{404, "no-instance", get, "/v1/instances/b/query/load?arg=8", ""},
		{404, "no-module", post, "/v1/instances/b/call/store?module=nonsense", `{"args":[8,42]}`},
		{400, "usage", post, call("store"), `{"args":[8]}`},
		{400, "usage", post, call("store"), `{"args":[8,1.5]}`},
		{400, "usage", post, call("store"), `{"args":[8,42`},
		{400, "usage", post, call("store"), `{"arg":[8,42]}`},
		{400, "usage", post, call("store"), `{"args":[8,42]} {}`},
		{400, "usage", get, "/v1/instances?limit=0", ""},
		{422, "trap", post, call("load"), `{"args":[-1]}`},
		{422, "refused", post, "/v1/instances/h/events?module=handler", "refuse"},
		{422, "trap", post, "/v1/instances/h/events", "trap"},
		{413, "body-too-large", post, call("store"), strings.Repeat(" ", 2000)},
		{504, "timeout", post, "/v1/instances/e/call/spin", ""},
		{507, "too-many-instances", post, "/v1/instances/c/call/store", `{"args":[8,42]}`},
		{400, "name", post, "/v1/instances/%FF/call/store", `{"args":[8,42]}`},
		{404, "no-such-path", get, "/v2", ""},
		{404, "no-such-path", http.MethodPatch, "/v1/instances/a", ""},
	} {
		status, body, h := s.ask(c.method, c.path, c.body)
		var p problem
		err := json.Unmarshal([]byte(body), &p)
		if status != c.status || err != nil || p.Kind != c.kind || p.Status != status ||
			p.Seq != nil ||
			p.Title == "" || p.Detail == "" || h.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s %s: %d %s, want %d %s", c.method, c.path, status, body, c.status, c.kind)
		}
	}
	s.want(415, "content-type", post, call("store"), `{}`, "Content-Type", "text/plain")
	s.want(400, "usage", post, call("store"), `{"args":[8,42]}`, "Idempotency-Key",
		strings.Repeat("k", 257))
	// Nothing of it has happened.
	s.want(200, `{"results":[42],"seq":2}`, get, "/v1/instances/a/query/load?arg=8", "")
}

// A repeated request is answered with the first one's effect.
func TestIdempotencyKey(t *testing.T) {
	s := start(t, Options{}, registry.Options{}, "counter", "handler")
	inc := func(key string) (string, http.Header) {
		_, body, h := s.ask(http.MethodPost, "/v1/instances/a/call/inc", "", "Idempotency-Key", key)
		return body, h
	}
	first, h := inc("one")
	if first != `{"results":[1],"seq":2}`+"\n" || h.Get("Idempotent-Replayed") != "" {
		t.Fatal(first, h)
	}
	if b, _ := inc("two"); b != `{"results":[2],"seq":3}`+"\n" {
		t.Error(b)
	}
	if b, h := inc("one"); b != first || h.Get("Idempotent-Replayed") != "true" {
		t.Error(b, h)
	}
	s.want(422, "key-reused", http.MethodPost, "/v1/instances/a/call/inc", ` `, "Idempotency-Key",
		"one")
	for range 2 {
		s.want(200, "echo", http.MethodPost, "/v1/instances/h/events?module=handler", "echo",
			"Idempotency-Key", "e")
	}
	s.want(200, `"seq":2`, http.MethodGet, "/v1/instances/h/query/get", "")
}

// Many clients at once lose nothing and double nothing.
func TestManyClients(t *testing.T) {
	s := start(t, Options{}, registry.Options{MaxOpen: 6, MaxQueue: 1000}, "counter")
	var all sync.WaitGroup
	for c := range 8 {
		all.Go(func() {
			for i := range 100 {
				path := fmt.Sprintf("/v1/instances/%d/call/inc", (c+i)%12)
				key := fmt.Sprintf("%d %d", c, i)
				for tries := 0; ; tries++ {
					status, body, _ := s.ask(http.MethodPost, path, "", "Idempotency-Key", key)
					if status == 200 {
						break
					}
					if status != 429 || tries > 1000 {
						t.Errorf("%d %s", status, body)
						return
					}
				}
			}
		})
	}
	all.Wait()
	total := uint64(0)
	for i := range 12 {
		err := s.registry.View(ctx, fmt.Sprint(i), func(tx *mmrun.Tx) error {
			r, err := tx.Call(ctx, "get")
			total += r[0]
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	if total != 800 {
		t.Errorf("%d events, want 800", total)
	}
}

// A client that goes away while its event waits takes it along; one that runs goes on to its end.
func TestClientsThatGoAway(t *testing.T) {
	s := start(t, Options{}, registry.Options{}, "counter")
	inside, goOn := make(chan struct{}), make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		_ = s.registry.Update(ctx, "a", func(tx *mmrun.Tx) error {
			close(inside)
			<-goOn
			return nil
		})
	})
	<-inside
	gone, cancel := context.WithCancel(ctx)
	all.Go(func() {
		r, _ := http.NewRequestWithContext(gone, http.MethodPost, s.url+"/v1/instances/a/call/inc",
			nil)
		r.Header.Set("Content-Type", "application/json")
		if answer, err := http.DefaultClient.Do(r); err == nil {
			answer.Body.Close()
			t.Error("it was answered")
		}
	})
	for s.registry.Stats().Waiting < 2 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	for s.registry.Stats().Waiting > 1 {
		time.Sleep(time.Millisecond)
	}
	close(goOn)
	all.Wait()
	s.want(200, `{"results":[0]`, http.MethodGet, "/v1/instances/a/query/get", "")

	// The context of an event that has begun does not end with its client.
	q := &queued{Context: gone}
	if q.Err() == nil {
		t.Error("it waits, and its client has gone")
	}
	running, done := q.begin(time.Hour)
	defer done()
	if q.Err() != nil || running.Err() != nil {
		t.Error("it runs, and its client is nothing to it")
	}
}

// Without a token nobody is answered that a page elsewhere could have sent; with one nobody without
// it.
func TestWhoMayAsk(t *testing.T) {
	s := start(t, Options{}, registry.Options{}, "counter")
	path := "/v1/instances/a/call/inc"
	for _, h := range [][]string{{"Host", "evil.example"}, {"Origin", "https://evil.example"},
		{"Origin", "null"}, {"Sec-Fetch-Site", "cross-site"}} {
		s.want(403, "forbidden", http.MethodPost, path, "", h...)
	}
	s.want(200, "", http.MethodPost, path, "", "Origin", s.url, "Sec-Fetch-Site", "same-origin")
	for _, host := range []string{"localhost:1", "127.0.0.1", "[::1]:80"} {
		s.want(200, "", http.MethodPost, path, "", "Host", host)
	}
	s = start(t, Options{Token: "secret"}, registry.Options{}, "counter")
	s.want(200, "", http.MethodPost, path, "", "Host", "mmrun.example")
	for _, token := range []string{"", "Bearer wrong", "secret", "Bearer "} {
		s.want(401, "unauthorized", http.MethodPost, path, "", "Authorization", token)
		s.want(401, "unauthorized", http.MethodGet, "/metrics", "", "Authorization", token)
		s.want(401, "unauthorized", http.MethodGet, "/v1/watch", "", "Authorization", token)
	}
	for _, open := range []string{"/", "/page.js", "/page.css", "/healthz", "/readyz"} {
		s.want(200, "", http.MethodGet, open, "", "Authorization", "")
	}
}

func TestReadinessAndMetrics(t *testing.T) {
	s := start(t, Options{}, registry.Options{}, "counter")
	s.want(200, "", http.MethodPost, "/v1/instances/a/call/inc", "")
	s.want(404, "", http.MethodPost, "/v1/instances/a/call/nonsense", "")
	for _, line := range []string{`mmrun_events_total{result="committed",type="call"} 1`,
		`mmrun_events_total{result="no-function",type="call"} 1`, "mmrun_instances_open 1",
		"mmrun_event_seconds_bucket", "mmrun_commit_seconds_count 1",
		"mmrun_checkpoint_failures 0"} {
		s.want(200, line, http.MethodGet, "/metrics", "")
	}
	s.want(200, "ok", http.MethodGet, "/healthz", "")
	s.want(200, "ready", http.MethodGet, "/readyz", "")
	s.server.Drain()
	s.want(503, "draining", http.MethodGet, "/readyz", "")
	s.want(200, "ok", http.MethodGet, "/healthz", "")
}

// The document names each way to ask, and no other one.
func TestOpenAPIDocument(t *testing.T) {
	s := start(t, Options{}, registry.Options{}, "counter")
	_, body, _ := s.ask(http.MethodGet, "/openapi.json", "")
	var doc struct {
		Paths map[string]map[string]json.RawMessage `json:"paths"`
	}
	if err := json.Unmarshal([]byte(body), &doc); err != nil {
		t.Fatal(err)
	}
	var want, got []string
	for _, r := range s.server.routes() {
		if _, path, ok := strings.Cut(r.pattern, " "); ok && !strings.HasPrefix(path, "/page") &&
			path != "/{$}" {
			want = append(want, r.pattern)
		}
	}
	for path, methods := range doc.Paths {
		for method := range methods {
			got = append(got, strings.ToUpper(method)+" "+path)
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("%q\nwant %q", got, want)
	}
}

// Whoever watches sees what goes on; names and values of guests are data.
func TestWatch(t *testing.T) {
	s := start(t, Options{}, registry.Options{}, "stores", "counter")
	s.want(200, "", http.MethodPost, "/v1/instances/c/call/inc?module=counter", "")
	s.want(200, "", http.MethodPost, "/v1/instances/a/call/one", `{"args":[8,1]}`)
	follow := func(path string, until func(map[string]any) bool, do func()) {
		t.Helper()
		r, _ := http.NewRequest(http.MethodGet, s.url+path, nil)
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		d := bytes.Buffer{}
		for buf := make([]byte, 1<<16); ; {
			n, err := answer.Body.Read(buf)
			if err != nil {
				t.Fatal(err)
			}
			d.Write(buf[:n])
			for {
				update, rest, ok := strings.Cut(d.String(), "\n\n")
				if !ok {
					break
				}
				d.Reset()
				d.WriteString(rest)
				var v map[string]any
				if err := json.Unmarshal([]byte(strings.TrimPrefix(update, "data: ")),
					&v); err != nil {
					t.Fatalf("%q: %v", update, err)
				}
				if until(v) {
					return
				}
				do()
			}
		}
	}
	follow("/v1/watch", func(v map[string]any) bool { return v["eventsPerSecond"].(float64) > 0 },
		func() {
			s.want(200, "", http.MethodPost, "/v1/instances/a/call/one", `{"args":[8,1]}`)
		})
	follow("/v1/instances/a/watch", func(v map[string]any) bool {
		return v["cells"].(string)[1] == '3' && len(v["commits"].([]any)) > 0
	}, func() {
		s.want(200, "", http.MethodPost, "/v1/instances/a/call/one", `{"args":[4096,1]}`)
	})
	follow("/v1/instances/c/watch", func(v map[string]any) bool {
		g := v["globals"].([]any)[0].(map[string]any)
		return g["name"] == "n" && g["value"] == "3"
	}, func() {
		s.want(200, "", http.MethodPost, "/v1/instances/c/call/inc", "")
	})
	follow("/v1/instances/none/watch", func(v map[string]any) bool { return v["open"] == false },
		func() {})
	for s.server.watchers.active.Load() > 0 { // the streams end when their clients have gone
		time.Sleep(time.Millisecond)
	}
}

// Over a Unix socket there is no host to check.
func TestUnixSocket(t *testing.T) {
	s := start(t, Options{}, registry.Options{}, "counter")
	path := t.TempDir() + "/s"
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Skip(err)
	}
	h := &http.Server{Handler: s.server}
	go func() { _ = h.Serve(l) }()
	defer h.Close()
	c := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _,
		_ string) (
		net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}}
	answer, err := c.Post("http://anything/v1/instances/a/call/inc", "application/json", nil)
	if err != nil || answer.StatusCode != 200 {
		t.Fatal(answer, err)
	}
	answer.Body.Close()
}

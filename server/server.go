package server

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/mmrun/mmrun/registry"
)

// Options is how a server answers. The zero value is usable: no token, no time out.
type Options struct {
	// Token is what requests have to bring ("Authorization: Bearer TOKEN"). Without one, the server
	// answers only those that name the loopback as their host and do not come from a page of
	// another origin.
	Token string
	// Timeout ends an event that takes longer; it is rolled back then. It takes a runtime that was
	// made with WithCloseOnContextDone. 0: none.
	Timeout time.Duration
	// MaxBody is the length of the largest body of a request, in bytes. 0: 1 MiB.
	MaxBody int64
	// Logger gets a line for each request. Nil: nobody does.
	Logger *slog.Logger
}

// Server answers requests about the instances of a registry. It is an http.Handler.
type Server struct {
	registry *registry.Registry
	opts     Options
	token    [32]byte // its SHA-256
	mux      *http.ServeMux
	metrics  *metrics
	watchers watchers
	draining atomic.Bool
}

// New makes a server. The registry stays the caller's.
func New(r *registry.Registry, o Options) *Server {
	if o.MaxBody == 0 {
		o.MaxBody = 1 << 20
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Server{registry: r, opts: o, token: sha256.Sum256([]byte(o.Token)),
		mux: http.NewServeMux()}
	s.metrics = newMetrics(s)
	s.watchers.init()
	for _, route := range s.routes() {
		h := route.handler
		if !route.open {
			h = s.guarded(h)
		}
		s.mux.HandleFunc(route.pattern, h)
	}
	return s
}

// route is one way to ask.
type route struct {
	pattern string
	open    bool // without a token
	handler http.HandlerFunc
}

func (s *Server) routes() []route {
	return []route{
		{"POST /v1/instances/{name}/call/{func}", false, s.call},
		{"POST /v1/instances/{name}/events", false, s.event},
		{"GET /v1/instances/{name}/query/{func}", false, s.query},
		{"GET /v1/instances", false, s.list},
		{"GET /v1/instances/{name}", false, s.show},
		{"PUT /v1/instances/{name}", false, s.create},
		{"DELETE /v1/instances/{name}", false, s.delete},
		{"GET /v1/watch", false, s.watchAll},
		{"GET /v1/instances/{name}/watch", false, s.watchOne},
		{"GET /metrics", false, s.metrics.handler().ServeHTTP},
		{"GET /openapi.json", false, s.openapi},
		{"GET /healthz", true, s.healthy},
		{"GET /readyz", true, s.ready},
		{"GET /{$}", true, s.page},
		{"GET /page.js", true, s.page},
		{"GET /page.css", true, s.page},
		{"/", false, s.nowhere},
	}
}

// Drain makes the server say that it is not ready, for whoever sends it requests to stop.
func (s *Server) Drain() {
	s.draining.Store(true)
	s.watchers.stop()
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id := r.Header.Get("X-Request-Id")
	if !plainID(id) {
		var b [8]byte
		_, _ = rand.Read(b[:]) // never fails
		id = hex.EncodeToString(b[:])
	}
	w.Header().Set("X-Request-Id", id)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-store")
	rec := &recorder{ResponseWriter: w, status: http.StatusOK}
	start := time.Now()
	defer func() {
		s.opts.Logger.Info("request", "id", id, "method", r.Method, "path", r.URL.EscapedPath(),
			"status", rec.status, "took", time.Since(start), "seq", rec.seq)
	}()
	s.mux.ServeHTTP(rec, r)
}

// plainID tells whether an id that a client has sent can stand in a log.
func plainID(id string) bool {
	if id == "" || len(id) > 64 {
		return false
	}
	for _, c := range id {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' &&
			c != '_' {
			return false
		}
	}
	return true
}

// recorder remembers what was answered, for the log.
type recorder struct {
	http.ResponseWriter
	status int
	seq    uint64
}

func (r *recorder) WriteHeader(status int) {
	r.status = status
	r.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// guarded lets in who may ask.
func (s *Server) guarded(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if s.opts.Token != "" {
			token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
			sum := sha256.Sum256([]byte(token))
			if !ok || subtle.ConstantTimeCompare(sum[:], s.token[:]) == 0 {
				w.Header().Set("WWW-Authenticate", "Bearer")
				fail(w, problem{Status: http.StatusUnauthorized, Kind: "unauthorized",
					Detail: "the request has no token, or a wrong one"})
				return
			}
		} else if why := foreign(r); why != "" {
			fail(w, problem{Status: http.StatusForbidden, Kind: "forbidden", Detail: why})
			return
		}
		h(w, r)
	}
}

// foreign says why a request may come from a page that has no business here: a browser sends it
// with the page's origin, and with the host's name that the page has used.
func foreign(r *http.Request) string {
	if r.TLS == nil && !isLoopback(r.Host) && !overSocket(r) {
		return "the host of the request is not the loopback; a server without a token answers no " +
			"other"
	}
	if site := r.Header.Get("Sec-Fetch-Site"); site == "cross-site" || site == "same-site" {
		return "the request comes from a page of another origin"
	}
	if origin := r.Header.Get("Origin"); origin != "" &&
		origin != "http://"+r.Host && origin != "https://"+r.Host {
		return "the request comes from a page of another origin"
	}
	return ""
}

func isLoopback(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return ip != nil && ip.IsLoopback()
}

// overSocket tells whether the request has come over a Unix socket, which no page can use.
func overSocket(r *http.Request) bool {
	addr, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	return addr != nil && addr.Network() == "unix"
}

func (s *Server) healthy(w http.ResponseWriter, _ *http.Request) { writeText(w, "ok\n") }

func (s *Server) ready(w http.ResponseWriter, _ *http.Request) {
	if s.draining.Load() {
		fail(w, problem{Status: http.StatusServiceUnavailable, Kind: "draining",
			Detail: "the server is about to stop"})
		return
	}
	writeText(w, "ready\n")
}

func (s *Server) nowhere(w http.ResponseWriter, r *http.Request) {
	fail(w, problem{Status: http.StatusNotFound, Kind: "no-such-path",
		Detail: "there is nothing at " + r.Method + " " + r.URL.EscapedPath() +
			" (see /openapi.json)"})
}

func writeText(w http.ResponseWriter, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte(text))
}

// queued is the context of a request as long as its event waits: a client that goes away takes it
// out of the queue. Once the event runs, it goes on to its end.
type queued struct {
	context.Context
	begun atomic.Bool
}

var errGone = errors.New("the client went away")

func (q *queued) Err() error {
	if q.begun.Load() {
		return nil
	}
	return q.Context.Err()
}

// begin says that the event runs, and gives the context for it.
func (q *queued) begin(timeout time.Duration) (context.Context, context.CancelFunc) {
	q.begun.Store(true)
	ctx := context.WithoutCancel(q.Context)
	if timeout > 0 {
		return context.WithTimeout(ctx, timeout)
	}
	return ctx, func() {}
}

package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/registry"
	"github.com/mmrun/mmrun/server"
)

const serveHelp = `Serve many named instances of MODULE over HTTP, under one data directory, with a
page to watch them at /. An instance is created by its first event:

  curl -X POST -H 'Content-Type: application/json' -d '{"args":[1,2]}' \
    http://127.0.0.1:8080/v1/instances/NAME/call/FUNC
  curl -X POST --data-binary @event http://127.0.0.1:8080/v1/instances/NAME/events
  curl http://127.0.0.1:8080/v1/instances/NAME/query/FUNC?arg=1

docs/server.md has all of it; /openapi.json is the document for programs. The address is written to
standard output when the server answers, a log as JSON to standard error.

Without --token-file it listens on the loopback or a Unix socket alone. SIGINT and SIGTERM stop it:
it says that it is not ready, ends the events that run, and makes a checkpoint of each instance. A
second signal ends it at once, which loses nothing that was committed.`

// serveFlags are those of serve alone.
type serveFlags struct {
	data, listen, tokenFile, cert, key, create string
	modules                                    []string
	maxOpen, maxQueue, maxInstances            int
	idle                                       time.Duration
	maxBody, diskLimit                         size
}

func (a *app) serveCommand() *cobra.Command {
	var f serveFlags
	cmd := &cobra.Command{
		Use:     "serve MODULE --data DIR",
		Short:   "Serve many named instances over HTTP",
		Long:    serveHelp,
		Example: `  mmrun serve counter.wasm --data data`,
		Args:    exactModule,
		RunE: func(cmd *cobra.Command, args []string) error {
			if !cmd.Flags().Changed("timeout") {
				a.timeout = defaultTimeout
			}
			return a.serve(cmd.Context(), args[0], f)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.data, "data", "", "`DIR` that holds the instances; made if it is not there")
	flags.StringArrayVar(&f.modules, "module", nil,
		"another module, `NAME=FILE`, that ?module=NAME creates instances with")
	flags.StringVar(&f.listen, "listen", "127.0.0.1:8080",
		"`ADDRESS` to listen on: HOST:PORT or unix:PATH")
	flags.StringVar(&f.tokenFile, "token-file", "",
		"`FILE` with the token that requests must bring")
	flags.StringVar(&f.cert, "tls-cert", "", "`FILE` with the certificate for TLS")
	flags.StringVar(&f.key, "tls-key", "", "`FILE` with its key")
	flags.StringVar(&f.create, "create", "auto",
		"`WHEN` instances are created: auto (by their first event) or explicit (by PUT)")
	flags.IntVar(&f.maxOpen, "max-open", 1000, "`N` instances are open at once, at most")
	flags.IntVar(&f.maxQueue, "max-queue", 128, "`N` events of an instance run and wait, at most")
	flags.IntVar(&f.maxInstances, "max-instances", 0, "`N` instances there may be; 0: any number")
	flags.DurationVar(&f.idle, "idle", 5*time.Minute,
		"close an instance after this `DURATION` without events")
	f.maxBody = 1 << 20
	flags.Var(&f.maxBody, "max-body", "longest body of a request, a `SIZE`")
	flags.Var(&f.diskLimit, "disk-limit",
		"let an instance take this `SIZE` on disk, at most: its memory is limited to that less "+
			"its log")
	for name, values := range map[string][]string{"create": {"auto", "explicit"}} {
		complete(cmd, name, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	}
	a.compileFlags(cmd)
	a.guestFlags(cmd)
	a.commitFlags(cmd)
	cmd.Flags().Lookup("timeout").DefValue = "30s"
	return cmd
}

func exactModule(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return usagef("%d arguments given, want one MODULE (usage: %s)", len(args), cmd.UseLine())
	}
	return nil
}

// defaultTimeout is that of serve: without one, a loop in a guest keeps its instance for ever.
const defaultTimeout = 30 * time.Second

func (a *app) serve(ctx context.Context, module string, f serveFlags) (err error) {
	token, err := f.check()
	if err != nil {
		return err
	}
	opts, err := a.options(mmrun.SyncEvery(time.Second))
	if err != nil {
		return err
	}
	log := slog.New(slog.NewJSONHandler(a.errOut, nil))
	s := &service{app: a, log: log}
	defer func() { err = errors.Join(err, s.close()) }()
	if err := s.open(ctx, module, f, opts); err != nil {
		return err
	}
	handler := server.New(s.registry, server.Options{Token: token, Timeout: a.timeout,
		MaxBody: int64(f.maxBody), Logger: log})
	return s.listen(ctx, f, handler)
}

// check refuses what does not go together, and reads the token.
func (f serveFlags) check() (token string, err error) {
	switch {
	case f.data == "":
		return "", usagef("--data is missing: the directory that holds the instances")
	case f.create != "auto" && f.create != "explicit":
		return "", usagef("--create %s: want auto or explicit", f.create)
	case (f.cert == "") != (f.key == ""):
		return "", usagef("--tls-cert and --tls-key go together")
	case f.maxOpen < 1 || f.maxQueue < 1 || f.maxInstances < 0 || f.idle <= 0:
		return "", usagef("--max-open, --max-queue and --idle are positive, --max-instances is " +
			"not negative")
	}
	if f.tokenFile != "" {
		b, err := os.ReadFile(f.tokenFile)
		if err != nil {
			return "", fmt.Errorf("--token-file: %w", err)
		}
		if token = strings.TrimSpace(string(b)); len(token) < 16 {
			return "", fmt.Errorf("--token-file %s: a token of %d bytes can be guessed: want 16 "+
				"or more",
				f.tokenFile, len(token))
		}
		return token, nil
	}
	if strings.HasPrefix(f.listen, unixPrefix) {
		return "", nil
	}
	host, _, err := net.SplitHostPort(f.listen)
	if err != nil {
		return "", usagef("--listen %s: want HOST:PORT or unix:PATH", f.listen)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return "", usagef("--listen %s: without --token-file the server listens on the loopback "+
			"alone: "+
			"anybody who reaches it may do anything", f.listen)
	}
	return "", nil
}

const unixPrefix = "unix:"

// service is what runs behind the server.
type service struct {
	app      *app
	log      *slog.Logger
	session  session // its runtime and its cache
	modules  []*mmrun.Module
	registry *registry.Registry
}

func (s *service) open(ctx context.Context, module string, f serveFlags,
	opts []mmrun.Option) error {
	a := s.app
	s.session = session{app: a}
	var files []string
	names := []string{""}
	files = append(files, module)
	for _, m := range f.modules {
		name, file, ok := strings.Cut(m, "=")
		if !ok || name == "" || file == "" {
			return usagef("--module %s: want NAME=FILE", m)
		}
		names, files = append(names, name), append(files, file)
	}
	var all [][]byte
	for _, file := range files {
		wasm, err := target{module: file}.wasm()
		if err != nil {
			return err
		}
		all = append(all, wasm)
	}
	if limit := f.diskLimit; limit > 0 {
		rest := int64(limit) - mmrun.DefaultWALSize - serveSlack
		if rest < wasmPage {
			return usagef("--disk-limit %v: the log and the small files alone take up to %d bytes",
				&limit,
				int64(mmrun.DefaultWALSize+serveSlack))
		}
		if a.memoryLimit == 0 || uint64(a.memoryLimit) > uint64(rest) {
			a.memoryLimit = size(rest)
		}
	}
	if err := s.session.newRuntime(ctx, all[0]); err != nil {
		return err
	}
	compile := func(ctx context.Context, wasm []byte) (*mmrun.Module, error) {
		m, err := mmrun.Compile(ctx, s.session.runtime, wasm)
		if err == nil {
			s.session.noteCache()
		}
		return m, err
	}
	config, err := a.moduleConfig([]string{"mmrun"}, io.Discard)
	if err != nil {
		return err
	}
	stderr := &lineWriter{to: a.guestOut}
	config = config.WithStderr(stderr).WithRandSource(rand.Reader)
	opts = append(opts, mmrun.WithModuleConfig(config), mmrun.WithHandler(stderr))
	for i, wasm := range all {
		m, err := compile(ctx, wasm)
		if err != nil {
			return inModule(files[i], err)
		}
		s.modules = append(s.modules, m)
		if i == 0 {
			s.registry, err = registry.Open(f.data, m, registry.Options{MaxOpen: f.maxOpen,
				Idle:     f.idle,
				MaxQueue: f.maxQueue, MaxInstances: f.maxInstances,
				Explicit: f.create == "explicit",
				Instance: func(string) []mmrun.Option { return opts }, Compile: compile,
				Logger: s.log})
		} else {
			err = s.registry.AddModule(names[i], m)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// serveSlack is what the small files of an instance may take, in bytes.
const serveSlack = 1 << 20

func (s *service) close() error {
	ctx := context.Background()
	var errs []error
	if s.registry != nil {
		errs = append(errs, s.registry.Close(ctx))
	}
	for _, m := range s.modules {
		errs = append(errs, m.Close(ctx))
	}
	if s.session.runtime != nil {
		s.session.closeRuntime(ctx)
	}
	return errors.Join(errs...)
}

// listen answers requests until a signal comes.
func (s *service) listen(ctx context.Context, f serveFlags, h *server.Server) error {
	network, address := "tcp", f.listen
	if path, ok := strings.CutPrefix(f.listen, unixPrefix); ok {
		network, address = "unix", path
		if info, err := os.Lstat(path); err == nil && info.Mode()&os.ModeSocket != 0 {
			_ = os.Remove(path) // of a server that was killed
		}
	}
	l, err := net.Listen(network, address)
	if err != nil {
		return fmt.Errorf("--listen %s: %w", f.listen, err)
	}
	shown := "http://" + l.Addr().String()
	if network == "unix" {
		shown = f.listen
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout: 2 * time.Minute,
		ReadTimeout: time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelWarn)}
	if f.cert != "" {
		cert, err := tls.LoadX509KeyPair(f.cert, f.key)
		if err != nil {
			return errors.Join(fmt.Errorf("--tls-cert: %w", err), l.Close())
		}
		shown = "https://" + l.Addr().String()
		l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{cert},
			MinVersion: tls.VersionTLS12})
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	s.log.Info("listening", "address", shown, "data", f.data)
	if _, err := fmt.Fprintln(s.app.out, shown); err != nil {
		s.log.Warn("the address could not be written", "error", err)
	}
	select {
	case err := <-served:
		return err
	case sig := <-signals:
		signal.Stop(signals) // the next one ends the process
		s.log.Info("stopping", "signal", signalName(sig))
	}
	h.Drain()
	ending, cancel := context.WithTimeout(ctx, defaultTimeout)
	defer cancel()
	if err := srv.Shutdown(ending); err != nil {
		return fmt.Errorf("some requests did not end in time: %w", errors.Join(err, srv.Close()))
	}
	return nil
}

// lineWriter lets many guests write to one place, a line at a time.
type lineWriter struct {
	to io.Writer
	mu sync.Mutex
	// rest is what is no line yet, of whoever has written last.
	rest bytes.Buffer
}

func (w *lineWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rest.Write(p)
	const most = 4096
	end := bytes.LastIndexByte(w.rest.Bytes(), '\n') + 1
	if end == 0 && w.rest.Len() < most {
		return len(p), nil
	}
	if end == 0 {
		end = w.rest.Len()
	}
	_, err := w.to.Write(w.rest.Next(end))
	if e, ok := w.to.(*escapingWriter); ok && err == nil {
		err = e.flush()
	}
	return len(p), err
}

// Command service embeds the server and its registry in an HTTP service of its own, beside other
// paths.
//
//	go run ./examples/service testdata/counter.wasm
//	curl -X POST -H 'Content-Type: application/json' http://127.0.0.1:8090/v1/instances/a/call/inc
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/registry"
	"github.com/mmrun/mmrun/server"
)

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: service GUEST.wasm")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1]); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, path string) (err error) {
	wasm, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	const timeout = 10 * time.Second
	rt := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfig().WithCloseOnContextDone(true))
	defer rt.Close(context.WithoutCancel(ctx))
	wasi_snapshot_preview1.MustInstantiate(ctx, rt)
	m, err := mmrun.Compile(ctx, rt, wasm)
	if err != nil {
		return err
	}
	defer m.Close(context.WithoutCancel(ctx))
	durable := func(string) []mmrun.Option {
		return []mmrun.Option{mmrun.WithSync(mmrun.SyncAlways), mmrun.WithHandler(os.Stderr)}
	}
	r, err := registry.Open("service.data", m, registry.Options{Instance: durable})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close(context.WithoutCancel(ctx))) }()

	guests := server.New(r, server.Options{Timeout: timeout})
	mux := http.NewServeMux()
	mux.Handle("/", guests)
	mux.HandleFunc("GET /hello", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "another path of the same service")
	})
	srv := &http.Server{Addr: "127.0.0.1:8090", Handler: mux, ReadHeaderTimeout: timeout}
	go func() {
		<-ctx.Done()
		guests.Drain()
		_ = srv.Shutdown(context.WithoutCancel(ctx))
	}()
	if err := srv.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Command plugins holds a thousand instances of one plugin, each with a state of its own that
// outlives the process.
//
//	go run ./examples/plugins testdata/counter.wasm
//
// Run it twice: the second run goes on where the first one has ended.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/registry"
)

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: plugins PLUGIN.wasm, which exports inc() -> i32")
	}
	if err := run(context.Background(), os.Args[1]); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, path string) (err error) {
	wasm, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	rt := wazero.NewRuntime(ctx)
	defer rt.Close(ctx)
	wasi_snapshot_preview1.MustInstantiate(ctx, rt)
	m, err := mmrun.Compile(ctx, rt, wasm) // once for all of them
	if err != nil {
		return err
	}
	defer m.Close(ctx)
	r, err := registry.Open("plugins.data", m, registry.Options{MaxOpen: 2000})
	if err != nil {
		return err
	}
	defer r.Close(ctx)

	const tenants = 1000
	start, total := time.Now(), uint64(0)
	for i := range tenants {
		err := r.Update(ctx, fmt.Sprintf("tenant-%d", i), func(tx *mmrun.Tx) error {
			results, err := tx.Call(ctx, "inc")
			if err == nil {
				total += results[0]
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	fmt.Printf("%d plugins, %d events since the first run, this round took %v\n", tenants, total,
		time.Since(start).Round(time.Millisecond))
	return nil
}

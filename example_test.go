package mmrun_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/tetratelabs/wazero"

	"github.com/mmrun/mmrun"
)

// openExample opens the smallest guest: a counter in a private global.
func openExample(dir string) (*mmrun.Instance, func()) {
	ctx := context.Background()
	wasm, err := os.ReadFile("testdata/counter.wasm")
	if err != nil {
		log.Fatal(err)
	}
	rt := wazero.NewRuntime(ctx)
	in, err := mmrun.Open(ctx, rt, filepath.Join(dir, "counter.state"), wasm)
	if err != nil {
		log.Fatal(err)
	}
	return in, func() {
		if err := errors.Join(in.Close(ctx), rt.Close(ctx)); err != nil {
			log.Fatal(err)
		}
	}
}

func tempDir() string {
	dir, err := os.MkdirTemp("", "mmrun-example-")
	if err != nil {
		log.Fatal(err)
	}
	return dir
}

// Each round could be another process: the counter goes on where it stood.
func ExampleOpen() {
	dir := tempDir()
	defer os.RemoveAll(dir)
	for range 3 {
		in, closeAll := openExample(dir)
		results, err := in.Call(context.Background(), "inc")
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(uint32(results[0]))
		closeAll()
	}
	// Output:
	// 1
	// 2
	// 3
}

// Several calls are one event: all of it is kept, or nothing.
func ExampleInstance_Update() {
	dir := tempDir()
	defer os.RemoveAll(dir)
	in, closeAll := openExample(dir)
	defer closeAll()
	ctx := context.Background()

	err := in.Update(ctx, func(tx *mmrun.Tx) error {
		inc := tx.Function("inc")
		stack := make([]uint64, 1)
		for range 10 {
			if err := inc.CallWithStack(ctx, stack); err != nil {
				return err
			}
		}
		return errors.New("changed my mind")
	})
	fmt.Println(err)

	results, _ := in.Call(ctx, "inc")
	fmt.Println(uint32(results[0]))
	// Output:
	// changed my mind
	// 1
}

// A query may run any function of the guest; what it changes is gone afterwards.
func ExampleInstance_View() {
	dir := tempDir()
	defer os.RemoveAll(dir)
	in, closeAll := openExample(dir)
	defer closeAll()
	ctx := context.Background()

	err := in.View(ctx, func(tx *mmrun.Tx) error {
		results, err := tx.Call(ctx, "inc")
		fmt.Println("in the query:", uint32(results[0]))
		return err
	})
	if err != nil {
		log.Fatal(err)
	}
	results, _ := in.Call(ctx, "get")
	fmt.Println("afterwards:", uint32(results[0]))
	// Output:
	// in the query: 1
	// afterwards: 0
}

// The user's bytes are committed with the state: here, how far the input has been read.
func ExampleTx_SetMeta() {
	dir := tempDir()
	defer os.RemoveAll(dir)
	ctx := context.Background()
	input := []string{"a", "b", "c"}
	for range 2 { // two runs over the same input
		in, closeAll := openExample(dir)
		done := len(in.Meta())
		for i := range input[done:] {
			err := in.Update(ctx, func(tx *mmrun.Tx) error {
				tx.SetMeta(make([]byte, done+i+1))
				_, err := tx.Call(ctx, "inc")
				return err
			})
			if err != nil {
				log.Fatal(err)
			}
		}
		results, _ := in.Call(ctx, "get")
		fmt.Printf("%d lines were left to read, the counter is %d\n", len(input)-done,
			uint32(results[0]))
		closeAll()
	}
	// Output:
	// 3 lines were left to read, the counter is 3
	// 0 lines were left to read, the counter is 3
}

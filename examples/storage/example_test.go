package storage_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/tetratelabs/wazero"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/fsck"
	"github.com/mmrun/mmrun/globalsfile"
	"github.com/mmrun/mmrun/mmapmem"
	"github.com/mmrun/mmrun/rewriter"
	"github.com/mmrun/mmrun/vfs"
	"github.com/mmrun/mmrun/vfs/faultfs"
	"github.com/mmrun/mmrun/wal"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

// counter is the project's guest of that name: inc and get over a private global.
func counter() []byte {
	return must(os.ReadFile(filepath.Join("..", "..", "testdata", "counter.wasm")))
}

// A module's private global is read after a rewrite, by a name that the rewrite has given it.
func Example_rewriter() {
	ctx := context.Background()
	rewritten, info, err := rewriter.Rewrite(counter(), rewriter.Options{})
	check(err)
	rt := wazero.NewRuntime(ctx)
	defer rt.Close(ctx)
	mod := must(rt.Instantiate(ctx, rewritten))
	must(mod.ExportedFunction("inc").Call(ctx))
	for _, g := range info.Globals {
		fmt.Println(g.Type, mod.ExportedGlobal(g.Export).Get())
	}
	// Output: i32 1
}

// A memory on a mapped file says what an event has changed, and undoes an event.
func Example_mmapmem() {
	dir := must(os.MkdirTemp("", "example"))
	defer os.RemoveAll(dir)
	file := must(vfs.OS.OpenFile(filepath.Join(dir, "memory"), os.O_RDWR|os.O_CREATE, 0o600))
	defer file.Close()
	check(file.Truncate(mmapmem.WasmPageSize))
	mem := must(mmapmem.Open(file, mmapmem.Private, 1))
	defer mem.Close()
	// As wazero does it.
	live := mem.Allocate(0, mmapmem.WasmPageSize).Reallocate(mmapmem.WasmPageSize)

	copy(live[5000:], "an event")
	pending := must(mem.Changes())
	for _, r := range pending.Ranges() {
		fmt.Printf("%d: %s\n", r.Offset, live[r.Offset:][:r.Len])
	}
	check(pending.Keep(1, false)) // a log has the ranges

	copy(live[5000:], "undone!!")
	check(mem.Rollback(mmapmem.WasmPageSize))
	fmt.Printf("%s\n", live[5000:5008])
	// Output:
	// 5000: an event
	// an event
}

// Records that belong to no file can be sent elsewhere.
func Example_wal() {
	memory := []byte("what was and what is")
	record := must(wal.Encode(nil, &wal.Commit{Seq: 7, Small: []byte("globals"), Memory: memory,
		Ranges: []wal.Range{{Offset: 13, Len: 7}}}))
	r, rest, err := wal.Decode(record)
	check(err)
	fmt.Println(r.Seq, string(r.Small), len(rest))
	for offset, data := range r.Ranges() {
		fmt.Printf("%d: %s\n", offset, data)
	}
	// Output:
	// 7 globals 0
	// 13: what is
}

// The globals of a state survive the process, and the file tells whether they go with the memory.
func Example_globalsfile() {
	dir := must(os.MkdirTemp("", "example"))
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "globals")
	f := must(globalsfile.Create(vfs.OS, path,
		globalsfile.Header{Module: sha256.Sum256(nil), Mode: globalsfile.Continuous},
		&globalsfile.State{Seq: 1, Meta: []byte("mine")}))
	check(f.Close())
	state, report, err := globalsfile.Inspect(vfs.OS, path)
	check(err)
	fmt.Println(state.Seq, string(state.Meta), report.InEvent)
	// Output: 1 mine false
}

// An operation of the file system fails when a test wants it to.
func Example_faultfs() {
	full := errors.New("the disk is full")
	fsys := faultfs.Wrap(vfs.OS, func(op *faultfs.Op, do func() error) error {
		if op.Kind == faultfs.WriteAt {
			return full
		}
		return do()
	})
	dir := must(os.MkdirTemp("", "example"))
	defer os.RemoveAll(dir)
	f := must(fsys.OpenFile(filepath.Join(dir, "f"), os.O_RDWR|os.O_CREATE, 0o600))
	defer f.Close()
	_, err := f.WriteAt([]byte("x"), 0)
	fmt.Println(errors.Is(err, full))
	// Output: true
}

// A state that nobody has open is looked at, checked, and mended after damage.
func Example_fsck() {
	ctx := context.Background()
	root := must(os.MkdirTemp("", "example"))
	defer os.RemoveAll(root)
	dir := filepath.Join(root, "counter.state")
	rt := wazero.NewRuntime(ctx)
	defer rt.Close(ctx)
	in := must(mmrun.Open(ctx, rt, dir, counter()))
	must(in.Call(ctx, "inc"))
	check(in.Close(ctx))

	verified := must(fsck.Verify(dir))
	fmt.Println(verified.Sound, verified.Seq)
	check(os.Truncate(filepath.Join(dir, "wal.0"), 10))
	verified = must(fsck.Verify(dir))
	fmt.Println(verified.Sound)
	repaired := must(fsck.Repair(dir, false))
	fmt.Println(repaired.Seq, repaired.Backup != "")
	fmt.Println(must(fsck.Verify(dir)).Sound)
	// Output:
	// true 2
	// false
	// 2 true
	// true
}

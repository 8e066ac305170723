package rewriter

import (
	"bytes"
	"context"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
)

// What each function of WASI writes to the memory is marked: each is called with parameters that
// are addresses, small numbers and lengths by chance, over a memory in which paths and lists of
// buffers lie, and the memory is compared. Which functions have written at all is part of the test.
func TestWhatWASIWrites(t *testing.T) {
	ctx := context.Background()
	rt := wazero.NewRuntime(ctx)
	defer rt.Close(ctx)
	compiled, err := wasi_snapshot_preview1.NewBuilder(rt).Compile(ctx)
	if err != nil {
		t.Fatal(err)
	}
	functions := compiled.ExportedFunctions()
	wasi_snapshot_preview1.MustInstantiate(ctx, rt)
	all := 3000
	if testing.Short() {
		all = 1200
	}
	// A host without sockets, and names that cannot be anything, have these write nothing.
	mayBeSilent := []string{"fd_advise", "fd_allocate", "fd_close", "fd_datasync",
		"fd_fdstat_set_flags",
		"fd_fdstat_set_rights", "fd_filestat_set_size", "fd_filestat_set_times", "fd_renumber",
		"fd_sync",
		"path_create_directory", "path_filestat_set_times", "path_link", "path_remove_directory",
		"path_rename", "path_symlink", "path_unlink_file", "sched_yield", "sock_accept",
		"sock_recv",
		"sock_send", "sock_shutdown"}
	for _, name := range slices.Sorted(maps.Keys(functions)) {
		if name == "proc_exit" || name == "proc_raise" {
			continue // end the module, and write nothing
		}
		trials := all
		silent := slices.Contains(mayBeSilent, name)
		if silent {
			trials /= 10
		}
		writes := wasiWrites(t, rt, name, functions[name], functions["path_open"], trials)
		if !writes && !silent {
			t.Errorf("%s has never written: the test does not reach it", name)
		}
	}
}

// wasiWrites calls one function, and tells whether it has ever written.
func wasiWrites(t *testing.T, rt wazero.Runtime, name string, def, open api.FunctionDefinition,
	trials int) (writes bool) {
	t.Helper()
	ctx := context.Background()
	root := t.TempDir()
	for file, content := range map[string]string{"a.txt": strings.Repeat("text ", 2000), "b": "x"} {
		if err := os.WriteFile(filepath.Join(root, file), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("a.txt", filepath.Join(root, "l.txt")); err != nil {
		t.Fatal(err)
	}
	out, info, err := Rewrite(forwarder(name, def, open), Options{Barrier: true})
	if err != nil {
		t.Fatal(err)
	}
	mod, err := rt.InstantiateWithConfig(ctx, out, wazero.NewModuleConfig().WithName("").
		WithStdin(strings.NewReader(strings.Repeat("input ", 1<<16))).WithArgs("one", "two").
		WithEnv("a",
			"b").WithRandSource(rand.NewChaCha8([32]byte{1})).WithSysWalltime().WithSysNanotime().
		WithFSConfig(wazero.NewFSConfig().WithDirMount(root, "/")))
	if err != nil {
		t.Fatal(err)
	}
	defer mod.Close(ctx)
	b := &barriered{t: t, in: mod, info: info}
	f, mem := mod.ExportedFunction("f"), mod.Memory()
	r := rand.New(rand.NewPCG(7, uint64(len(name))))
	const pages, pageSize = 32, 4096
	image := wasiMemory(pages * pageSize)
	if !mem.Write(0, image) {
		t.Fatal("the memory is too small")
	}
	const readAndSeek = 1<<1 | 1<<2 | 1<<5
	if _, err := mod.ExportedFunction("open").Call(ctx, 3, 0, 0, 5, 0, readAndSeek, 0, 0,
		8); err != nil {
		t.Fatal(err)
	}
	for range trials {
		if !mem.Write(0, image) {
			t.Fatal("the memory is too small")
		}
		var params []uint64
		for _, typ := range def.ParamTypes() {
			v := uint64(r.IntN(10)) // a descriptor, a number, a length
			switch n := r.IntN(10); {
			case typ == api.ValueTypeI64 && n < 8:
				v = uint64(r.IntN(3))
			case n < 5: // an address, perhaps near the end of a page
				v = uint64(r.IntN(pages))*pageSize + []uint64{0, 0, 0, 8, 4092, 4090}[r.IntN(6)]
			case n == 5:
				v = 5 // the length of a path
			case n == 6:
				v = uint64(r.IntN(9000))
			}
			params = append(params, v)
		}
		if strings.HasPrefix(name, "path_") {
			params[0] = 3
		} else if strings.HasPrefix(name, "fd_") && r.IntN(2) == 0 {
			params[0] = 3 + uint64(r.IntN(2)) // the directory, and a file in it
		}
		if _, err := f.Call(ctx, params...); err != nil && mod.IsClosed() {
			t.Fatalf("%s%v: %v", name, params, err)
		} // else a panic in the host, of which there are some for descriptors of another kind
		after := memoryOf(mod)
		if bytes.Equal(after, image) {
			b.forget()
			continue
		}
		writes = true
		host := int32(mod.ExportedGlobal(info.Barrier.Host).Get()) != 0
		told := b.told()
		for page := range uint32(pages) {
			at := int(page) * pageSize
			if !host && !told[page] && !bytes.Equal(after[at:at+pageSize], image[at:at+pageSize]) {
				t.Fatalf("%s%v has written page %d, which is not told", name, params, page)
			}
		}
		b.forget()
	}
	return writes
}

// wasiMemory has a pattern, with paths at the begin of some pages, and lists of buffers in others.
func wasiMemory(size int) []byte {
	image := bytes.Repeat([]byte{0xa5, 0x5a, 0x33}, size/3+1)[:size]
	for page := 0; page*4096 < size; page++ {
		at := image[page*4096:]
		switch page % 4 {
		case 0:
			copy(at, "a.txt")
		case 1:
			copy(at, "l.txt")
		case 2: // buffers of 10, 5,000 and 100 bytes
			for i, pair := range [][2]uint32{{9000, 10}, {20_000, 5000}, {uint32(size) - 200, 100},
				{0, 0}} {
				for j, v := range pair {
					for k := range 4 {
						at[8*i+4*j+k] = byte(v >> (8 * k))
					}
				}
			}
		case 3: // subscriptions to a clock that has passed
			clear(at[:200])
		}
	}
	return image
}

// forwarder is a module whose functions f and open call two functions of WASI.
func forwarder(name string, f, open api.FunctionDefinition) []byte {
	typ := func(def api.FunctionDefinition) []byte {
		b := append(appendU32([]byte{0x60}, uint32(len(def.ParamTypes()))), def.ParamTypes()...)
		return append(appendU32(b, uint32(len(def.ResultTypes()))), def.ResultTypes()...)
	}
	call := func(def api.FunctionDefinition, function byte) []byte {
		var code []byte
		for i := range def.ParamTypes() {
			code = append(code, 0x20, byte(i))
		}
		return body(append(code, 0x10, function, 0x0b)...)
	}
	const wasi = "wasi_snapshot_preview1"
	return build(
		vec(secType, typ(f), typ(open)),
		vec(secImport, importOf(wasi, name, kindFunc, 0), importOf(wasi, "path_open", kindFunc, 1)),
		vec(secFunction, bs(0), bs(1)),
		vec(secMemory, bs(0, 2)),
		vec(secExport, exportOf("f", kindFunc, 2), exportOf("open", kindFunc, 3),
			exportOf("memory", kindMemory, 0)),
		vec(secCode, call(f, 0), call(open, 1)),
	)
}

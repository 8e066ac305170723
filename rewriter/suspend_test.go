package rewriter_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/mmrun/mmrun/internal/testkit/guests"
	"github.com/mmrun/mmrun/rewriter"
)

// leaver runs a program that waits in mmrun.wait, leaves it at some of its waits, and goes on in a
// fresh instance each time.
type leaver struct {
	t        *testing.T
	rt       wazero.Runtime
	compiled wazero.CompiledModule
	info     rewriter.Info
	out      bytes.Buffer
	input    io.Reader

	mod     api.Module
	at      uint32 // where frames are written
	aside   []byte
	leaving bool
	coming  bool
	waits   int
	leave   func(wait int) bool
	left    int
	longest int
}

func newLeaver(t *testing.T, wasm []byte, options rewriter.Options) *leaver {
	t.Helper()
	ctx := context.Background()
	l := &leaver{t: t, rt: wazero.NewRuntime(ctx)}
	t.Cleanup(func() { l.rt.Close(ctx) })
	wasi_snapshot_preview1.MustInstantiate(ctx, l.rt)
	_, err := l.rt.NewHostModuleBuilder("mmrun").NewFunctionBuilder().WithFunc(l.wait).
		Export("wait").
		Instantiate(ctx)
	if err != nil {
		t.Fatal(err)
	}
	rewritten, info, err := rewriter.Rewrite(wasm, options)
	if err != nil {
		t.Fatal(err)
	}
	l.info = info
	if l.compiled, err = l.rt.CompileModule(ctx, rewritten); err != nil {
		t.Fatal(err)
	}
	return l
}

func (l *leaver) global(name string) api.MutableGlobal {
	return l.mod.ExportedGlobal(name).(api.MutableGlobal)
}

func (l *leaver) set(sp, limit uint32, state uint64) {
	s := l.info.Suspend
	l.global(s.SP).Set(uint64(sp))
	l.global(s.Limit).Set(uint64(limit))
	l.global(s.State).Set(state)
}

func (l *leaver) keepAside(n uint32) {
	b, ok := l.mod.Memory().Read(l.at, n)
	if !ok {
		l.t.Fatal("no room for frames")
	}
	l.aside = bytes.Clone(b)
}

func (l *leaver) wait(_ context.Context, n int32) int32 {
	if l.coming {
		if sp := uint32(l.global(l.info.Suspend.SP).Get()); sp != l.at {
			l.t.Fatalf("frames are left over: %d bytes", sp-l.at)
		}
		l.mod.Memory().Write(l.at, l.aside)
		l.set(0, 0, 0)
		l.coming = false
		return n*5%7 + 1
	}
	if l.waits++; l.leave != nil && l.leave(l.waits) {
		const room = 1 << 15
		l.keepAside(room)
		l.set(l.at, l.at+room, 1)
		l.leaving = true
		return -99 // whatever it is, nobody may see it
	}
	return n*5%7 + 1
}

func (l *leaver) instantiate() {
	l.t.Helper()
	var err error
	config := wazero.NewModuleConfig().WithName("").WithArgs("program", "argument").
		WithStdin(l.input).WithStdout(&l.out).WithStartFunctions()
	if l.mod, err = l.rt.InstantiateModule(context.Background(), l.compiled, config); err != nil {
		l.t.Fatal(err)
	}
}

// run is the whole program; the result is how it ended.
func (l *leaver) run(input string) string {
	l.t.Helper()
	ctx := context.Background()
	l.input = bytes.NewReader([]byte(input))
	l.instantiate()
	if _, err := l.mod.ExportedFunction(l.info.Init).Call(ctx); err != nil {
		l.t.Fatal(err)
	}
	for {
		_, err := l.mod.ExportedFunction("_start").Call(ctx)
		if !l.leaving {
			l.mod.Close(ctx)
			return fmt.Sprint(err)
		}
		if err != nil {
			l.t.Fatalf("while leaving: %v", err)
		}
		l.leaving = false
		l.left++
		l.again()
	}
}

// again goes on in a fresh instance, with the frames somewhere else.
func (l *leaver) again() {
	old := l.mod
	end := uint32(l.global(l.info.Suspend.SP).Get())
	b, _ := old.Memory().Read(l.at, end-l.at)
	frames := bytes.Clone(b)
	l.longest = max(l.longest, len(frames))
	old.Memory().Write(l.at, l.aside)
	memory, _ := old.Memory().Read(0, old.Memory().Size())
	l.instantiate()
	l.mod.Memory().Grow((uint32(len(memory)) - l.mod.Memory().Size()) / 65536)
	l.mod.Memory().Write(0, memory)
	for _, g := range l.info.Globals {
		l.global(g.Export).Set(old.ExportedGlobal(g.Export).Get())
	}
	old.Close(context.Background())
	l.at = uint32(l.left*4096) % 20480
	l.keepAside(uint32(len(frames)))
	l.mod.Memory().Write(l.at, frames)
	l.set(l.at+uint32(len(frames)), l.at+uint32(len(frames)), 1)
	l.coming = true
}

// Left at any of its waits, and gone on with in a fresh instance, a program does the same: at four
// levels of optimisation, with the calls that can wait instrumented, and with all of them.
func TestProgramLeftAnywhereDoesTheSame(t *testing.T) {
	const input = "one\ntwo\nthree\n"
	for _, level := range []string{"0", "1", "2", "s"} {
		for _, options := range []rewriter.Options{{Suspend: true}, {SuspendEverywhere: true}} {
			t.Run(fmt.Sprintf("O%s everywhere %v", level, options.SuspendEverywhere),
				func(t *testing.T) {
					wasm := guests.Load(t, "program_O"+level)
					plain := newLeaver(t, wasm, options)
					ended := plain.run(input)
					want := plain.out.String()
					if len(want) < 300 || plain.waits < 400 {
						t.Fatalf("%d waits: %s, %s", plain.waits, want, ended)
					}
					every := []int{1, 2, 3, 7}
					if testing.Short() {
						every = []int{1}
					}
					for _, k := range every {
						l := newLeaver(t, wasm, options)
						l.leave = func(wait int) bool { return wait%k == 0 }
						if got := l.run(input); got != ended || l.out.String() != want ||
							l.left < 400/k {
							t.Fatalf("left at each %d-th wait, %d times: %s, want %s\n%s\nwant\n%s",
								k,
								l.left, got,
								ended, l.out.String(), want)
						}
						if k == 1 {
							t.Logf("%d sites, left %d times, frames of up to %d bytes",
								l.info.Suspend.Sites, l.left,
								l.longest)
						}
					}
				})
		}
	}
}

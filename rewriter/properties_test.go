package rewriter

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

// properties are what must hold of Rewrite for any input:
//   - it does not panic, leaves its input alone, and has only its two kinds of errors;
//   - what wazero refuses is refused, by Rewrite or by wazero when it gets the result;
//   - what wazero compiles is refused as unsupported or compiles after the rewrite;
//   - what runs does the same before and after.
type properties struct {
	runtimes                        []wazero.Runtime // by what features they have
	checked, compiled, refused, ran int

	// stricter counts, by reason, what wazero compiles although it is malformed. It is for people
	// to look at: valid modules must not be among them.
	stricter map[string]int
}

func newProperties(t testing.TB) *properties {
	ctx := context.Background()
	p := &properties{stricter: map[string]int{}}
	for _, features := range []api.CoreFeatures{allFeatures, api.CoreFeaturesV2} {
		// The interpreter validates as the compiler does, in a fraction of the time, and what it
		// runs can be stopped. With debug information wazero refuses an empty custom section at the
		// very end.
		config := wazero.NewRuntimeConfigInterpreter().WithCoreFeatures(features).
			WithCloseOnContextDone(true).WithMemoryLimitPages(64).WithDebugInfoEnabled(false)
		rt := wazero.NewRuntimeWithConfig(ctx, config)
		t.Cleanup(func() { rt.Close(ctx) })
		_, err := rt.NewHostModuleBuilder("env").
			NewFunctionBuilder().WithFunc(func() int32 { return 100 }).Export("hundred").
			NewFunctionBuilder().WithFunc(func() {}).Export("nothing").
			Instantiate(ctx)
		if err != nil {
			t.Fatal(err)
		}
		p.runtimes = append(p.runtimes, rt)
	}
	return p
}

// noPanic makes an error of a panic: wazero panics on some broken modules.
func noPanic(err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("panic: %v", r)
	}
}

func compile(rt wazero.Runtime, module []byte) (err error) {
	defer noPanic(&err)
	ctx := context.Background()
	compiled, err := rt.CompileModule(ctx, module)
	if err == nil {
		compiled.Close(ctx)
	}
	return err
}

func (p *properties) compile(module []byte) error { return compile(p.runtimes[0], module) }

func (p *properties) check(t *testing.T, module []byte) {
	p.checked++
	before := bytes.Clone(module)
	out, info, err := Rewrite(module, Options{})
	if !bytes.Equal(module, before) {
		t.Error("the input was modified")
	}
	var malformed *FormatError
	var unsupported *UnsupportedError
	switch {
	case errors.As(err, &unsupported):
		p.refused++
		return
	case errors.As(err, &malformed):
		if !longNumber(module) && p.compile(module) == nil {
			p.stricter[strings.Map(dropDigits, malformed.Reason)]++
		}
		return
	case err != nil:
		t.Errorf("untyped error: %v", err)
		return
	}
	again, passes, err := ReadInfo(out)
	if err != nil || !reflect.DeepEqual(again, info) || !slices.Equal(passes, []string{"persist"}) {
		t.Errorf("ReadInfo: %+v, %q, %v\nwant %+v", again, passes, err, info)
	}
	if longNumber(module) {
		return
	}
	for _, rt := range p.runtimes {
		plain, rewritten := compile(rt, module), compile(rt, out)
		if plain != nil && rewritten == nil {
			t.Errorf("wazero refuses it as it is (%v), and takes it rewritten", plain)
		}
		// Some references are kept with instructions of a feature that having them does not need.
		if plain == nil && rewritten != nil && !strings.Contains(rewritten.Error(), "is disabled") {
			t.Errorf("does not compile any more: %v", rewritten)
		}
		if plain == nil && rewritten == nil {
			p.compiled++
			p.same(t, rt, module, out, info)
		}
		if plain == nil {
			p.barrier(t, rt, module)
		}
	}
}

// barrier runs a module that compiles as it is beside the one that tells what it writes.
func (p *properties) barrier(t *testing.T, rt wazero.Runtime, module []byte) {
	out, info, err := Rewrite(module, Options{Barrier: true})
	var unsupported *UnsupportedError
	if errors.As(err, &unsupported) {
		return
	}
	if err != nil {
		t.Errorf("with the barrier: %v", err)
		return
	}
	err = compile(rt, out)
	if err == nil {
		p.same(t, rt, module, out, info)
	} else if !strings.Contains(err.Error(), "is disabled") {
		t.Errorf("does not compile with the barrier: %v", err)
	}
}

// same runs a module as it is and rewritten, and compares what can be seen.
func (p *properties) same(t *testing.T, rt wazero.Runtime, module, out []byte, info Info) {
	plain, rewritten := &trial{rt: rt}, &trial{rt: rt}
	plain.start(module, nil)
	rewritten.start(out, &info)
	defer plain.close()
	defer rewritten.close()
	if plain.mod != nil && rewritten.mod != nil {
		definitions := plain.mod.ExportedFunctionDefinitions()
		for _, name := range slices.Sorted(maps.Keys(definitions)) {
			def := definitions[name]
			args := make([]uint64, len(def.ParamTypes()))
			for i, typ := range def.ParamTypes() {
				if typ == api.ValueTypeI32 || typ == api.ValueTypeI64 {
					args[i] = uint64(p.checked % 5)
				}
			}
			if name != "_initialize" && len(args) < 8 {
				plain.call(name, args)
				rewritten.call(name, args)
			}
		}
		plain.look(info)
		rewritten.look(info)
	}
	if plain.late || rewritten.late || plain.silent(rewritten) || readsActiveData(module, info) {
		return
	}
	p.ran++
	if !slices.Equal(plain.log, rewritten.log) {
		t.Errorf("as it is:\n%s\nrewritten:\n%s", strings.Join(plain.log, "\n"),
			strings.Join(rewritten.log, "\n"))
	}
}

// trial is one run of a module, and what was seen of it.
type trial struct {
	rt   wazero.Runtime
	mod  api.Module
	log  []string
	late bool // it had to be stopped, or its host is not there
}

// limit ends what does not end by itself. Comparing depends on it only for modules that take as
// long.
const limit = 100 * time.Millisecond

func (r *trial) start(module []byte, info *Info) {
	var err error
	defer func() {
		if err != nil {
			// Why depends on whether it was wazero or mmrun:init.
			r.log = append(r.log, "not instantiated")
			r.late = r.late || strings.Contains(err.Error(), "not instantiated")
		}
	}()
	defer noPanic(&err)
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	config := wazero.NewModuleConfig().WithName("").WithStartFunctions()
	mod, err := r.rt.InstantiateWithConfig(ctx, module, config)
	if err != nil {
		r.late = ctx.Err() != nil
		return
	}
	if info != nil {
		for _, name := range []string{info.Init, info.Start} {
			if name == "" {
				continue
			}
			if _, err = mod.ExportedFunction(name).Call(ctx); err != nil {
				r.late = ctx.Err() != nil
				return
			}
		}
	}
	r.mod = mod
}

func (r *trial) call(name string, args []uint64) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	var results []uint64
	var err error
	func() {
		defer noPanic(&err)
		results, err = r.mod.ExportedFunction(name).Call(ctx, args...)
	}()
	r.late = r.late || ctx.Err() != nil
	def := r.mod.ExportedFunction(name).Definition()
	at := 0
	for _, typ := range def.ResultTypes() {
		switch typ {
		case api.ValueTypeI32, api.ValueTypeI64, api.ValueTypeF32, api.ValueTypeF64:
		default:
			at = len(results) // a reference, or a vector, which has two
		}
	}
	text := fmt.Sprintf("%s%v = %x", name, args, results[min(at, len(results)):])
	if err != nil {
		line, _, _ := strings.Cut(err.Error(), "\n")
		text += " " + line
	}
	r.log = append(r.log, text)
}

// look notes memory and numeric globals. Globals of a module as it is can be seen if they are
// exported.
func (r *trial) look(info Info) {
	if r.mod.IsClosed() {
		return
	}
	if info.Memory != nil {
		m := r.mod.Memory()
		b, _ := m.Read(0, m.Size())
		r.log = append(r.log, fmt.Sprintf("memory of %d: %x", m.Size(), bytes.TrimRight(b, "\x00")))
	}
	for _, g := range info.Globals {
		if x := r.mod.ExportedGlobal(g.Export); x != nil &&
			!strings.HasPrefix(g.Export, Reserved) &&
			!g.Type.IsRef() {
			r.log = append(r.log, fmt.Sprintf("%s = %x", g.Export, x.Get()))
		}
	}
}

// silent says whether wazero has instantiated a module whose element segments do not fit.
func (r *trial) silent(rewritten *trial) bool { return r.mod != nil && rewritten.mod == nil }

// readsActiveData says whether the code reads a data segment that instantiation drops: but not
// wazero's.
func readsActiveData(module []byte, info Info) bool {
	m, err := decode(module)
	return err != nil || slices.ContainsFunc(info.Segments, func(s Segment) bool {
		return s.Kind == DataSegment && m.Data[s.Index].Active
	})
}

func (r *trial) close() {
	if r.mod != nil {
		r.mod.Close(context.Background())
	}
}

// longNumber says whether there may be a number of more than 21 bits in the module. wazero believes
// in counts and allocates accordingly.
func longNumber(module []byte) bool {
	run := 0
	for _, b := range module {
		if b < 0x80 {
			run = 0
		} else if run++; run == 3 {
			return true
		}
	}
	return false
}

// TestMutatedSpecModules holds Rewrite to the same on modules of the official test suite with a few
// bytes changed. These stay valid far more often than what the fuzzer comes up with.
func TestMutatedSpecModules(t *testing.T) {
	p := newProperties(t)
	random := rand.New(rand.NewPCG(1, 2))
	rounds := 5
	if n, err := strconv.Atoi(os.Getenv("REWRITER_MUTATIONS")); err == nil {
		rounds = n
		random = rand.New(rand.NewPCG(rand.Uint64(), 0))
	}
	try := func(name string, module []byte) {
		mutated := mutate(random, module)
		p.check(t, mutated)
		if t.Failed() {
			t.Fatalf("%s with changes: %x", name, mutated)
		}
	}
	for path := range specModules(t) {
		module, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if len(module) > 2000 || p.compile(module) != nil {
			continue
		}
		for range rounds {
			try(path, module)
		}
	}
	for _, module := range seeds(t) {
		for range 100 * rounds {
			try("seed", module)
		}
	}
	for reason, n := range p.stricter {
		t.Logf("%4d compile although malformed: %s", n, reason)
	}
	t.Logf("%d modules checked; of those rewritten %d compile (with all features or 2.0's), %d "+
		"ran; "+
		"%d are refused as unsupported", p.checked, p.compiled, p.ran, p.refused)
}

// mutate changes up to three bytes.
func mutate(random *rand.Rand, module []byte) []byte {
	mutated := bytes.Clone(module)
	if len(mutated) == 0 {
		return mutated
	}
	for range 1 + random.IntN(3) {
		// Values that are small, or near the one that is there, mean something more often than
		// others.
		at := random.IntN(len(mutated))
		switch random.IntN(4) {
		case 0:
			mutated[at] = byte(random.IntN(12))
		case 1:
			mutated[at] += byte(random.IntN(5)) - 2
		case 2:
			mutated[at] = mutated[random.IntN(len(mutated))]
		default:
			mutated[at] = byte(random.Uint32())
		}
	}
	return mutated
}

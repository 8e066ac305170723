package rewriter

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
)

// FuzzRewrite holds Rewrite to what it promises for any input: no panic; what it takes and compiles still compiles after the
// rewrite; and a second rewrite changes nothing.
func FuzzRewrite(f *testing.F) {
	for _, name := range []string{"state", "tables", "segments", "reread"} {
		wasm := readModule(f, name)
		f.Add(wasm)
		out, _, err := Rewrite(wasm)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(out)
	}
	f.Add(typedModule())
	f.Add(build())
	f.Add(build(custom("name", 7, 4, 1, 0, 1, 'g'), vec(secGlobal, mutI32)))
	f.Add(build(vec(secType, typeVoid), vec(secImport, importOf("env", "nothing", kindFunc, 0)), sec(secStart, 0)))
	f.Add(build(vec(secType, typeVoid, bs(groupForm, 1, 0x60, 0, 0)), vec(secFunction, bs(0)), vec(secTag, bs(0, 0)),
		vec(secCode, body(0x06, 0x40, 0x08, 0, 0x19, 0x0b, 0x1f, 0x40, 1, 2, 0, 0x0b, 0x0b))))

	seeds := 0
	for path := range specModules(f) {
		wasm, err := os.ReadFile(path)
		if seeds++; err == nil && len(wasm) < 300 && seeds%40 == 0 {
			f.Add(wasm)
		}
	}
	p := newProperties(f)
	f.Fuzz(p.check)
}

// TestMutatedSpecModules holds Rewrite to the same on modules of the official test suite with a few bytes changed. These stay
// valid far more often than what the fuzzer comes up with.
func TestMutatedSpecModules(t *testing.T) {
	p := newProperties(t)
	random := rand.New(rand.NewPCG(1, 2))
	rounds := 5
	if n, err := strconv.Atoi(os.Getenv("REWRITER_MUTATIONS")); err == nil {
		rounds = n
		random = rand.New(rand.NewPCG(rand.Uint64(), 0))
	}
	for path := range specModules(t) {
		wasm, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if len(wasm) > 2000 || p.compile(wasm) != nil {
			continue
		}
		for range rounds {
			mutated := bytes.Clone(wasm)
			for range 1 + random.IntN(3) {
				// Values that are small, or near the one that is there, mean something more often than others.
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
			p.check(t, mutated)
			if t.Failed() {
				t.Fatalf("%s with changes: %x", path, mutated)
			}
		}
	}
	for reason, n := range p.stricter {
		t.Logf("%4d compile although malformed: %s", n, reason)
	}
	t.Logf("%d modules checked, %d of them compile, %d are refused as unsupported", p.checked, p.compiled, p.refused)
}

// properties are what must hold of Rewrite for any input.
type properties struct {
	rt                         wazero.Runtime
	checked, compiled, refused int

	// stricter counts, by reason, what wazero compiles although it is malformed. It is for people to look at: valid modules
	// must not be among them.
	stricter map[string]int
}

func newProperties(t testing.TB) *properties {
	ctx := context.Background()
	// The interpreter validates as the compiler does, in a fraction of the time.
	rt := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter().WithCoreFeatures(allFeatures))
	t.Cleanup(func() { rt.Close(ctx) })
	return &properties{rt: rt, stricter: map[string]int{}}
}

func (p *properties) compile(wasm []byte) (err error) {
	defer func() { // wazero panics on some broken modules
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	ctx := context.Background()
	compiled, err := p.rt.CompileModule(ctx, wasm)
	if err == nil {
		compiled.Close(ctx)
	}
	return err
}

func (p *properties) check(t *testing.T, wasm []byte) {
	p.checked++
	before := bytes.Clone(wasm)
	try := !longNumber(wasm)
	out, info, err := Rewrite(wasm)
	if !bytes.Equal(wasm, before) {
		t.Error("the input was modified")
	}
	var malformed *FormatError
	var unsupported *UnsupportedError
	switch {
	case errors.As(err, &unsupported):
		p.refused++
		return
	case errors.As(err, &malformed):
		if try && !bytes.Contains(wasm, []byte(markerName)) && p.compile(wasm) == nil {
			p.stricter[strings.Map(dropDigits, malformed.Reason)]++
		}
		return
	case err != nil:
		t.Errorf("untyped error: %v", err)
		return
	}
	again, info2, err := Rewrite(out)
	if err != nil || !bytes.Equal(again, out) || !reflect.DeepEqual(info, info2) {
		t.Errorf("rewritten twice: %v\n%+v\n%+v", err, info, info2)
	}
	if try && p.compile(wasm) == nil {
		p.compiled++
		// wazero reads beyond the end of a name section that is broken, into what has been appended.
		if err := p.compile(out); err != nil && !strings.Contains(err.Error(), "section custom") {
			t.Errorf("does not compile any more: %v", err)
		}
	}
}

// longNumber says whether there may be a number of more than 21 bits in the module. wazero believes in counts and allocates
// accordingly.
func longNumber(wasm []byte) bool {
	run := 0
	for _, b := range wasm {
		if b < 0x80 {
			run = 0
		} else if run++; run == 3 {
			return true
		}
	}
	return false
}

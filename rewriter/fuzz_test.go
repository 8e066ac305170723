package rewriter

import (
	"bytes"
	"context"
	"errors"
	"reflect"
	"testing"

	"github.com/tetratelabs/wazero"
)

// FuzzRewrite holds Rewrite to what it promises for any input: no panic; what compiles is rewritten to something that
// compiles, or refused as unsupported, but is never called malformed; and a second rewrite changes nothing.
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

	ctx := context.Background()
	rt := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter().WithCoreFeatures(allFeatures))
	compiles := func(wasm []byte) (err error) {
		if longNumber(wasm) {
			return errors.New("not tried")
		}
		defer func() { // wazero panics on some broken modules
			if r := recover(); r != nil {
				err = errors.New("panic")
			}
		}()
		compiled, err := rt.CompileModule(ctx, wasm)
		if err == nil {
			compiled.Close(ctx)
		}
		return err
	}
	f.Fuzz(func(t *testing.T, wasm []byte) {
		before := bytes.Clone(wasm)
		out, info, err := Rewrite(wasm)
		if !bytes.Equal(wasm, before) {
			t.Fatal("the input was modified")
		}
		if err != nil {
			var malformed *FormatError
			var unsupported *UnsupportedError
			switch {
			case errors.As(err, &unsupported):
			case !errors.As(err, &malformed):
				t.Fatalf("untyped error: %v", err)
			case !bytes.Contains(wasm, []byte(markerName)) && compiles(wasm) == nil:
				t.Fatalf("compiles, but: %v", err)
			}
			return
		}
		again, info2, err := Rewrite(out)
		if err != nil || !bytes.Equal(again, out) || !reflect.DeepEqual(info, info2) {
			t.Fatalf("rewritten twice: %v\n%+v\n%+v", err, info, info2)
		}
		if compiles(wasm) == nil {
			if err := compiles(out); err != nil {
				t.Fatalf("does not compile any more: %v", err)
			}
		}
	})
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

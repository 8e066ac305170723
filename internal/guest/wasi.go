package guest

import (
	"context"
	"reflect"
	"sync"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
)

// wasiCode is where the code of wazero's WASI functions is, by their names. An embedder can have a
// host module of the same name, of whose functions nothing is known.
var wasiCode = sync.OnceValue(func() map[string]uintptr {
	ctx := context.Background()
	rt := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter())
	defer rt.Close(ctx)
	if _, err := wasi_snapshot_preview1.Instantiate(ctx, rt); err != nil {
		return nil // then all are taken for foreign
	}
	mod := rt.Module(wasi_snapshot_preview1.ModuleName)
	code := make(map[string]uintptr)
	for name, def := range mod.ExportedFunctionDefinitions() {
		code[name] = codeOf(def)
	}
	return code
})

// codeOf is the address of the Go function behind a host function, 0 if that is not one function.
func codeOf(def api.FunctionDefinition) uintptr {
	if v := reflect.ValueOf(def.GoFunction()); v.Kind() == reflect.Func {
		return v.Pointer()
	}
	return 0
}

// foreignWASI tells whether the module imports, as a function of WASI, one that is not wazero's.
func foreignWASI(rt wazero.Runtime, module wazero.CompiledModule) bool {
	var defs map[string]api.FunctionDefinition
	for _, f := range module.ImportedFunctions() {
		from, name, _ := f.Import()
		if from != wasi_snapshot_preview1.ModuleName {
			continue
		}
		if defs == nil {
			mod := rt.Module(from)
			if mod == nil {
				return true
			}
			defs = mod.ExportedFunctionDefinitions()
		}
		def, ok := defs[name]
		if !ok {
			return true
		}
		if code := codeOf(def); code == 0 || code != wasiCode()[name] {
			return true
		}
	}
	return false
}

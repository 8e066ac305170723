package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"unicode/utf16"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/mmrun/mmrun"
)

const envModule = "env"

// provideImports gives a runtime what this command provides to guests: WASI, and the one function
// that AssemblyScript's runtime imports whatever the program does.
func provideImports(ctx context.Context, rt wazero.Runtime) error {
	if _, err := wasi_snapshot_preview1.Instantiate(ctx, rt); err != nil {
		return err
	}
	if err := provideUnstable(ctx, rt); err != nil {
		return err
	}
	if _, err := mmrun.InstantiateHost(ctx, rt); err != nil {
		return err
	}
	i32 := api.ValueTypeI32
	_, err := rt.NewHostModuleBuilder(envModule).NewFunctionBuilder().
		WithGoModuleFunction(api.GoModuleFunc(abort), []api.ValueType{i32, i32, i32, i32}, nil).
		Export("abort").Instantiate(ctx)
	return err
}

// abort(message, file, line, column) is how AssemblyScript reports what cannot go on. It ends the
// event like a trap; the text gets onto standard error as that of any other event that failed.
func abort(_ context.Context, mod api.Module, stack []uint64) {
	memory := mod.Memory()
	panic(fmt.Errorf("abort: %s in %s:%d:%d", managedString(memory, uint32(stack[0])),
		managedString(memory, uint32(stack[1])), uint32(stack[2]), uint32(stack[3])))
}

// mostText bounds what is shown of a string of the guest, in bytes of UTF-16.
const mostText = 4096

// managedString reads a string of AssemblyScript: UTF-16, with its length in bytes before it.
func managedString(memory api.Memory, at uint32) string {
	if at == 0 || memory == nil {
		return "(none)"
	}
	n, ok := memory.ReadUint32Le(at - 4)
	if !ok || n > memory.Size() {
		return "(unreadable)"
	}
	b, ok := memory.Read(at, min(n, mostText)&^1)
	if !ok {
		return "(unreadable)"
	}
	units := make([]uint16, len(b)/2)
	for i := range units {
		units[i] = binary.LittleEndian.Uint16(b[2*i:])
	}
	text := string(utf16.Decode(units))
	if n > mostText {
		text += "..."
	}
	return text
}

// missingImports lists the imported functions that nobody provides, a line each; empty if there
// are none.
func (s *session) missingImports(ctx context.Context, code []byte) string {
	compiled, err := s.compile(ctx, code)
	if err != nil {
		return ""
	}
	var missing []string
	for _, f := range compiled.ImportedFunctions() {
		module, name, _ := f.Import()
		what := ""
		if host := s.runtime.Module(module); host == nil {
			what = providerOf(module, name)
		} else if there, ok := host.ExportedFunctionDefinitions()[name]; !ok {
			what = providerOf(module, name)
		} else if !slices.Equal(there.ParamTypes(), f.ParamTypes()) ||
			!slices.Equal(there.ResultTypes(), f.ResultTypes()) {
			what = "here it is " + mmrun.Signature(there)
		} else {
			continue
		}
		missing = append(missing, fmt.Sprintf("\n  %s.%s%s: %s",
			escapeName(module), escapeName(name), mmrun.Signature(f), what))
	}
	if len(missing) == 0 {
		return ""
	}
	slices.Sort(missing)
	missing = slices.Compact(missing) // a module may import one function twice
	count, verb := "1 import", "is"
	if len(missing) > 1 {
		count, verb = fmt.Sprintf("%d imports", len(missing)), "are"
	}
	return fmt.Sprintf("%s %s not provided; this command provides WASI (%s) and %s.abort "+
		"of AssemblyScript, a program that embeds mmrun can provide more:%s", count, verb,
		wasi_snapshot_preview1.ModuleName, envModule, strings.Join(missing, ""))
}

// providers are who imports are meant to come from, the first that fits: the module's name, how the
// function's name begins, and a hint.
var providers = []struct{ module, prefix, hint string }{
	{wasi_snapshot_preview1.ModuleName, "", "not a function of this WASI"},
	{unstableModule, "", "not a function of that early WASI"},
	{"gojs", "", "Go's JavaScript support; build with GOOS=wasip1"},
	{"go", "", "Go's JavaScript support; build with GOOS=wasip1"},
	{"wbg", "", "wasm-bindgen's JavaScript; build without it"},
	{"__wbindgen_placeholder__", "", "wasm-bindgen's JavaScript; build without it"},
	{"__wbindgen_externref_xform__", "", "wasm-bindgen's JavaScript; build without it"},
	{envModule, "__wbindgen_", "wasm-bindgen's JavaScript; build without it"},
	{envModule, "emscripten_", "Emscripten's JavaScript; build with -sSTANDALONE_WASM"},
	{envModule, "_emscripten_", "Emscripten's JavaScript; build with -sSTANDALONE_WASM"},
	{envModule, "invoke_", "Emscripten's JavaScript; build with -sSTANDALONE_WASM"},
	{envModule, "__syscall_", "Emscripten's JavaScript; build with -sSTANDALONE_WASM"},
	{envModule, "__cxa_", "C++ exceptions; build with -fno-exceptions or -fwasm-exceptions"},
	{envModule, "seed", "AssemblyScript's random numbers"},
	{envModule, "trace", "AssemblyScript's trace()"},
	{envModule, "",
		"a function that is declared and nowhere defined, or of the program's own host"},
	{"", "", "of the program's own host"},
}

func providerOf(module, name string) string {
	if strings.HasPrefix(module, "wasi:") {
		return "WASI preview 2, of components; build for wasip1"
	}
	for _, p := range providers {
		if (p.module == module || p.module == "") && strings.HasPrefix(name, p.prefix) {
			return p.hint
		}
	}
	return ""
}

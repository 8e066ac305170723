package main

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
)

// unstableModule is the name of the WASI before preview 1. Its functions are those of preview 1 but
// for a few numbers and layouts:
//
//	fd_seek                           whence: 0 current, 1 end, 2 begin; it is 1, 2, 0
//	fd_filestat_get,                  56 bytes with a count of links of 32 bits; it is 64 with 64
//	path_filestat_get
//	poll_oneoff                       subscriptions of 56 bytes, a clock's has a number before its
//	                                  id; it is 48 without
const unstableModule = "wasi_unstable"

// provideUnstable gives a runtime that module, on top of the functions of preview 1, which it has.
func provideUnstable(ctx context.Context, rt wazero.Runtime) error {
	builder := rt.NewHostModuleBuilder(unstableModule)
	for name, def := range rt.Module(wasi_snapshot_preview1.ModuleName).
		ExportedFunctionDefinitions() {
		fn, ok := def.GoFunction().(api.GoModuleFunction)
		if !ok {
			return fmt.Errorf("%s.%s is no function of Go", wasi_snapshot_preview1.ModuleName, name)
		}
		if adapt, ok := unstable[name]; ok {
			below := fn
			fn = api.GoModuleFunc(func(ctx context.Context, m api.Module, stack []uint64) {
				adapt(ctx, m, stack, below)
			})
		}
		builder.NewFunctionBuilder().WithGoModuleFunction(fn, def.ParamTypes(),
			def.ResultTypes()).Export(name)
	}
	_, err := builder.Instantiate(ctx)
	return err
}

type adapter func(ctx context.Context, m api.Module, stack []uint64, below api.GoModuleFunction)

// errnoFault and errnoInval are numbers of WASI.
const (
	errnoFault = 21
	errnoInval = 28
)

var unstable = map[string]adapter{
	"fd_seek": func(ctx context.Context, m api.Module, stack []uint64, below api.GoModuleFunction) {
		whence := uint32(stack[2])
		if whence > 2 {
			stack[0] = errnoInval
			return
		}
		stack[2] = uint64([]uint32{1, 2, 0}[whence])
		below.Call(ctx, m, stack)
	},
	"fd_filestat_get": func(ctx context.Context, m api.Module, stack []uint64,
		below api.GoModuleFunction) {
		filestat(ctx, m, stack, below, uint32(stack[1]))
	},
	"path_filestat_get": func(ctx context.Context, m api.Module, stack []uint64,
		below api.GoModuleFunction) {
		filestat(ctx, m, stack, below, uint32(stack[4]))
	},
	"poll_oneoff": pollUnstable,
}

// filestat calls a function that writes a file's attributes at an address, and gives them their
// earlier layout. What lies behind them stays as it is.
func filestat(ctx context.Context, m api.Module, stack []uint64, below api.GoModuleFunction,
	at uint32) {
	const now, before = 64, 56
	b, ok := m.Memory().Read(at, now)
	if !ok {
		stack[0] = errnoFault
		return
	}
	behind := [now - before]byte(b[before:])
	below.Call(ctx, m, stack)
	if stack[0] == 0 {
		binary.LittleEndian.PutUint32(b[20:], uint32(binary.LittleEndian.Uint64(b[24:])))
		copy(b[24:before], b[32:])
	}
	copy(b[before:], behind[:])
}

// pollUnstable gives subscriptions their present layout, in place, and puts them back.
func pollUnstable(ctx context.Context, m api.Module, stack []uint64, below api.GoModuleFunction) {
	const before, now, most = 56, 48, 1 << 16
	at, n := uint32(stack[0]), uint32(stack[2])
	if n > most {
		stack[0] = errnoInval
		return
	}
	b, ok := m.Memory().Read(at, n*before)
	if !ok {
		stack[0] = errnoFault
		return
	}
	old := append([]byte(nil), b...)
	for i := range int(n) {
		from, to := old[i*before:][:before], b[i*now:][:now]
		copy(to[:16], from)
		if from[8] == 0 { // a clock
			copy(to[16:], from[24:])
		} else {
			copy(to[16:], from[16:])
		}
	}
	below.Call(ctx, m, stack)
	if b, ok = m.Memory().Read(at, n*before); ok {
		// Events may have been written over some of it.
		results, count := uint32(stack[1]), n*32
		for i := range b {
			if a := at + uint32(i); a < results || a >= results+count {
				b[i] = old[i]
			}
		}
	}
}

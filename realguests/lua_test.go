package realguests

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental/table"
)

// luaGuest is Lua 5.4 as compiled for npm's wasmoon: C with setjmp and longjmp by way of the host,
// which calls back into the guest.
func luaGuest() *guest {
	run := func(code, want string) event {
		return event{func(s *session) (string, error) { return s.lua(code), nil }, want}
	}
	return &guest{
		name: "lua",
		wasm: func(tb testing.TB) []byte {
			base, err := os.UserCacheDir()
			if err != nil {
				tb.Fatal(err)
			}
			path := filepath.Join(base, "mmrun-guests", "npm", "wasmoon-1.16.0", "glue.wasm")
			if _, err := os.Stat(path); err != nil {
				missing(tb, "Lua: %v (run scripts/fetch-realguests.sh, which needs npm)", err)
			}
			return readFile(tb, path)
		},
		host: luaHost,
		events: []event{
			{func(s *session) (string, error) {
				s.call("emscripten_stack_init")
				s.call("__wasm_call_ctors")
				l := s.call("luaL_newstate")
				s.call("luaL_openlibs", l)
				s.remember(map[string]uint64{"L": l})
				return s.lua("return _VERSION"), nil
			}, "Lua 5.4"},
			run("t = {}; for i = 1, 20000 do t['k' .. i] = { i, string.rep('x', i % 30) } end; "+
				"return #t.k29[2]", "29"),
			run(`co = coroutine.create(function(a)
					local held = a
					while true do
						local ok, err = pcall(function()
							if held % 3 == 0 then error({ code = held }) end
							return held
						end)
						held = held + coroutine.yield(ok and 'ok ' .. err or 'caught ' .. err.code)
					end
				end)
				return select(2, coroutine.resume(co, 1))`, "ok 1"),
			run("return select(2, coroutine.resume(co, 1))", "ok 2"),
			run("return select(2, coroutine.resume(co, 1))", "caught 3"),
			run("for i = 1, 20000, 2 do t['k' .. i] = nil end; collectgarbage(); return next(t) "+
				"~= nil", "true"),
			run("local ok, err = pcall(error, 'no'); return tostring(ok) .. ' ' .. err",
				"false no"),
			run("return select(2, coroutine.resume(co, 10))", "ok 13"),
			run("local n = 0; for i = 1, 200 do if not pcall(error) then n = n + 1 end end; "+
				"return n", "200"),
			run("wrapped = coroutine.wrap(function() for i = 1, 1e9 do coroutine.yield(i * i) "+
				"end end); wrapped(); return wrapped()", "4"),
			run("return select(2, coroutine.resume(co, 2)) .. ' ' .. wrapped()", "caught 15 9"),
			run("setmetatable(t, { __index = function(_, k) return k .. '?' end }); return t.k1",
				"k1?"),
			run("local s = 0; for _, v in pairs(t) do s = s + v[1] end; return s", "100010000"),
			run("return coroutine.status(co) .. ' ' .. wrapped() .. ' ' .. select(2, "+
				"pcall(function() return nil + 1 end))", ""),
		},
		small: func(s *session, i uint64) { s.lua("t.k2[1] = t.k2[1] + 1; return t.k2[1]") },
	}
}

// lua runs a chunk and gives its first result as a string.
func (s *session) lua(code string) string {
	l := s.recall()["L"]
	source := s.cstring("malloc", code)
	status := s.call("luaL_loadstring", l, source)
	if status == 0 {
		status = s.call("lua_pcallk", l, 0, 1, 0, 0, 0)
	}
	text := s.text(s.call("luaL_tolstring", l, 1<<32-1, 0))
	s.call("lua_settop", l, 0)
	s.call("free", source)
	if status != 0 {
		s.fail("%s: %s", code, text)
	}
	return text
}

// errLongjmp unwinds the guest's frames up to the innermost invoke_vii.
var errLongjmp = errors.New("longjmp")

func luaHost(rt wazero.Runtime, w *world) error {
	signatures := map[string]string{
		"abort": ":", "invoke_vii": "iii:", "strftime": "iiii:i", "system": "i:i", "exit": "i:",
		"emscripten_date_now": ":F", "_emscripten_get_now_is_monotonic": ":i",
		"__syscall_openat":  "iiii:i",
		"__syscall_fcntl64": "iii:i", "__syscall_ioctl": "iii:i", "__syscall_dup3": "iii:i",
		"_mktime_js":    "i:I",
		"_localtime_js": "Ii:", "_gmtime_js": "Ii:", "__syscall_unlinkat": "iii:i",
		"__syscall_rmdir":    "i:i",
		"__syscall_renameat": "iiii:i", "__syscall_readlinkat": "iiii:i", "_tzset_js": "iii:",
		"emscripten_resize_heap": "i:i", "_emscripten_throw_longjmp": ":",
	}
	return hostModule(rt, "env", signatures, map[string]api.GoModuleFunc{
		"emscripten_date_now": func(_ context.Context, _ api.Module, stack []uint64) {
			w.touch()
			stack[0] = api.EncodeF64(float64(w.unixMilli()))
		},
		"_emscripten_get_now_is_monotonic": func(_ context.Context, _ api.Module,
			stack []uint64) {
			stack[0] = 1
		},
		"_emscripten_throw_longjmp": func(context.Context, api.Module,
			[]uint64) {
			panic(errLongjmp)
		},
		"emscripten_resize_heap": func(_ context.Context, mod api.Module, stack []uint64) {
			const wasmPage = 1 << 16
			more := (uint32(stack[0]) - mod.Memory().Size() + wasmPage - 1) / wasmPage
			_, ok := mod.Memory().Grow(more)
			stack[0] = map[bool]uint64{true: 1}[ok]
		},
		// invoke_vii calls an entry of the guest's table, with a longjmp's landing place around it.
		"invoke_vii": func(ctx context.Context, mod api.Module, stack []uint64) {
			w.touch()
			call := func(name string, params ...uint64) uint64 {
				results, err := mod.ExportedFunction(name).Call(ctx, params...)
				if err != nil {
					panic(err)
				}
				return append(results, 0)[0]
			}
			top := call("stackSave")
			two := []api.ValueType{api.ValueTypeI32, api.ValueTypeI32}
			f := table.LookupFunction(mod, 0, uint32(stack[0]), two, nil)
			if _, err := f.Call(ctx, stack[1], stack[2]); err != nil {
				if !errors.Is(err, errLongjmp) {
					panic(err)
				}
				call("stackRestore", top)
				call("setThrew", 1, 0)
			}
		},
	})
}

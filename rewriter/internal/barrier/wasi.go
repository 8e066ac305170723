package barrier

import "github.com/mmrun/mmrun/rewriter/internal/wasm"

// output is what a host function may write: a parameter that is an address, and how many bytes
// there.
type output struct {
	address uint32
	size    int32  // bytes, or bytes of each
	count   uint32 // the parameter that says how many of size there are; 0: one
	vectors bool   // the address is that of count pairs (address, length), and it writes to those
}

// bytes is a result of a fixed size.
func bytes(address uint32, size int32) output { return output{address: address, size: size} }

// buffer is one whose length is a parameter.
func buffer(address, length uint32) output {
	return output{address: address, size: 1,
		count: length}
}

// vectors is a list of buffers.
func vectors(address, count uint32) output {
	return output{address: address, count: count, vectors: true}
}

// wasi says what the functions of wasi_snapshot_preview1 write, by the numbers of their parameters.
// Those that are not here, args_get and environ_get, write as much as the host has. A test runs
// each function and compares (TestWhatWASIWrites).
var wasi = map[string][]output{
	"args_sizes_get":          {bytes(0, 4), bytes(1, 4)},
	"environ_sizes_get":       {bytes(0, 4), bytes(1, 4)},
	"clock_res_get":           {bytes(1, 8)},
	"clock_time_get":          {bytes(2, 8)},
	"fd_advise":               {},
	"fd_allocate":             {},
	"fd_close":                {},
	"fd_datasync":             {},
	"fd_fdstat_get":           {bytes(1, 24)},
	"fd_fdstat_set_flags":     {},
	"fd_fdstat_set_rights":    {},
	"fd_filestat_get":         {bytes(1, 64)},
	"fd_filestat_set_size":    {},
	"fd_filestat_set_times":   {},
	"fd_pread":                {vectors(1, 2), bytes(4, 4)},
	"fd_prestat_get":          {bytes(1, 8)},
	"fd_prestat_dir_name":     {buffer(1, 2)},
	"fd_pwrite":               {bytes(4, 4)},
	"fd_read":                 {vectors(1, 2), bytes(3, 4)},
	"fd_readdir":              {buffer(1, 2), bytes(4, 4)},
	"fd_renumber":             {},
	"fd_seek":                 {bytes(3, 8)},
	"fd_sync":                 {},
	"fd_tell":                 {bytes(1, 8)},
	"fd_write":                {bytes(3, 4)},
	"path_create_directory":   {},
	"path_filestat_get":       {bytes(4, 64)},
	"path_filestat_set_times": {},
	"path_link":               {},
	"path_open":               {bytes(8, 4)},
	"path_readlink":           {buffer(3, 4), bytes(5, 4)},
	"path_remove_directory":   {},
	"path_rename":             {},
	"path_symlink":            {},
	"path_unlink_file":        {},
	"poll_oneoff":             {output{address: 1, size: 32, count: 2}, bytes(3, 4)},
	"proc_exit":               {},
	"proc_raise":              {},
	"random_get":              {buffer(0, 1)},
	"sched_yield":             {},
	"sock_accept":             {bytes(2, 4)},
	"sock_recv":               {vectors(1, 2), bytes(4, 4), bytes(5, 2)},
	"sock_send":               {bytes(4, 4)},
	"sock_shutdown":           {},
}

const wasiModule = "wasi_snapshot_preview1"

// known is what an imported function writes, if that is known: its parameters must be of the types
// that the table is about.
func (p *pass) known(function uint32) ([]output, bool) {
	f := &p.m.Funcs[function]
	if f.From == nil || f.From.Module != wasiModule {
		return nil, false
	}
	outputs, ok := wasi[f.From.Name]
	params := p.m.TypeOf(function).Params
	for _, o := range outputs {
		for _, param := range []uint32{o.address, o.count} {
			if int(param) >= len(params) || params[param].Kind != wasm.I32 {
				return nil, false
			}
		}
	}
	return outputs, ok
}

// wrapped is a function that marks what an imported one may write and calls it.
func (p *pass) wrapped(function uint32, outputs []output) uint32 {
	if p.wrappers == nil {
		p.wrappers = make(map[uint32]uint32)
	}
	if w, ok := p.wrappers[function]; ok {
		return w
	}
	t := p.m.TypeOf(function)
	i := uint32(len(t.Params)) // a local, of a loop over vectors
	e := &emitter{}
	e.gget(p.foreign).block(wasm.OpIf)
	p.hostUnknown(e)
	e.end()
	for _, o := range outputs {
		p.markOutput(e, o, i)
	}
	for param := range t.Params {
		e.get(uint32(param))
	}
	e.call(function)
	w := p.m.AddFunc(t.Params, t.Results, wasm.Types(wasm.I32), e.c)
	p.wrappers[function] = w
	return w
}

// most is how many vectors or results of a fixed size are marked one by one. No overflow is near.
const most = 1 << 20

// hostUnknown notes a call of a host function that may write anything. A wrapped one does not say
// what it writes by other means, so that stays unknown.
func (p *pass) hostUnknown(e *emitter) { e.gget(p.host).i32(1).op(wasm.OpI32Add).gset(p.host) }

func (p *pass) markOutput(e *emitter, o output, i uint32) {
	switch {
	case o.vectors:
		// Two blocks: out of the inner one if it cannot be told what the host would write.
		e.block(wasm.OpBlock).block(wasm.OpBlock)
		e.get(o.count).i32(most).op(wasm.OpI32GtU).op(wasm.OpBrIf, 0)
		e.get(o.address).i32(3).op(wasm.OpI32ShrU).get(o.count).op(wasm.OpI32Add).i32(1).
			op(wasm.OpI32Add).
			op(wasm.OpMemorySize, 0).i32(13).op(wasm.OpI32Shl).op(wasm.OpI32GtU).op(wasm.OpBrIf, 0)
		e.i32(0).set(i)
		e.block(wasm.OpLoop)
		e.get(i).get(o.count).op(wasm.OpI32GeU).op(wasm.OpBrIf, 2)
		at := func() *emitter {
			return e.get(o.address).get(i).i32(3).op(wasm.OpI32Shl).op(wasm.OpI32Add)
		}
		// The host reads the list as it goes: what it writes there would change where it writes
		// next.
		buffer := func() *emitter { return at().op(wasm.OpI32Load, 0, 0) }
		length := func() *emitter { return at().op(wasm.OpI32Load, 0, 4) }
		e.get(o.address)
		buffer().op(wasm.OpI32Sub)
		length().op(wasm.OpI32LtU)
		buffer().get(o.address).op(wasm.OpI32Sub).get(o.count).i32(3).op(wasm.OpI32Shl).
			op(wasm.OpI32LtU)
		e.op(wasm.OpI32Or).op(wasm.OpBrIf, 1)
		buffer()
		length().call(p.range_)
		e.get(i).i32(1).op(wasm.OpI32Add).set(i).op(wasm.OpBr, 0)
		e.end().end()
		p.hostUnknown(e)
		e.end()
	case o.count != 0 && o.size == 1:
		e.get(o.address).get(o.count).call(p.range_)
	case o.count != 0:
		e.get(o.count).i32(most).op(wasm.OpI32GtU).block(wasm.OpIf)
		p.hostUnknown(e)
		e.end()
		e.get(o.address).get(o.count).i32(o.size).op(wasm.OpI32Mul).call(p.range_)
	default:
		e.get(o.address).i32(o.size).call(p.range_)
	}
}

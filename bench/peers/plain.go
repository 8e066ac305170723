package peers

import (
	"errors"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/mmrun/mmrun/bench/lab"
	"github.com/mmrun/mmrun/rewriter"
)

func plainPeers() []Peer {
	return []Peer{{Name: "plain wazero", Safety: Nothing, Guest: true,
		Settings: "nothing is kept; CallWithStack",
		Open:     func(o Options) (Store, error) { return openPlain(o) }}}
}

// plainModule is a guest compiled for wazero. It is rewritten, because whoever copies a state has
// to reach the private globals.
type plainModule struct {
	compiled wazero.CompiledModule
	info     rewriter.Info
}

func compilePlain(rt wazero.Runtime, wasm []byte) (*plainModule, error) {
	rewritten, info, err := rewriter.Rewrite(wasm, rewriter.Options{})
	if err != nil {
		return nil, err
	}
	compiled, err := rt.CompileModule(ctx, rewritten)
	return &plainModule{compiled, info}, err
}

// Guest is a guest on wazero alone, with all that a copy of it has to hold.
type Guest struct {
	rt      wazero.Runtime // nil: shared
	module  api.Module
	globals []api.MutableGlobal
}

// OpenGuest starts a guest of testdata anew in a runtime of its own.
func OpenGuest(name, cacheDir string) (*Guest, error) {
	wasm, err := lab.Module(name)
	if err != nil {
		return nil, err
	}
	rt, err := newRuntime(cacheDir)
	if err != nil {
		return nil, err
	}
	m, err := compilePlain(rt, wasm)
	if err != nil {
		return nil, errors.Join(err, rt.Close(ctx))
	}
	g, err := startGuest(rt, m)
	if err != nil {
		return nil, errors.Join(err, rt.Close(ctx))
	}
	g.rt = rt
	return g, nil
}

func startGuest(rt wazero.Runtime, m *plainModule) (*Guest, error) {
	module, err := rt.InstantiateModule(ctx, m.compiled, wazero.NewModuleConfig().WithName(""))
	if err != nil {
		return nil, err
	}
	g := &Guest{module: module}
	for _, global := range m.info.Globals {
		g.globals = append(g.globals, module.ExportedGlobal(global.Export).(api.MutableGlobal))
	}
	for _, name := range []string{m.info.Init, m.info.Start} {
		if name == "" {
			continue
		}
		if _, err := g.Call(name); err != nil {
			return nil, errors.Join(err, module.Close(ctx))
		}
	}
	return g, nil
}

// Call calls an export.
func (g *Guest) Call(export string, params ...uint64) ([]uint64, error) {
	return g.module.ExportedFunction(export).Call(ctx, params...)
}

// Close ends the guest.
func (g *Guest) Close() error {
	if g.rt == nil {
		return g.module.Close(ctx)
	}
	return g.rt.Close(ctx)
}

// image is the memory itself, not a copy.
func (g *Guest) image() []byte {
	mem := g.module.Memory()
	image, ok := mem.Read(0, mem.Size())
	if !ok {
		panic("a memory that cannot be read whole") // Read fails beyond Size only
	}
	return image
}

// values are the globals.
func (g *Guest) values() []uint64 {
	values := make([]uint64, len(g.globals))
	for i, global := range g.globals {
		values[i] = global.Get()
	}
	return values
}

// set grows the memory to size bytes, sets the globals and gives the memory to be filled.
func (g *Guest) set(size int64, globals []uint64) ([]byte, error) {
	const wasmPage = 65536
	mem := g.module.Memory()
	if more := size - int64(mem.Size()); more > 0 {
		if _, ok := mem.Grow(uint32(more / wasmPage)); !ok {
			return nil, errMemory
		}
	}
	if len(globals) != len(g.globals) {
		return nil, errors.New("globals of another guest")
	}
	for i, global := range g.globals {
		global.Set(globals[i])
	}
	return g.image()[:size], nil
}

// plainStore is the table on wazero alone: the work that all guests have in common.
type plainStore struct {
	*Guest
	buffer         uint32
	inc, many, get api.Function
	stack          [2]uint64
	one            [1]Entry
}

func openPlain(o Options) (*plainStore, error) {
	s := new(plainStore)
	var err error
	if o.Shared != nil {
		s.Guest, err = startGuest(o.Shared.rt, o.Shared.plain)
	} else {
		s.Guest, err = OpenGuest("rust_table", o.CacheDir)
	}
	if err != nil {
		return nil, err
	}
	s.inc, s.many = s.module.ExportedFunction("inc"), s.module.ExportedFunction("put_many")
	s.get = s.module.ExportedFunction("get")
	if o.Keys > 0 {
		_, err = s.Call("init", uint64(o.Keys), flag(o.Ordered))
	}
	results, e := s.Call("buf")
	if err = errors.Join(err, e); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	s.buffer = uint32(results[0])
	return s, nil
}

func (s *plainStore) Increment(uint32) error { return s.inc.CallWithStack(ctx, s.stack[:]) }

func (s *plainStore) Count(uint32) (uint64, error) {
	results, err := s.Call("count")
	if err != nil {
		return 0, err
	}
	return results[0], nil
}

func (s *plainStore) Load(n uint32) error { return inBatches(n, s.PutAll) }

func (s *plainStore) Put(e *Entry) error {
	s.one[0] = *e
	return s.PutAll(s.one[:])
}

func (s *plainStore) PutAll(batch []Entry) error {
	if !s.module.Memory().Write(s.buffer, bytesOf(batch)) {
		return errMemory
	}
	s.stack = [2]uint64{uint64(s.buffer), uint64(len(batch))}
	return s.many.CallWithStack(ctx, s.stack[:])
}

func (s *plainStore) Get(k *Key, v *Value) error {
	mem := s.module.Memory()
	if !mem.Write(s.buffer, k[:]) {
		return errMemory
	}
	s.stack = [2]uint64{uint64(s.buffer), uint64(s.buffer + KeySize)}
	if err := s.get.CallWithStack(ctx, s.stack[:]); err != nil {
		return err
	}
	if uint32(s.stack[0]) == 0 {
		return ErrNoKey
	}
	value, ok := mem.Read(s.buffer+KeySize, ValueSize)
	if !ok {
		return errMemory
	}
	copy(v[:], value)
	return nil
}

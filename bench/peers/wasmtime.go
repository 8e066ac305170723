//go:build wasmtime

package peers

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/bytecodealliance/wasmtime-go/v39"

	"github.com/mmrun/mmrun/bench/lab"
	"github.com/mmrun/mmrun/rewriter"
)

func wasmtimePeers() []Peer {
	return []Peer{{Name: "wasmtime copy, rename", Safety: Kill, Slow: true, CopyBased: true,
		Settings: "memory.bin and globals.json, as from wazero", Guest: true,
		Open: func(o Options) (Store, error) { return openWasmtime(o) }}}
}

// wasmtimeStore is the rewritten guest on wasmtime, copied after each commit.
type wasmtimeStore struct {
	dir            string
	store          *wasmtime.Store
	memory         *wasmtime.Memory
	globals        []*wasmtime.Global
	inc, many, get *wasmtime.Func
	instance       *wasmtime.Instance
	buffer         int32
	loading        bool
	one            [1]Entry
}

func openWasmtime(o Options) (Store, error) {
	wasm, err := lab.Module("rust_table")
	if err != nil {
		return nil, err
	}
	rewritten, info, err := rewriter.Rewrite(wasm, rewriter.Options{})
	if err != nil {
		return nil, err
	}
	engine := wasmtime.NewEngine()
	module, err := wasmtime.NewModule(engine, rewritten)
	if err != nil {
		return nil, err
	}
	s := &wasmtimeStore{dir: o.Dir, store: wasmtime.NewStore(engine)}
	if s.instance, err = wasmtime.NewInstance(s.store, module, nil); err != nil {
		return nil, err
	}
	s.memory = s.instance.GetExport(s.store, "memory").Memory()
	for _, g := range info.Globals {
		s.globals = append(s.globals, s.instance.GetExport(s.store, g.Export).Global())
	}
	s.inc, s.many, s.get = s.export("inc"), s.export("put_many"), s.export("get")
	for _, name := range []string{info.Init, info.Start} {
		if name != "" {
			if _, err := s.export(name).Call(s.store); err != nil {
				return nil, err
			}
		}
	}
	if o.Keys > 0 {
		if _, err := s.export("init").Call(s.store, int32(o.Keys),
			int32(flag(o.Ordered))); err != nil {
			return nil, err
		}
	}
	buffer, err := s.export("buf").Call(s.store)
	if err != nil {
		return nil, err
	}
	s.buffer = buffer.(int32)
	err = s.restore()
	if errors.Is(err, fs.ErrNotExist) {
		err = s.save()
	}
	return s, err
}

func (s *wasmtimeStore) export(name string) *wasmtime.Func {
	return s.instance.GetFunc(s.store, name)
}

func (s *wasmtimeStore) save() error {
	if s.loading {
		return nil
	}
	globals := make([]int64, len(s.globals))
	for i, g := range s.globals {
		switch v := g.Get(s.store); v.Kind() {
		case wasmtime.KindI32:
			globals[i] = int64(v.I32())
		case wasmtime.KindI64:
			globals[i] = v.I64()
		default:
			return errors.New("a global that is no integer")
		}
	}
	text, err := json.Marshal(globals)
	if err != nil {
		return err
	}
	err = replaceFile(filepath.Join(s.dir, "memory.bin"), s.memory.UnsafeData(s.store))
	return errors.Join(err, replaceFile(filepath.Join(s.dir, "globals.json"), text))
}

func replaceFile(path string, content []byte) error {
	if err := os.WriteFile(path+".tmp", content, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".tmp", path)
}

func (s *wasmtimeStore) restore() error {
	text, err := os.ReadFile(filepath.Join(s.dir, "globals.json"))
	if err != nil {
		return err
	}
	var globals []int64
	if err := json.Unmarshal(text, &globals); err != nil {
		return err
	}
	image, err := os.ReadFile(filepath.Join(s.dir, "memory.bin"))
	if err != nil {
		return err
	}
	if more := uint64(len(image))/65536 - s.memory.Size(s.store); more > 0 {
		if _, err := s.memory.Grow(s.store, more); err != nil {
			return err
		}
	}
	copy(s.memory.UnsafeData(s.store), image)
	for i, g := range s.globals {
		v := wasmtime.ValI64(globals[i])
		if g.Get(s.store).Kind() == wasmtime.KindI32 {
			v = wasmtime.ValI32(int32(globals[i]))
		}
		if err := g.Set(s.store, v); err != nil {
			return err
		}
	}
	return nil
}

func (s *wasmtimeStore) Increment(uint32) error {
	if _, err := s.inc.Call(s.store); err != nil {
		return err
	}
	return s.save()
}

func (s *wasmtimeStore) Count(uint32) (uint64, error) {
	n, err := s.export("count").Call(s.store)
	if err != nil {
		return 0, err
	}
	return uint64(n.(int64)), nil
}

func (s *wasmtimeStore) Load(n uint32) error {
	s.loading = true
	err := inBatches(n, s.PutAll)
	s.loading = false
	return errors.Join(err, s.save())
}

func (s *wasmtimeStore) Put(e *Entry) error {
	s.one[0] = *e
	return s.PutAll(s.one[:])
}

func (s *wasmtimeStore) PutAll(batch []Entry) error {
	copy(s.memory.UnsafeData(s.store)[s.buffer:], bytesOf(batch))
	if _, err := s.many.Call(s.store, s.buffer, int32(len(batch))); err != nil {
		return err
	}
	return s.save()
}

func (s *wasmtimeStore) Get(k *Key, v *Value) error {
	copy(s.memory.UnsafeData(s.store)[s.buffer:], k[:])
	found, err := s.get.Call(s.store, s.buffer, s.buffer+KeySize)
	if err != nil {
		return err
	}
	if found.(int32) == 0 {
		return ErrNoKey
	}
	copy(v[:], s.memory.UnsafeData(s.store)[s.buffer+KeySize:])
	return nil
}

func (s *wasmtimeStore) Close() error { return nil } // the garbage collector has it

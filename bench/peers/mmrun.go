package peers

import (
	"errors"
	"fmt"
	"time"
	"unsafe"

	"github.com/tetratelabs/wazero"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/bench/lab"
)

// loadBatch entries fit into the guest's buffer.
const loadBatch = 2000

var errMemory = errors.New("the buffer of the guest is not in its memory")

func mmrunPeers() []Peer {
	peer := func(name string, safety Safety, settings string, opts ...mmrun.Option) Peer {
		return Peer{Name: name, Safety: safety, Settings: settings, Guest: true,
			Open: func(o Options) (Store, error) { return openMmrun(o, opts...) }}
	}
	return []Peer{
		peer("mmrun atomic never", Kill, "WithSync(SyncNever): checkpoints sync",
			mmrun.WithSync(mmrun.SyncNever)),
		peer("mmrun barrier never", Kill, "the same with WithTracker(Barrier)",
			mmrun.WithSync(mmrun.SyncNever), mmrun.WithTracker(mmrun.Barrier)),
		peer("mmrun barrier always", Power, "SyncAlways and Barrier",
			mmrun.WithSync(mmrun.SyncAlways), mmrun.WithTracker(mmrun.Barrier)),
		peer("mmrun atomic 1s", Kill, "WithSync(SyncEvery(time.Second))",
			mmrun.WithSync(mmrun.SyncEvery(time.Second))),
		peer("mmrun atomic always", Power, "WithSync(SyncAlways)",
			mmrun.WithSync(mmrun.SyncAlways)),
		peer("mmrun continuous", Between,
			"WithMode(Continuous): a kill inside an event is detected, not undone",
			mmrun.WithMode(mmrun.Continuous)),
	}
}

// Shared is a runtime and the guest compiled in it, once for plain wazero and once for mmrun.
type Shared struct {
	rt     wazero.Runtime
	module *mmrun.Module
	plain  *plainModule
}

// NewShared compiles the guest.
func NewShared(cacheDir string) (_ *Shared, err error) {
	wasm, err := lab.Module("rust_table")
	if err != nil {
		return nil, err
	}
	s := new(Shared)
	if s.rt, err = newRuntime(cacheDir); err != nil {
		return nil, err
	}
	if s.module, err = mmrun.Compile(ctx, s.rt, wasm); err == nil {
		s.plain, err = compilePlain(s.rt, wasm)
	}
	if err != nil {
		return nil, errors.Join(err, s.rt.Close(ctx))
	}
	return s, nil
}

// Close closes the runtime. The stores must be closed before.
func (s *Shared) Close() error { return errors.Join(s.module.Close(ctx), s.rt.Close(ctx)) }

// newRuntime is a wazero runtime as a new process has it.
func newRuntime(cacheDir string) (wazero.Runtime, error) {
	config := wazero.NewRuntimeConfig()
	if cacheDir != "" {
		cache, err := wazero.NewCompilationCacheWithDir(cacheDir)
		if err != nil {
			return nil, err
		}
		config = config.WithCompilationCache(cache)
	}
	return wazero.NewRuntimeWithConfig(ctx, config), nil
}

// mmrunStore is the guest under mmrun. The functions of an event and what they work on are fields,
// so that an event allocates nothing.
type mmrunStore struct {
	rt     wazero.Runtime // nil: shared
	in     *mmrun.Instance
	buffer uint32

	incF, putF, getF *mmrun.Function
	inc, get, many   func(*mmrun.Tx) error
	stack            [2]uint64
	batch            []Entry
	key              *Key
	value            *Value
	read             func(func(*mmrun.Tx) error) error
}

func openMmrun(o Options, opts ...mmrun.Option) (_ *mmrunStore, err error) {
	s := new(mmrunStore)
	if o.Shared != nil {
		s.in, err = o.Shared.module.Open(ctx, o.Dir, opts...)
	} else {
		var wasm []byte
		if wasm, err = lab.Module("rust_table"); err != nil {
			return nil, err
		}
		if s.rt, err = newRuntime(o.CacheDir); err != nil {
			return nil, err
		}
		s.in, err = mmrun.Open(ctx, s.rt, o.Dir, wasm, opts...)
	}
	if err != nil {
		return nil, errors.Join(err, s.closeRuntime())
	}
	s.bind()
	if s.in.Seq() <= 1 && o.Keys > 0 {
		_, err = s.in.Call(ctx, "init", uint64(o.Keys), flag(o.Ordered))
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	results, err := s.in.Call(ctx, "buf")
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	s.buffer = uint32(results[0])
	return s, nil
}

func flag(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

func (s *mmrunStore) bind() {
	s.inc = func(tx *mmrun.Tx) error {
		if s.incF == nil {
			s.incF = tx.Function("inc")
		}
		return s.incF.CallWithStack(ctx, s.stack[:])
	}
	s.many = func(tx *mmrun.Tx) error {
		if s.putF == nil {
			s.putF = tx.Function("put_many")
		}
		if !tx.Memory().Write(s.buffer, bytesOf(s.batch)) {
			return errMemory
		}
		s.stack = [2]uint64{uint64(s.buffer), uint64(len(s.batch))}
		return s.putF.CallWithStack(ctx, s.stack[:])
	}
	s.get = func(tx *mmrun.Tx) error {
		if s.getF == nil {
			s.getF = tx.Function("get")
		}
		mem := tx.Memory()
		if !mem.Write(s.buffer, s.key[:]) {
			return errMemory
		}
		s.stack = [2]uint64{uint64(s.buffer), uint64(s.buffer + KeySize)}
		if err := s.getF.CallWithStack(ctx, s.stack[:]); err != nil {
			return err
		}
		if uint32(s.stack[0]) == 0 {
			return ErrNoKey
		}
		value, ok := mem.Read(s.buffer+KeySize, ValueSize)
		if !ok {
			return errMemory
		}
		copy(s.value[:], value)
		return nil
	}
	// In continuous mode there is no View: what a query leaves in the buffer stays.
	s.read = func(fn func(*mmrun.Tx) error) error { return s.in.View(ctx, fn) }
	if s.in.Mode() == mmrun.Continuous {
		s.read = func(fn func(*mmrun.Tx) error) error { return s.in.Update(ctx, fn) }
	}
}

// bytesOf is the memory of the entries.
func bytesOf(batch []Entry) []byte {
	if len(batch) == 0 {
		return nil
	}
	// An Entry is two byte arrays: it has no padding.
	return unsafe.Slice((*byte)(unsafe.Pointer(&batch[0])), len(batch)*entrySize)
}

func (s *mmrunStore) Increment(uint32) error { return s.in.Update(ctx, s.inc) }

func (s *mmrunStore) Count(uint32) (uint64, error) {
	results, err := s.in.Call(ctx, "count")
	if err != nil {
		return 0, err
	}
	return results[0], nil
}

func (s *mmrunStore) Load(n uint32) error {
	if err := inBatches(n, s.PutAll); err != nil {
		return err
	}
	return s.in.Checkpoint(ctx)
}

// inBatches puts the keys 0 to n-1 in version 0.
func inBatches(n uint32, put func([]Entry) error) error {
	batch := make([]Entry, 0, loadBatch)
	for i := range n {
		batch = append(batch, Entry{KeyOf(i), ValueOf(i, 0)})
		if len(batch) == loadBatch || i == n-1 {
			if err := put(batch); err != nil {
				return fmt.Errorf("loading %d keys, at %d: %w", n, i, err)
			}
			batch = batch[:0]
		}
	}
	return nil
}

func (s *mmrunStore) Put(e *Entry) error {
	s.batch = unsafe.Slice(e, 1)
	return s.in.Update(ctx, s.many)
}

func (s *mmrunStore) PutAll(batch []Entry) error {
	s.batch = batch
	return s.in.Update(ctx, s.many)
}

func (s *mmrunStore) Get(k *Key, v *Value) error {
	s.key, s.value = k, v
	return s.read(s.get)
}

func (s *mmrunStore) Close() error {
	return errors.Join(s.in.Close(ctx), s.closeRuntime())
}

func (s *mmrunStore) closeRuntime() error {
	if s.rt == nil {
		return nil
	}
	return s.rt.Close(ctx)
}

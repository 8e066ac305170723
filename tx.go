package mmrun

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/tetratelabs/wazero/api"

	"github.com/mmrun/mmrun/internal/engine"
	"github.com/mmrun/mmrun/internal/errs"
	"github.com/mmrun/mmrun/internal/markedmemory"
)

// Tx is an event in progress. It is valid only until the function it was given to returns, and
// only on that goroutine. Any use of it afterwards is an error.
type Tx struct {
	in *Instance
	id uint64 // of the event
}

// Call calls an exported function. If it traps, the event cannot be committed any more, whether
// the error is returned from the event's function or not.
func (tx *Tx) Call(ctx context.Context, name string, params ...uint64) ([]uint64, error) {
	if err := tx.usable(); err != nil {
		return nil, err
	}
	f, err := tx.in.function(name, len(params))
	if err != nil {
		return nil, err
	}
	if err := f.call(ctx, params); err != nil {
		return nil, tx.in.event.note(err)
	}
	return f.copyResults(), nil
}

// Function returns an exported function, nil if there is none of that name. It is resolved once:
// keep it for as long as the instance is open, and call it inside events.
func (tx *Tx) Function(name string) *Function {
	if tx.usable() != nil {
		return nil
	}
	f, err := tx.in.find(name)
	if err != nil {
		return nil
	}
	return f
}

// Seq is the number of the commit that the event would become.
func (tx *Tx) Seq() uint64 { return tx.in.store.Seq() + 1 }

// Memory is the guest's linear memory, nil if it has none or the event is over. What is written to
// it is part of the event. It must not be used after the event.
func (tx *Tx) Memory() api.Memory {
	if tx.in.store.Memory() == nil || tx.usable() != nil {
		return nil
	}
	mem := tx.in.store.Guest().Module().Memory()
	if m := tx.in.store.Memory(); m.MarksHost() {
		return markedmemory.Memory{Memory: mem, Tracked: m}
	}
	return mem
}

// ReadBytes returns a copy of n bytes of the guest's memory.
func (tx *Tx) ReadBytes(ptr, n uint32) ([]byte, error) {
	b, err := tx.view(ptr, n)
	return slices.Clone(b), err
}

// WriteBytes copies b into the guest's memory at ptr. Nothing is written if it does not fit.
func (tx *Tx) WriteBytes(ptr uint32, b []byte) error {
	if uint64(len(b)) > 1<<32-1 {
		return fmt.Errorf("%d bytes are more than a memory can hold", len(b))
	}
	to, err := tx.view(ptr, uint32(len(b)))
	copy(to, b)
	return err
}

// view is a part of the guest's memory.
func (tx *Tx) view(ptr, n uint32) ([]byte, error) {
	if err := tx.usable(); err != nil {
		return nil, err
	}
	mem := tx.Memory()
	if mem == nil {
		return nil, errs.As(ErrUnsupported, fmt.Errorf("the module has no memory"))
	}
	b, ok := mem.Read(ptr, n)
	if !ok {
		return nil, fmt.Errorf("%d bytes at address %d: the memory has %d bytes", n, ptr,
			mem.Size())
	}
	return b, nil
}

// allocators are the exports that give a guest's own memory out: size in, address out.
var allocators = []string{"malloc", "alloc", "allocate", "cabi_realloc"}

// NewBytes copies b into memory that the guest's own allocator gives out, and returns the address.
// It calls the first of malloc, alloc and allocate that the module exports with one i32 parameter
// and one i32 result, or cabi_realloc. The memory is the guest's, to be freed as its code does it.
func (tx *Tx) NewBytes(ctx context.Context, b []byte) (ptr uint32, err error) {
	if err := tx.usable(); err != nil {
		return 0, err
	}
	for _, name := range allocators {
		f, err := tx.in.find(name)
		if err != nil {
			continue
		}
		params := []uint64{uint64(len(b))}
		if name == "cabi_realloc" {
			params = []uint64{0, 0, 1, uint64(len(b))}
		}
		if !takesAndGivesI32(f.def, len(params)) {
			continue
		}
		results, err := tx.Call(ctx, name, params...)
		if err != nil {
			return 0, err
		}
		ptr := uint32(results[0])
		if ptr == 0 && len(b) > 0 {
			return 0, tx.in.event.note(fmt.Errorf("%s(%d): the guest has no memory left", name,
				len(b)))
		}
		return ptr, tx.WriteBytes(ptr, b)
	}
	return 0, errs.As(ErrUnsupported, fmt.Errorf(
		"the module exports none of %v, which NewBytes needs", allocators))
}

func takesAndGivesI32(def api.FunctionDefinition, params int) bool {
	isI32 := func(t api.ValueType) bool { return t == api.ValueTypeI32 }
	all := func(types []api.ValueType, n int) bool {
		return len(types) == n && !slices.ContainsFunc(types,
			func(t api.ValueType) bool { return !isI32(t) })
	}
	return all(def.ParamTypes(), params) && all(def.ResultTypes(), 1)
}

// Module is the present wazero instance of the guest, for host code that needs more than Tx
// gives; nil if the event is over. It is valid until the end of the event: a rollback may replace
// it.
func (tx *Tx) Module() api.Module {
	if tx.usable() != nil {
		return nil
	}
	if mem := tx.in.store.Memory(); mem != nil {
		mem.MarkAll()
	}
	return tx.in.store.Guest().Module()
}

// Meta returns the user's bytes as of this point of the event. They must not be changed.
func (tx *Tx) Meta() []byte {
	if !tx.live() {
		return nil
	}
	if x := &tx.in.event.extras; x.MetaSet {
		return x.Meta
	}
	return tx.in.store.State().Meta
}

// SetMeta sets the user's bytes that are committed with the event: an input cursor, a schema
// version. They are copied. A commit compares them with those before, and logs what differs; each
// checkpoint writes all of them. A commit is refused if they do not fit, with tables and globals,
// in 64 MiB ([globalsfile.MaxSlot]).
func (tx *Tx) SetMeta(b []byte) {
	if !tx.live() {
		return
	}
	x := &tx.in.event.extras
	x.Meta, x.MetaSet = append(x.Meta[:0], b...), true
}

// keep adds a change of what is kept beside the guest's own state; a later one for the same id
// takes the place of an earlier one.
func (tx *Tx) keep(c engine.Change) { tx.in.keep(c) }

func (in *Instance) keep(c engine.Change) {
	kept := in.event.extras.Kept
	i, found := slices.BinarySearchFunc(kept, c,
		func(a, b engine.Change) int {
			return cmp.Compare(a.ID, b.ID)
		})
	if found {
		kept[i] = c
		return
	}
	in.event.extras.Kept = slices.Insert(kept, i, c)
}

// OnCommit has fn called after the event has been committed and, under SyncAlways, survives power
// loss. Other events may run meanwhile. fn runs on the event's goroutine, before the call that
// made the event returns, and may begin another event.
func (tx *Tx) OnCommit(fn func()) {
	if tx.live() && !tx.in.event.view {
		tx.in.event.onCommit = append(tx.in.event.onCommit, fn)
	}
}

// OnRollback has fn called after the event has been undone, for whatever reason; of a View, after
// it is over. See OnCommit.
func (tx *Tx) OnRollback(fn func()) {
	if tx.live() {
		tx.in.event.onRollback = append(tx.in.event.onRollback, fn)
	}
}

func (tx *Tx) live() bool { return tx.in.event.id.Load() == tx.id }

// usable is an error if the event is over or has failed.
func (tx *Tx) usable() error {
	if !tx.live() {
		return errs.As(ErrNotInEvent, fmt.Errorf(
			"state %s: a Tx was used after its event was over", tx.in.Dir()))
	}
	return tx.in.event.failed
}

// note remembers the first error of a call: what it left behind must not be committed.
func (e *event) note(err error) error {
	if e.failed == nil {
		e.failed = err
	}
	return err
}

// Context returns ctx with the event in it, for host code that calls others. Calls through Tx do
// this themselves.
func (tx *Tx) Context(ctx context.Context) context.Context {
	if TxFrom(ctx) == tx {
		return ctx
	}
	return &eventContext{ctx, tx}
}

// TxFrom returns the event that a host function runs in, nil if ctx carries none. It is the
// innermost one if events of several instances call each other.
func TxFrom(ctx context.Context) *Tx {
	tx, _ := ctx.Value(txKey{}).(*Tx)
	return tx
}

type txKey struct{}

// eventContext carries an event. Asked with an instance as the key it tells that instance's event.
type eventContext struct {
	context.Context
	tx *Tx
}

func (c *eventContext) Value(key any) any {
	switch key := key.(type) {
	case txKey:
		return c.tx
	case *Instance:
		if key == c.tx.in {
			return c.tx
		}
	}
	return c.Context.Value(key)
}

// eventContext is ctx with the event in progress, if there is anybody to look for it and it does
// not carry that event already.
func (in *Instance) eventContext(ctx context.Context) context.Context {
	if !in.hostCalls {
		return ctx
	}
	if tx := TxFrom(ctx); tx != nil && tx.in == in && tx.live() {
		return ctx
	}
	return &eventContext{ctx, &Tx{in: in, id: in.event.id.Load()}}
}

// refuseNested is an error if ctx tells that the caller is inside an event of this instance.
func (in *Instance) refuseNested(ctx context.Context) error {
	if tx, _ := ctx.Value(in).(*Tx); tx != nil && tx.live() {
		return errs.As(ErrNested, fmt.Errorf("state %s: called from inside an event of the same "+
			"instance, which would wait for itself (use the Tx, or a goroutine without its "+
			"context)",
			in.Dir()))
	}
	return nil
}

// MarkWritten says that n bytes of the guest's memory at ptr have been written, or are about to be,
// by other means than the Tx. It matters with the tracker [Barrier] alone.
func (tx *Tx) MarkWritten(ptr, n uint32) {
	if mem := tx.in.store.Memory(); mem != nil && tx.live() {
		mem.MarkWritten(ptr, n)
	}
}

// MarkWritten says that the host function that ctx was given to has written, or is about to write,
// n bytes of the guest's memory at ptr. One that calls it says with that all that it writes, in as
// many calls as it takes; n may be 0. It matters with the tracker [Barrier] alone: an event in
// which a host function was called that does not tell has all of its memory compared. Outside of an
// event it does nothing.
func MarkWritten(ctx context.Context, ptr, n uint32) {
	tx := TxFrom(ctx)
	if tx == nil || tx.usable() != nil {
		return
	}
	if mem := tx.in.store.Memory(); mem != nil {
		mem.MarkWritten(ptr, n)
		mem.HostTells()
	}
}

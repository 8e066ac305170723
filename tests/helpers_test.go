package tests

import (
	"context"
	"runtime"
	"sync"
	"weak"

	"github.com/tetratelabs/wazero"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/fsck"
	"github.com/mmrun/mmrun/internal/engine"
	"github.com/mmrun/mmrun/internal/testkit/instance"
	"github.com/mmrun/mmrun/vfs"
)

var (
	ctx   = context.Background()
	bg    = ctx
	modes = []mmrun.Mode{mmrun.Atomic, mmrun.Continuous}

	newRuntime, open    = instance.Runtime, instance.Open
	call, closeInstance = instance.Call, instance.Close
)

// withFS replaces the file operations, for fault injection.
func withFS(fs vfs.FS) mmrun.Option {
	return func(o *engine.Options) error { o.FS = fs; return nil }
}

// withBootID replaces the identity of the machine's boot, for tests of power loss.
func withBootID(id [16]byte) mmrun.Option {
	return func(o *engine.Options) error {
		o.BootID = func() [16]byte { return id }
		return nil
	}
}

// stores has the store behind each instance that openSeen has opened, without keeping either: some
// tests open many thousands.
var stores sync.Map

// openSeen is mmrun.Open for tests that look behind the instance.
func openSeen(rt wazero.Runtime, dir string, wasm []byte, opts ...mmrun.Option) (*mmrun.Instance,
	error) {
	var store *engine.Store
	in, err := mmrun.Open(ctx, rt, dir, wasm, append(opts, func(o *engine.Options) error {
		o.Opened = func(s *engine.Store) { store = s }
		return nil
	})...)
	if err == nil {
		stores.Store(weak.Make(in), weak.Make(store))
	}
	return in, err
}

func storeOf(in *mmrun.Instance) *engine.Store {
	s, ok := stores.Load(weak.Make(in))
	if !ok {
		panic("the instance was not opened by openSeen")
	}
	store := s.(weak.Pointer[engine.Store]).Value()
	runtime.KeepAlive(in) // which holds the store
	return store
}

func checkVerify(fs vfs.FS, boot [16]byte, dir string) (*fsck.VerifyReport, error) {
	return fsck.Checker{FS: fs, Boot: boot}.Verify(dir)
}

func checkRepair(fs vfs.FS, boot [16]byte, dir string, force bool) (*fsck.RepairReport, error) {
	return fsck.Checker{FS: fs, Boot: boot}.Repair(dir, force)
}

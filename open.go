package mmrun

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/tetratelabs/wazero"

	"github.com/mmrun/mmrun/globalsfile"
	"github.com/mmrun/mmrun/internal/delta"
	"github.com/mmrun/mmrun/internal/section"
	"github.com/mmrun/mmrun/mmapmem"
	"github.com/mmrun/mmrun/vfs"
	"github.com/mmrun/mmrun/wal"
)

// Open resumes the instance kept in dir, or creates it there from wasm. A nil wasm takes the
// module kept in dir. Another module than the one that created the state is refused
// (ErrModuleMismatch), and so is a state that somebody else has open (ErrLocked).
//
// The first run of a module writes its data segments and runs its start function and, if it
// exports one, _initialize; that is commit 1. A resume runs none of them. A state directory is
// created whole or not at all.
//
// The caller owns the runtime, and what the module imports (WASI, host modules) must have been
// instantiated in it. The runtime must outlive the instance. The end of ctx does not end the
// instance.
//
// The number of bytes read from the memory file does not depend on its size.
func Open(ctx context.Context, rt wazero.Runtime, dir string, wasm []byte, opts ...Option) (*Instance, error) {
	o, err := newOptions(opts)
	if err != nil {
		return nil, err
	}
	dir = filepath.Clean(dir)
	exists, err := stateExists(dir)
	if err != nil {
		return nil, err
	}
	var lock *os.File
	var g *guest
	var last lastOwner
	if exists {
		if lock, last, err = lockDir(dir, o.bootID()); err == nil && !last.closed {
			if err = syncNames(o.fs, dir); err != nil {
				err = errors.Join(fmt.Errorf("state %s: %w", dir, err), unlock(lock))
			}
		}
	} else {
		if wasm == nil {
			return nil, asKind(ErrNotExist, fmt.Errorf("state %s: does not exist, and no module was given to create it from", dir))
		}
		if g, err = newGuest(ctx, rt, wasm, o.config); err != nil {
			return nil, err
		}
		lock, err = buildDir(o.fs, dir, func(building string) error { return create(ctx, o, building, wasm, g) })
	}
	if err != nil {
		return nil, err
	}
	if !exists {
		last = lastOwner{closed: true, cached: true, synced: true} // it is as if this process had just closed it
	}
	in := &Instance{dir: dir, opts: o, lock: lock, last: last, guest: g, functions: make(map[string]*Function)}
	in.tx.in = in
	in.files.add(func() error { return unlock(lock) })
	if err := in.resume(ctx, rt, wasm); err != nil {
		return nil, errors.Join(err, in.files.close())
	}
	return in, nil
}

// resume opens the files of a state that exists and is locked, and brings the guest to it.
func (in *Instance) resume(ctx context.Context, rt wazero.Runtime, wasm []byte) error {
	o := in.opts
	openSidecar := globalsfile.Open
	if in.last.closed {
		openSidecar = globalsfile.OpenSynced
	}
	sidecar, err := openSidecar(o.fs, filepath.Join(in.dir, globalsName))
	if err != nil {
		return in.fileError(err)
	}
	in.files.add(sidecar.Close)
	report, err := sidecar.Report()
	if err == nil {
		err = report.Check(o.bootID())
	}
	torn := errors.Is(err, globalsfile.ErrTorn)
	switch {
	case torn && !o.acceptTorn:
		return asKind(ErrTorn, fmt.Errorf("state %s: %w (its memory and its globals may not belong together; "+
			"open it with --force or WithAcceptTorn to take it as it is)", in.dir, err))
	case err != nil && !torn:
		return in.fileError(err)
	}
	header := sidecar.Header()
	if wasm, err = in.checkModule(wasm, header.Module); err != nil {
		return err
	}
	if in.guest == nil {
		if in.guest, err = newGuest(ctx, rt, wasm, o.config); err != nil {
			return fmt.Errorf("state %s: %w", in.dir, err)
		}
	}
	if in.state, err = sidecar.Read(); err != nil {
		return in.fileError(err)
	}
	if err := in.guest.checkShape(in.state); err != nil {
		return fmt.Errorf("state %s: %w", in.dir, err)
	}
	if err := in.openFiles(sidecar, Mode(header.Mode), torn); err != nil {
		return err
	}
	if err := in.guest.instantiate(); err != nil {
		return fmt.Errorf("state %s: %w", in.dir, err)
	}
	if err := in.guest.restore(in.state); err != nil {
		return errors.Join(fmt.Errorf("state %s: %w", in.dir, err), in.guest.close())
	}
	// Without the note less damage is found after a kill.
	_ = in.note(openNote)
	return nil
}

// fileError gives an error of a lower package its place and its kind.
func (in *Instance) fileError(err error) error {
	switch {
	case errors.Is(err, globalsfile.ErrTorn):
		return asKind(ErrTorn, fmt.Errorf("state %s: %w (nothing is left that could be opened)", in.dir, err))
	case errors.Is(err, globalsfile.ErrCorrupt), errors.Is(err, wal.ErrCorrupt), errors.Is(err, delta.ErrMalformed),
		errors.Is(err, mmapmem.ErrSum), errors.Is(err, fs.ErrNotExist):
		return asKind(ErrCorrupt, fmt.Errorf("state %s: %w (run: mmrun verify %s)", in.dir, err, in.dir))
	case errors.Is(err, globalsfile.ErrVersion), errors.Is(err, section.ErrUnknown):
		return asKind(ErrUnsupported, fmt.Errorf("state %s: %w", in.dir, err))
	}
	return fmt.Errorf("state %s: %w", in.dir, err)
}

// checkModule returns the module of the state: wasm, if it is that, or the one kept.
func (in *Instance) checkModule(wasm []byte, want [32]byte) ([]byte, error) {
	if wasm == nil {
		kept, err := os.ReadFile(filepath.Join(in.dir, moduleName))
		if err != nil {
			return nil, in.fileError(err)
		}
		if got := sha256.Sum256(kept); got != want {
			return nil, asKind(ErrCorrupt, fmt.Errorf("state %s: %s has SHA-256 %x, the state was created by %x",
				in.dir, moduleName, got, want))
		}
		return kept, nil
	}
	if got := sha256.Sum256(wasm); got != want {
		return nil, asKind(ErrModuleMismatch, fmt.Errorf(
			"state %s: it belongs to the module with SHA-256 %x, the one given has %x (use another state directory, or the module kept in it as %s)",
			in.dir, want, got, moduleName))
	}
	return wasm, nil
}

// openFiles opens memory and wal, recovers, and converts the state to the mode asked for.
func (in *Instance) openFiles(sidecar *globalsfile.File, has Mode, torn bool) error {
	in.mode = has
	if in.opts.mode != 0 {
		in.mode = in.opts.mode
	}
	if !in.last.synced {
		if err := in.syncCopied(); err != nil {
			return in.fileError(err)
		}
	}
	var memory vfs.File
	if in.guest.info.Memory != nil {
		var err error
		if memory, err = in.openFile(memoryName); err != nil {
			return in.fileError(err)
		}
	}
	if has == Continuous {
		if err := in.settleContinuous(sidecar, memory, torn); err != nil {
			return err
		}
		if in.mode == Atomic {
			if err := in.toAtomic(sidecar, memory); err != nil {
				return err
			}
		}
	}
	if has == Atomic && in.mode == Continuous {
		return in.toContinuous(sidecar, memory)
	}
	if in.mode == Continuous {
		return in.openContinuous(sidecar, memory, torn)
	}
	return in.openAtomic(sidecar, memory)
}

// syncCopied puts those files on the disk that an owner does not write to again before it acknowledges commits on top of them. An owner
// has synced them long ago, but whoever has copied a state need not have.
func (in *Instance) syncCopied() error {
	for _, name := range []string{moduleName, memoryName, sumsName} {
		f, err := in.opts.fs.OpenFile(filepath.Join(in.dir, name), os.O_RDONLY, 0)
		if errors.Is(err, fs.ErrNotExist) {
			continue // not every state has all of them
		}
		if err == nil {
			err = errors.Join(f.Sync(), f.Close())
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (in *Instance) openFile(name string) (vfs.File, error) {
	f, err := in.opts.fs.OpenFile(filepath.Join(in.dir, name), os.O_RDWR, filePerm)
	if err != nil {
		return nil, err
	}
	in.files.add(f.Close)
	return f, nil
}

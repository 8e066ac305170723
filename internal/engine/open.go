package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/mmrun/mmrun/globalsfile"
	"github.com/mmrun/mmrun/internal/errs"
	"github.com/mmrun/mmrun/internal/guest"
	"github.com/mmrun/mmrun/internal/section"
	"github.com/mmrun/mmrun/internal/statedir"
	"github.com/mmrun/mmrun/mmapmem"
	"github.com/mmrun/mmrun/rewriter"
	"github.com/mmrun/mmrun/vfs"
)

// Source gives the code of the module to open. kept is nil if a module was given by the caller, and
// otherwise the one that the state directory holds.
type Source struct {
	// Hash of the module given; nil if there is none.
	Hash *[32]byte
	// Code returns the code of the module given, or of the one kept, whose SHA-256 has been checked
	// to be hash; it is needed in that form first. The store takes over one use.
	Code func(kept []byte, hash [32]byte, form rewriter.Options) (*guest.Code, error)
}

// Open resumes the state in dir, or creates it. The caller has checked the options.
func Open(ctx context.Context, dir string, src Source, opts *Options) (_ *Store, err error) {
	exists, err := statedir.Exists(dir)
	if err != nil {
		return nil, err
	}
	if !exists && src.Hash == nil {
		return nil, errs.As(errs.ErrNotExist, fmt.Errorf(
			"state %s: does not exist, and no module was given to create it from", dir))
	}
	s := &Store{core: core{dir: dir, opts: opts}, gate: newGate()}
	// However this ends, a panic of the embedder's code included, nothing stays open or locked.
	opened := false
	defer func() {
		if !opened {
			err = errors.Join(err, s.files.close())
		}
	}()
	if exists {
		if s.lock, err = statedir.Acquire(dir, opts.BootID()); err != nil {
			return nil, err
		}
		s.files.add(s.lock.Close)
		if !s.lock.Last.CleanClose {
			// Whoever gave the names may have been killed before they were durable.
			if err := statedir.Settle(opts.FS, dir); err != nil {
				return nil, err
			}
		}
	} else {
		if err := s.setCode(ctx, src, nil, *src.Hash, opts.Mode == Continuous); err != nil {
			return nil, err
		}
		fill := func(fsys vfs.FS) error { return create(ctx, opts, fsys, dir, s.guest) }
		if s.lock, err = statedir.Create(opts.FS, dir, opts.BootID(), fill); err != nil {
			return nil, err
		}
		s.files.add(s.lock.Close)
	}
	if err := s.resume(ctx, src); err != nil {
		return nil, err
	}
	opened = true
	if opts.Opened != nil {
		opts.Opened(s)
	}
	return s, nil
}

func (s *Store) setCode(ctx context.Context, src Source, kept []byte, hash [32]byte,
	continuous bool) error {
	var hint []byte
	if s.state != nil {
		hint = s.Kept(section.TrackerCosts)
	}
	var form rewriter.Options
	form.Barrier, s.trackerWhy = s.opts.chosen(hint, continuous)
	form.Suspend = s.opts.Program
	code, err := src.Code(kept, hash, form)
	switch {
	case err != nil && kept == nil: // it is about the module given
		return err
	case err != nil:
		return errs.State(s.dir, "", err)
	}
	g, err := guest.New(ctx, code, form, s.opts.Config)
	if err != nil {
		return errs.State(s.dir, "", err)
	}
	s.guest = g
	s.files.add(func() error { return code.Release(context.WithoutCancel(ctx)) })
	return nil
}

// resume opens the files of a state that exists and is locked, and brings the guest to it.
func (s *Store) resume(ctx context.Context, src Source) error {
	sidecar, torn, err := s.openSidecar()
	if err != nil {
		return err
	}
	header := sidecar.Header()
	kept, err := s.module(src, header.Module)
	if err != nil {
		return err
	}
	if s.state, err = sidecar.Read(); err != nil {
		return fileError(s.dir, err)
	}
	if s.guest == nil {
		mode := cmp.Or(s.opts.Mode, header.Mode)
		if err := s.setCode(ctx, src, kept, header.Module, mode == Continuous); err != nil {
			return err
		}
	}
	if err := guest.CheckShape(&s.guest.Code().Info, s.state); err != nil {
		return fmt.Errorf("state %s: %w", s.dir, err)
	}
	if !s.lock.Last.FilesSynced {
		if err := syncCopied(s.opts.FS, s.dir); err != nil {
			return fileError(s.dir, err)
		}
	}
	if err := s.openKeeper(sidecar, torn); err != nil {
		return err
	}
	if err := s.guest.Instantiate(); err != nil {
		return fmt.Errorf("state %s: %w", s.dir, err)
	}
	s.files.add(s.guest.Close)
	if err := s.guest.Restore(s.state); err != nil {
		return fmt.Errorf("state %s: %w", s.dir, err)
	}
	s.seq.Store(s.state.Seq)
	// Without the note less damage is found after a kill.
	_ = s.lock.SayOpen()
	return nil
}

// openSidecar opens the globals file and asks whether memory goes with it.
func (s *Store) openSidecar() (_ *globalsfile.File, torn bool, err error) {
	open := globalsfile.Open
	if s.lock.Last.CleanClose {
		open = globalsfile.OpenSynced
	}
	sidecar, err := open(s.opts.FS, s.path(statedir.GlobalsName))
	if err != nil {
		return nil, false, fileError(s.dir, err)
	}
	s.files.add(sidecar.Close)
	report, err := sidecar.Report()
	if err == nil {
		err = CheckWhole(report, s.lock.Last)
	}
	torn = errors.Is(err, globalsfile.ErrTorn)
	switch {
	case torn && !s.opts.AcceptTorn:
		return nil, torn, errs.As(errs.ErrTorn,
			fmt.Errorf("state %s: %w (its memory and its globals "+
				"may not belong together; open it with --force or WithAcceptTorn to take it as "+
				"it is)",
				s.dir, err))
	case err != nil && !torn:
		return nil, torn, fileError(s.dir, err)
	}
	return sidecar, torn, nil
}

// module holds the module given against the state's. If none was given it returns the one kept.
func (s *Store) module(src Source, want [32]byte) (kept []byte, err error) {
	if src.Hash == nil {
		kept, err := statedir.ReadModule(s.opts.FS, s.dir, want)
		if err != nil {
			err = fileError(s.dir, err)
		}
		return kept, err
	}
	if *src.Hash != want {
		return nil, errs.As(errs.ErrModuleMismatch,
			fmt.Errorf("state %s: it belongs to the module with "+
				"SHA-256 %x, the one given has %x (use another state directory, or the module "+
				"kept in "+
				"it as %s)", s.dir, want, *src.Hash, statedir.ModuleName))
	}
	return nil, nil
}

// openKeeper opens memory and log, recovers, and converts the state to the mode asked for.
func (s *Store) openKeeper(sidecar *globalsfile.File, torn bool) error {
	has := sidecar.Header().Mode
	want := cmp.Or(s.opts.Mode, has)
	memory, err := s.openMemory()
	if err != nil {
		return err
	}
	if has == Continuous {
		if err := s.settleContinuous(sidecar, memory, torn); err != nil {
			return err
		}
	}
	switch {
	case has == Continuous && want == Atomic:
		err = s.toAtomic(sidecar, memory)
	case has == Atomic && want == Continuous:
		err = s.toContinuous(sidecar, memory)
	}
	if err != nil {
		return err
	}
	s.mode = want
	if want == Continuous {
		return s.openContinuous(sidecar, memory, torn)
	}
	return s.openAtomic(sidecar, memory)
}

func (s *Store) openMemory() (vfs.File, error) {
	if s.guest.Code().Info.Memory == nil {
		return nil, nil
	}
	memory, err := s.openFile(statedir.MemoryName)
	if err != nil {
		return nil, fileError(s.dir, err)
	}
	return memory, nil
}

func (s *Store) openFile(name string) (vfs.File, error) {
	f, err := s.opts.FS.OpenFile(s.path(name), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	s.files.add(f.Close)
	return f, nil
}

// mapMemory maps the file for the guest.
func (s *Store) mapMemory(memory vfs.File, kind mmapmem.Kind) error {
	if memory == nil {
		return nil
	}
	var trackers []mmapmem.NewTracker
	if marks := s.guest.Marks(); marks != nil {
		trackers = append(trackers, mmapmem.Barrier(marks))
	}
	mem, err := mmapmem.Open(memory, kind, guest.MaxPages(&s.guest.Code().Info), trackers...)
	if err != nil {
		return fileError(s.dir, err)
	}
	s.files.add(mem.Close)
	s.mem = mem
	s.guest.SetMemory(mem)
	// Holes, which a copy of the directory may have made, would be a SIGBUS on a full disk.
	if err := mem.EnsureFile(uint64(s.state.MemoryPages) * mmapmem.WasmPageSize); err != nil {
		return fileError(s.dir, err)
	}
	return nil
}

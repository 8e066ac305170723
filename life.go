package mmrun

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/mmrun/mmrun/internal/engine"
	"github.com/mmrun/mmrun/internal/errs"
	"github.com/mmrun/mmrun/internal/history"
	"github.com/mmrun/mmrun/internal/section"
	"github.com/mmrun/mmrun/internal/snapshot"
	"github.com/mmrun/mmrun/internal/statedir"
	"github.com/mmrun/mmrun/vfs"
)

// Snapshot writes all of the state, as of the last commit or a later one, to w, and returns its
// number. Events go on meanwhile (in Continuous mode they wait). Package archive restores it,
// anywhere.
//
// If more is written meanwhile than can be held (256 MiB of pages that were not copied yet), the
// snapshot fails, not the events.
func (in *Instance) Snapshot(ctx context.Context, w io.Writer) (seq uint64, err error) {
	im, err := in.image(ctx)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, im.Close()) }()
	m, err := snapshot.Write(w, im, time.Now(), nil)
	if err != nil {
		return 0, errs.State(in.Dir(), "", err)
	}
	return m.Seq, nil
}

// Fork makes a state of its own in dir of the last commit, or a later one, and returns its number.
// Events go on meanwhile (in Continuous mode they wait). See [Tx.Generation] for what the fork is
// told.
func (in *Instance) Fork(ctx context.Context, dir string) (seq uint64, err error) {
	im, err := in.image(ctx)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, im.Close()) }()
	im.Derive(engine.Forked)
	return im.State.Seq, engine.Build(vfs.OS, dir, statedir.Boot(), im, nil)
}

func (in *Instance) image(ctx context.Context) (*engine.Image, error) {
	if err := in.refuseNested(ctx); err != nil {
		return nil, err
	}
	im, err := in.store.Image(ctx)
	if err == nil {
		im.StopWith(ctx)
	}
	return im, err
}

// ResumedName is the export that a guest is told by that its state goes on elsewhere than it began:
// a function (generation i64, reason i32) -> (). It is called once, as an event, at the first
// opening after a fork (reason 1) or a restore (2), not at each resume, so that the guest can make
// its random numbers other ones. If it fails, that is rolled back and the opening is refused.
const ResumedName = "mmrun_resumed"

// HostModuleName is the name of what [InstantiateHost] provides to guests.
const HostModuleName = "mmrun"

// InstantiateHost provides guests in rt with the host module mmrun. Its function generation, () ->
// i64, is [Tx.Generation]; wait, (i32) -> i32, gives back what it is given, and a program is left
// and committed there ([Instance.Run]).
func InstantiateHost(ctx context.Context, rt wazero.Runtime) (api.Closer, error) {
	return rt.NewHostModuleBuilder(HostModuleName).NewFunctionBuilder().
		WithFunc(func(ctx context.Context) int64 {
			MarkWritten(ctx, 0, 0) // it writes nothing
			tx := TxFrom(ctx)
			if tx == nil {
				return 0 // in the first run of a module
			}
			return tx.Generation()
		}).Export("generation").NewFunctionBuilder().
		WithFunc(func(ctx context.Context, n int32) int32 {
			MarkWritten(ctx, 0, 0)
			if tx := TxFrom(ctx); tx != nil && tx.in.program != nil {
				tx.in.program.yield()
			}
			return n
		}).Export("wait").Instantiate(ctx)
}

// Generation tells the state from those it was forked from, and from those that were forked from
// it: it is 0 until the first fork or restore, grows with each, and is another one in each.
func (tx *Tx) Generation() int64 {
	if !tx.live() {
		return 0
	}
	return engine.GenerationOf(tx.in.store.State()).Number
}

// tellResumed calls the guest's hook if its state has been derived since it was last open.
func (in *Instance) tellResumed(ctx context.Context) error {
	g := engine.GenerationOf(in.store.State())
	if !g.Untold {
		return nil
	}
	f, err := in.find(ResumedName)
	if err != nil {
		return nil // it does not want to know
	}
	i64, i32 := api.ValueTypeI64, api.ValueTypeI32
	if p := f.def.ParamTypes(); len(p) != 2 || p[0] != i64 || p[1] != i32 ||
		len(f.def.ResultTypes()) > 0 {
		return errs.Statef(ErrUnsupported, in.Dir(),
			"function %s is %s, it should be (i64, i32) -> ()",
			ResumedName, Signature(f.def))
	}
	err = in.Update(ctx, func(tx *Tx) error {
		told := g
		told.Untold = false
		tx.keep(engine.Change{ID: section.Fork, Bytes: told.Encode()})
		_, err := tx.Call(ctx, ResumedName, uint64(g.Number), uint64(g.Reason))
		return err
	})
	if err != nil {
		return fmt.Errorf("state %s: the guest was told that its state was forked or restored, "+
			"and failed: "+
			"%w", in.Dir(), err)
	}
	return nil
}

// historyKeeper opens the history of a state and sees to its bases: at the opening, and while the
// state is open on a goroutine of its own.
type historyKeeper struct {
	dir    string
	on     bool
	keep   history.Keep
	writer *history.Writer
	logger *slog.Logger

	in   *Instance
	ctx  context.Context // of that goroutine
	stop context.CancelFunc

	mu   sync.Mutex
	busy bool
	work sync.WaitGroup
}

// configure looks at what is asked for and what the state remembers.
func (h *historyKeeper) configure(o *engine.Options) (err error) {
	if o.KeepHistory != "" {
		h.on = true
		h.keep, err = history.ParseKeep(o.KeepHistory)
	} else {
		h.keep, h.on, err = history.Remembered(h.dir)
	}
	if err != nil || !h.on {
		return err
	}
	if o.Mode == Continuous {
		return errs.As(ErrUnsupported, errors.New("a continuous state has no commits to keep"))
	}
	h.logger = o.Logger
	o.History = func() (engine.History, error) {
		h.writer, err = history.Open(h.dir, h.keep)
		if err != nil {
			return nil, err
		}
		h.writer.Flushed = h.flushed
		return h.writer, nil
	}
	return nil
}

// ensureBase writes a snapshot that the commits to come can be read from, if there is none, or if
// it would take long. It reads all of the memory then.
func (h *historyKeeper) ensureBase(ctx context.Context, in *Instance) (err error) {
	if h.writer == nil {
		return nil
	}
	if h.writer.Last() > in.Seq() { // a repair has gone back
		if err := h.writer.Cut(in.Seq()); err != nil {
			return errs.State(in.Dir(), "history", err)
		}
	}
	needed, err := h.writer.NeedsBase(in.Dir(), in.Seq())
	if err == nil && needed {
		err = h.base(ctx, in)
	}
	if err == nil {
		err = h.writer.Prune(in.Dir())
	}
	if err != nil {
		return errs.State(in.Dir(), "history", err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.in = in
	h.ctx, h.stop = context.WithCancel(context.WithoutCancel(ctx))
	return nil
}

// flushed is called when a checkpoint has brought records to the history.
func (h *historyKeeper) flushed() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.in == nil || h.busy || h.ctx.Err() != nil {
		return
	}
	if grown, err := h.writer.Grown(h.dir); err == nil && !grown {
		return
	}
	h.busy = true
	h.work.Go(func() {
		err := h.base(h.ctx, h.in)
		if err == nil {
			err = h.writer.Prune(h.dir)
		}
		if err != nil && h.ctx.Err() == nil {
			h.logger.Error("no new base of the history", "state", h.dir, "error", err)
		}
		h.mu.Lock()
		h.busy = false
		h.mu.Unlock()
	})
}

// close ends that, before the instance is closed.
func (h *historyKeeper) close() {
	h.mu.Lock()
	begun := h.in != nil
	if begun {
		h.stop()
	}
	h.mu.Unlock()
	h.work.Wait()
}

func (h *historyKeeper) base(ctx context.Context, in *Instance) (err error) {
	im, err := in.image(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, im.Close()) }()
	err = history.WriteBase(in.Dir(), func(w io.Writer) (uint64, error) {
		_, err := snapshot.Write(w, im, time.Now(), nil)
		return im.State.Seq, err
	})
	if err == nil {
		err = h.writer.Based(im.State.Seq)
	}
	return err
}

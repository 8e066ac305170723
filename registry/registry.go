package registry

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/mmrun/mmrun"
)

var (
	// ErrBusy: too many events wait for the instance, or too many instances are in use.
	ErrBusy = errors.New("too much is waiting")
	// ErrExists: there is an instance of that name already.
	ErrExists = errors.New("the instance exists already")
	// ErrTooMany: there are as many instances as may be.
	ErrTooMany = errors.New("too many instances")
	// ErrClosed: the registry has been closed.
	ErrClosed = errors.New("the registry is closed")
	// ErrNoModule: there is no module of that name, or none with that hash.
	ErrNoModule = errors.New("no such module")
)

// ErrNotExist: there is no instance of that name.
var ErrNotExist = mmrun.ErrNotExist

// Options is how a registry is opened. The zero value is usable.
type Options struct {
	// MaxOpen is how many instances are open at once, at most. 0: 1,000.
	MaxOpen int
	// Idle is after how long without an event an instance is closed. 0: five minutes; negative:
	// never.
	Idle time.Duration
	// MaxQueue is how many events of one name may run and wait, at most. 0: 128.
	MaxQueue int
	// MaxInstances is how many instances there may be. 0: any number.
	MaxInstances int
	// Explicit: an instance is created by Create alone, not by its first event.
	Explicit bool
	// Instance gives the options of an instance. It may be nil.
	Instance func(name string) []mmrun.Option
	// Compile makes the module of an instance that was created with one that is not among those
	// given. Without it such an instance cannot be opened.
	Compile func(ctx context.Context, wasm []byte) (*mmrun.Module, error)
	// Logger is told of what happens in the background. Nil: nobody is.
	Logger *slog.Logger
}

const (
	instancesName = "instances"
	modulesName   = "modules"
	trashName     = "trash"
)

// Registry is the instances under one data directory. It is safe for concurrent use.
type Registry struct {
	dir     string
	opts    Options
	modules modules

	mu      sync.Mutex
	entries map[string]*entry
	open    int       // entries whose instance is open, or on its way to that
	closing int       // those on their way from that
	idle    list.List // of *entry that are open and that nobody uses, the longest idle first
	count   int       // of instances; -1: nobody has counted
	closed  bool
	stopped chan struct{}
	work    sync.WaitGroup // in the background

	closers chan struct{} // bounds how many close at once
}

// entry is an instance that is open or in use.
type entry struct {
	name string
	// in is nil unless the instance is open; it and the rest are guarded by the registry's mutex.
	in    *mmrun.Instance
	users int // events that run or wait in it
	// moving is closed when the instance has come to be open or closed; nil while it is on its way
	// to neither. waiting is how many wait for that.
	moving  chan struct{}
	waiting int
	drained chan struct{} // is closed when the last user leaves, if not nil
	idleAt  time.Time
	place   *list.Element // in idle
}

// Open opens the data directory dir, which is made if it is not there. m is the module that
// instances are created with unless another one is asked for (AddModule); it must stay open until
// the registry is closed.
func Open(dir string, m *mmrun.Module, o Options) (*Registry, error) {
	if o.MaxOpen == 0 {
		o.MaxOpen = 1000
	}
	if o.Idle == 0 {
		o.Idle = 5 * time.Minute
	}
	if o.MaxQueue == 0 {
		o.MaxQueue = 128
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.MaxOpen < 0 || o.MaxQueue < 0 || o.MaxInstances < 0 {
		return nil, errors.New("registry: a limit is negative")
	}
	r := &Registry{dir: filepath.Clean(dir), opts: o, entries: make(map[string]*entry), count: -1,
		stopped: make(chan struct{}), closers: make(chan struct{}, 16)}
	for _, name := range []string{"", instancesName, modulesName, trashName} {
		if err := os.MkdirAll(filepath.Join(r.dir, name), 0o777); err != nil {
			return nil, fmt.Errorf("registry: %w", err)
		}
	}
	if err := errors.Join(syncDir(r.dir), syncDir(filepath.Dir(r.dir))); err != nil {
		return nil, fmt.Errorf("registry: %w", err)
	}
	if err := emptyTrash(r.dir); err != nil {
		return nil, fmt.Errorf("registry: %w", err)
	}
	r.modules.dir, r.modules.compile = filepath.Join(r.dir, modulesName), o.Compile
	if err := r.modules.add("", m); err != nil {
		return nil, fmt.Errorf("registry: %w", err)
	}
	if o.MaxInstances > 0 {
		r.count = 0
		for _, err := range r.All() {
			if err != nil {
				return nil, err
			}
			r.count++
		}
	}
	if o.Idle > 0 {
		r.work.Go(r.closeIdle)
	}
	return r, nil
}

// AddModule makes another module known under a name, for Create.
func (r *Registry) AddModule(name string, m *mmrun.Module) error { return r.modules.add(name, m) }

// Close closes all instances, each with a checkpoint. Events that run are waited for; new ones are
// refused. If ctx ends meanwhile, what is still open stays open.
func (r *Registry) Close(ctx context.Context) error {
	r.mu.Lock()
	if !r.closed {
		r.closed = true
		close(r.stopped)
	}
	var all []*entry
	for _, e := range r.entries {
		all = append(all, e)
	}
	r.mu.Unlock()
	var mu sync.Mutex
	var errs []error
	var closing sync.WaitGroup
	for _, e := range all {
		r.closers <- struct{}{}
		closing.Go(func() {
			defer func() { <-r.closers }()
			if err := r.closeEntry(ctx, e); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, err)
			}
		})
	}
	closing.Wait()
	r.work.Wait()
	return errors.Join(append(errs, r.modules.close(ctx))...)
}

// closeEntry waits until an instance is not on its way anywhere, and closes it.
func (r *Registry) closeEntry(ctx context.Context, e *entry) error {
	for {
		r.mu.Lock()
		moving, in := e.moving, e.in
		gone := r.entries[e.name] != e
		r.mu.Unlock()
		switch {
		case gone:
			return nil
		case moving == nil:
			return in.Close(ctx)
		}
		select {
		case <-moving:
		case <-ctx.Done():
			return fmt.Errorf("instance %q: %w", e.name, ctx.Err())
		}
	}
}

// Stats is what a registry holds.
type Stats struct {
	Open    int `json:"open"`    // instances that are open
	InUse   int `json:"inUse"`   // of which an event runs or waits
	Waiting int `json:"waiting"` // events that run or wait
}

// Stats returns what the registry holds now.
func (r *Registry) Stats() (s Stats) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s.Open = r.open
	for _, e := range r.entries {
		if n := e.users + e.waiting; n > 0 {
			s.InUse++
			s.Waiting += n
		}
	}
	return s
}

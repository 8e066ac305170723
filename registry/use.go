package registry

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/mmrun/mmrun"
)

// Update runs fn as one event of the instance of that name; see mmrun.Instance.Update. An instance
// that does not exist is created, unless the options say that only Create does that.
func (r *Registry) Update(ctx context.Context, name string, fn func(tx *mmrun.Tx) error) error {
	return r.Use(ctx, name, func(in *mmrun.Instance) error { return in.Update(ctx, fn) })
}

// View runs fn as a query of the instance of that name, which must exist; see mmrun.Instance.View.
func (r *Registry) View(ctx context.Context, name string, fn func(tx *mmrun.Tx) error) error {
	return r.UseExisting(ctx, name, func(in *mmrun.Instance) error { return in.View(ctx, fn) })
}

// Handle gives an event to the handler of the instance of that name; see mmrun.Instance.Handle.
func (r *Registry) Handle(ctx context.Context, name string, event []byte) (effect []byte,
	err error) {
	err = r.Use(ctx, name, func(in *mmrun.Instance) (err error) {
		effect, err = in.Handle(ctx, event)
		return err
	})
	return effect, err
}

// Use opens the instance of that name, creates it if that is allowed, and gives it to fn, which
// must not keep it. The instance is not closed before fn has returned. fn takes one place in the
// queue of the name, whatever it does.
func (r *Registry) Use(ctx context.Context, name string, fn func(in *mmrun.Instance) error) error {
	return r.use(ctx, request{name: name, create: !r.opts.Explicit}, fn)
}

// UseExisting is Use for an instance that must exist.
func (r *Registry) UseExisting(ctx context.Context, name string,
	fn func(in *mmrun.Instance) error) error {
	return r.use(ctx, request{name: name}, fn)
}

// Create creates the instance of that name with a module that AddModule has made known; "" is the
// one that was given to Open. It is an error ([ErrExists]) if it exists.
func (r *Registry) Create(ctx context.Context, name, module string) error {
	if exists, err := r.Exists(name); err != nil || exists {
		return errors.Join(err, exists2error(name, exists))
	}
	made := false
	err := r.use(ctx, request{name: name, create: true, module: module, made: &made},
		func(*mmrun.Instance) error { return nil })
	if err == nil && !made {
		err = exists2error(name, true)
	}
	return err
}

func exists2error(name string, exists bool) error {
	if !exists {
		return nil
	}
	return fmt.Errorf("instance %q: %w", name, ErrExists)
}

// CreateAndUse is Use for an instance that is created, if need be, with that module.
func (r *Registry) CreateAndUse(ctx context.Context, name, module string,
	fn func(in *mmrun.Instance) error) error {
	return r.use(ctx, request{name: name, create: !r.opts.Explicit, module: module}, fn)
}

// request is what is wanted of an instance.
type request struct {
	name   string
	create bool   // if it does not exist
	module string // with which
	made   *bool  // set if it was created
}

func (r *Registry) use(ctx context.Context, q request, fn func(in *mmrun.Instance) error) error {
	if err := checkName(q.name); err != nil {
		return err
	}
	e, err := r.acquire(ctx, q)
	if err != nil {
		return err
	}
	defer r.release(e)
	err = fn(e.in)
	if errors.Is(err, mmrun.ErrPoisoned) {
		r.discard(e)
	}
	return err
}

// acquire gives the open instance of a name, of which this caller is one user from then on.
func (r *Registry) acquire(ctx context.Context, q request) (*entry, error) {
	for {
		e, wait, err := r.step(q)
		if err != nil || wait == nil {
			return e, err
		}
		select {
		case <-wait:
			err = nil
		case <-ctx.Done():
			err = fmt.Errorf("instance %q: %w", q.name, ctx.Err())
		}
		if e != nil {
			r.mu.Lock()
			e.waiting--
			r.mu.Unlock()
		}
		if err != nil {
			return nil, err
		}
	}
}

// mostClosing is how many instances may be closing in the background before somebody has to wait.
const mostClosing = 64

// step takes the instance if it is open, or opens it. Or it gives what to wait for before another
// step; if e is not nil then, the caller is counted there as waiting.
func (r *Registry) step(q request) (e *entry, wait <-chan struct{}, err error) {
	r.mu.Lock()
	e = r.entries[q.name]
	switch {
	case r.closed:
		err = ErrClosed
	case e != nil && e.users+e.waiting >= r.opts.MaxQueue:
		err = fmt.Errorf("instance %q: %w: %d events", q.name, ErrBusy, e.users+e.waiting)
	case e != nil && e.moving != nil:
		e.waiting++
		wait = e.moving
	case e != nil:
		r.unidle(e)
		e.users++
	case r.open >= r.opts.MaxOpen || r.closing >= mostClosing:
		wait, err = r.evict()
	default:
		return r.open1(q)
	}
	r.mu.Unlock()
	return e, wait, err
}

// open1 opens an instance that is not open. It is called with the mutex held, and gives it up.
func (r *Registry) open1(q request) (e *entry, wait <-chan struct{}, err error) {
	moving := make(chan struct{})
	e = &entry{name: q.name, moving: moving, users: 1}
	r.entries[q.name] = e
	r.open++
	r.mu.Unlock()
	in, err := r.openInstance(q)
	r.mu.Lock()
	defer r.mu.Unlock()
	if e.moving = nil; err != nil {
		delete(r.entries, q.name)
		r.open--
	}
	e.in = in
	close(moving)
	return e, nil, err
}

// evict makes room for one more instance. If it gives something to wait for, there may be room
// then; if neither that nor an error, there is now. It is called with the mutex held.
func (r *Registry) evict() (wait <-chan struct{}, err error) {
	if front := r.idle.Front(); front != nil && r.closing < mostClosing {
		r.startClosing(front.Value.(*entry))
		now := make(chan struct{})
		close(now)
		return now, nil
	}
	for _, e := range r.entries { // one that is on its way
		if e.moving != nil {
			return e.moving, nil
		}
	}
	return nil, fmt.Errorf("%w: all of the %d instances that may be open are in use", ErrBusy,
		r.opts.MaxOpen)
}

// unidle takes an instance out of those that nobody uses.
func (r *Registry) unidle(e *entry) {
	if e.place != nil {
		r.idle.Remove(e.place)
		e.place = nil
	}
}

// leaving says that an open instance is on its way to be closed. It is called with the mutex held.
func (r *Registry) leaving(e *entry) {
	r.unidle(e)
	e.moving = make(chan struct{})
	r.open--
	r.closing++
}

// startClosing closes an idle instance in the background, with the mutex held.
func (r *Registry) startClosing(e *entry) {
	r.leaving(e)
	r.work.Go(func() {
		r.closers <- struct{}{}
		err := e.in.Close(context.Background())
		<-r.closers
		if err != nil {
			r.opts.Logger.Error("an instance could not be closed cleanly; nothing that was "+
				"committed is lost",
				"instance", e.name, "error", err)
		}
		r.left(e)
	})
}

// left says that an instance is closed.
func (r *Registry) left(e *entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.entries, e.name)
	r.closing--
	close(e.moving)
}

func (r *Registry) release(e *entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e.users--; e.users > 0 {
		return
	}
	if e.drained != nil {
		close(e.drained)
		e.drained = nil
	}
	if e.moving == nil {
		e.idleAt = time.Now()
		e.place = r.idle.PushBack(e)
	}
}

// discard lets a poisoned instance go, so that the next event opens it anew.
func (r *Registry) discard(e *entry) {
	r.mu.Lock()
	if e.moving != nil {
		r.mu.Unlock()
		return
	}
	r.leaving(e)
	r.mu.Unlock()
	_ = e.in.Close(context.Background()) // it says again that it is poisoned
	r.left(e)
}

// closeIdle closes what nobody has used for long.
func (r *Registry) closeIdle() {
	tick := time.NewTicker(max(r.opts.Idle/8, time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-r.stopped:
			return
		case now := <-tick.C:
			r.mu.Lock()
			for front := r.idle.Front(); front != nil && !r.closed; front = r.idle.Front() {
				e := front.Value.(*entry)
				if now.Sub(e.idleAt) < r.opts.Idle {
					break
				}
				r.startClosing(e)
			}
			r.mu.Unlock()
		}
	}
}

// openInstance opens or creates the state of a name.
func (r *Registry) openInstance(q request) (*mmrun.Instance, error) {
	ctx := context.Background() // the instance outlives who asked for it first
	p := placeOf(q.name)
	dir := p.dir(r.dir)
	hash, err := mmrun.StateModule(dir)
	exists := !errors.Is(err, mmrun.ErrNotExist)
	if exists && err != nil {
		return nil, err
	}
	var m *mmrun.Module
	opts := []mmrun.Option{}
	if exists {
		m, err = r.modules.byHash(ctx, hash)
	} else {
		if !q.create {
			return nil, fmt.Errorf("instance %q: %w", q.name, ErrNotExist)
		}
		if m, err = r.modules.byName(q.module); err == nil {
			err = r.prepare(q.name, p)
		}
		opts = append(opts, mmrun.WithModuleLink(func(path string) error {
			return r.modules.link(m,
				path)
		}))
	}
	if err != nil {
		return nil, fmt.Errorf("instance %q: %w", q.name, err)
	}
	if r.opts.Instance != nil {
		opts = append(opts, r.opts.Instance(q.name)...)
	}
	in, err := m.Open(ctx, dir, opts...)
	if err == nil && !exists && q.made != nil {
		*q.made = true
	}
	if err != nil && !exists {
		r.counted(-1)
	}
	return in, err
}

// prepare makes the place of a new instance.
func (r *Registry) prepare(name string, p place) error {
	if err := r.counted(1); err != nil {
		return err
	}
	err := r.makePlace(name, p)
	if err != nil {
		r.counted(-1)
	}
	return err
}

func (r *Registry) makePlace(name string, p place) error {
	shard := filepath.Join(r.dir, instancesName, p.shard)
	err := os.Mkdir(shard, 0o777)
	if err == nil {
		err = syncDir(filepath.Dir(shard))
	}
	if err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	if !p.isLong() {
		return nil
	}
	return writeFile(p.dir(r.dir)+nameSuffix, []byte(name))
}

// counted counts one instance more or less, if anybody counts.
func (r *Registry) counted(by int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.count < 0 {
		return nil
	}
	if by > 0 && r.count >= r.opts.MaxInstances {
		return fmt.Errorf("%w: there are %d", ErrTooMany, r.count)
	}
	r.count += by
	return nil
}

// Peek gives an instance that is open to fn, and tells whether it was. It opens nothing and creates
// nothing.
func (r *Registry) Peek(name string, fn func(in *mmrun.Instance) error) (open bool, err error) {
	r.mu.Lock()
	e := r.entries[name]
	if open = e != nil && e.moving == nil && !r.closed; open {
		r.unidle(e)
		e.users++
	}
	r.mu.Unlock()
	if !open {
		return false, nil
	}
	defer r.release(e)
	return true, fn(e.in)
}

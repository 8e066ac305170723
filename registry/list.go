package registry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/mmrun/mmrun"
)

// All gives the names of all instances, in no order that means anything, but always in the same
// one. What is created or deleted meanwhile may be among them or not.
func (r *Registry) All() iter.Seq2[string, error] { return r.after(place{}) }

// List gives up to limit names behind one in the order of All; "" is before the first. next is what
// to ask on with, "" at the end.
func (r *Registry) List(after string, limit int) (names []string, next string, err error) {
	from := place{}
	if after != "" {
		from = placeOf(after)
	}
	for name, err := range r.after(from) {
		if err != nil {
			return nil, "", err
		}
		if len(names) == limit {
			return names, names[limit-1], nil
		}
		names = append(names, name)
	}
	return names, "", nil
}

// after gives the names of what lies behind a place.
func (r *Registry) after(from place) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		shards, err := os.ReadDir(filepath.Join(r.dir, instancesName))
		if err != nil {
			yield("", fmt.Errorf("registry: %w", err))
			return
		}
		for _, shard := range shards { // sorted
			if shard.Name() < from.shard {
				continue
			}
			found, err := os.ReadDir(filepath.Join(r.dir, instancesName, shard.Name()))
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				yield("", fmt.Errorf("registry: %w", err))
				return
			}
			for _, e := range found {
				p := place{shard.Name(), e.Name()}
				if !e.IsDir() || p.shard == from.shard && p.base <= from.base {
					continue
				}
				name, ok := nameOf(r.dir, p.shard, p.base)
				if ok && isState(p.dir(r.dir)) && !yield(name, nil) {
					return
				}
			}
		}
	}
}

// isState tells whether a creation has come to its end.
func isState(dir string) bool {
	_, err := os.Lstat(filepath.Join(dir, "globals"))
	return err == nil
}

// Exists tells whether there is an instance of that name.
func (r *Registry) Exists(name string) (bool, error) {
	if err := checkName(name); err != nil {
		return false, err
	}
	return isState(placeOf(name).dir(r.dir)), nil
}

// Dir is the state directory of an instance, whether it exists or not.
func (r *Registry) Dir(name string) string { return placeOf(name).dir(r.dir) }

// IsOpen gives the numbers of an instance that is open, without opening it.
func (r *Registry) IsOpen(name string) (stats mmrun.Stats, open bool) {
	r.mu.Lock()
	e := r.entries[name]
	if e == nil || e.in == nil || e.moving != nil {
		r.mu.Unlock()
		return stats, false
	}
	in := e.in
	r.mu.Unlock()
	return in.Stats(), true
}

// OpenNames are the names of the instances that are open, sorted.
func (r *Registry) OpenNames() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	names := make([]string, 0, len(r.entries))
	for name, e := range r.entries {
		if e.in != nil && e.moving == nil {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, cmp.Compare)
	return names
}

// Delete removes an instance and all it holds, once the events that run or wait have ended. It is
// gone at once, and whole: a crash leaves it or nothing of it.
func (r *Registry) Delete(ctx context.Context, name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	e, err := r.claim(ctx, name)
	if err != nil {
		return err
	}
	defer r.left(e)
	if e.in != nil {
		// Its last checkpoint is for nothing, but it closes the files in order.
		if err := e.in.Close(context.Background()); err != nil {
			r.opts.Logger.Error("closed to be deleted", "instance", name, "error", err)
		}
	}
	return r.remove(name)
}

// claim keeps everybody else from an instance, when those who are there have left.
func (r *Registry) claim(ctx context.Context, name string) (*entry, error) {
	for {
		e, wait, err := r.tryClaim(name)
		if err != nil {
			return nil, err
		}
		if wait == nil {
			return e, nil
		}
		select {
		case <-wait:
		case <-ctx.Done():
			err = fmt.Errorf("instance %q: %w", name, ctx.Err())
		}
		if e == nil && err == nil {
			continue // it was on its way
		}
		if err == nil {
			return e, nil
		}
		if e != nil {
			r.unclaim(e)
		}
		return nil, err
	}
}

// tryClaim gives what to wait for: with an entry, for its users, who are its last ones.
func (r *Registry) tryClaim(name string) (e *entry, wait <-chan struct{}, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e = r.entries[name]
	switch {
	case r.closed:
		return nil, nil, ErrClosed
	case e != nil && e.moving != nil:
		return nil, e.moving, nil
	case e == nil && !isState(placeOf(name).dir(r.dir)):
		return nil, nil, fmt.Errorf("instance %q: %w", name, ErrNotExist)
	case e == nil:
		e = &entry{name: name}
		r.entries[name] = e
		r.open++
	}
	r.leaving(e)
	if e.users == 0 {
		return e, nil, nil
	}
	e.drained = make(chan struct{})
	return e, e.drained, nil
}

// unclaim takes a claim back whose users have not left in time.
func (r *Registry) unclaim(e *entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	close(e.moving)
	e.moving = nil
	r.open++
	r.closing--
	if e.drained = nil; e.users == 0 {
		e.idleAt = time.Now()
		e.place = r.idle.PushBack(e)
	}
}

// remove moves an instance to the trash, and takes it away there.
func (r *Registry) remove(name string) error {
	p := placeOf(name)
	dir := p.dir(r.dir)
	trash, err := os.MkdirTemp(filepath.Join(r.dir, trashName), "")
	if err == nil {
		err = os.Rename(dir, filepath.Join(trash, p.base))
	}
	if err == nil {
		err = syncDir(filepath.Dir(dir))
	}
	if err == nil && p.isLong() {
		err = os.Remove(dir + nameSuffix)
	}
	if err != nil {
		return fmt.Errorf("instance %q: %w", name, err)
	}
	_ = r.counted(-1)
	return os.RemoveAll(trash)
}

// emptyTrash takes away what a delete that was cut off has left.
func emptyTrash(data string) error {
	return removeContents(filepath.Join(data, trashName))
}

func removeContents(dir string) error {
	found, err := os.ReadDir(dir)
	for _, e := range found {
		err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
	}
	return err
}

// writeFile makes a file of that content durable, or leaves what was there.
func writeFile(path string, data []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+strconv.Itoa(os.Getpid())+"-*.tmp")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	if _, err = f.Write(data); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Chmod(f.Name(), 0o644)
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

package peers

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
)

func pebblePeers() []Peer {
	const settings = "cache of 256 MiB, memtables of 64 MiB"
	return []Peer{
		{Name: "Pebble NoSync", Safety: Nothing,
			Settings: settings + "; buffers in the process: a kill loses the last commits",
			Open:     func(o Options) (Store, error) { return openPebble(o, pebble.NoSync) }},
		{Name: "Pebble Sync", Safety: Power, Settings: settings,
			Open: func(o Options) (Store, error) { return openPebble(o, pebble.Sync) }},
	}
}

type pebbleStore struct {
	db    *pebble.DB
	write *pebble.WriteOptions
}

// silent drops messages; a fatal one is a panic.
type silent struct{}

func (silent) Infof(string, ...any)           {}
func (silent) Errorf(string, ...any)          {}
func (silent) Fatalf(format string, a ...any) { panic(fmt.Sprintf(format, a...)) }

func openPebble(o Options, write *pebble.WriteOptions) (Store, error) {
	cache := pebble.NewCache(256 << 20)
	defer cache.Unref() // the database holds it
	db, err := pebble.Open(o.Dir, &pebble.Options{Logger: silent{}, Cache: cache,
		MemTableSize: 64 << 20})
	if err != nil {
		return nil, err
	}
	return &pebbleStore{db, write}, nil
}

// Increment reads, adds and writes, as one does without a merge operator.
func (s *pebbleStore) Increment(counter uint32) error {
	n, err := s.Count(counter)
	if err != nil {
		return err
	}
	return s.db.Set(counterKey(counter), bytesOfNumber(n+1), s.write)
}

func (s *pebbleStore) Count(counter uint32) (uint64, error) {
	value, closer, err := s.db.Get(counterKey(counter))
	if errors.Is(err, pebble.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return number(value), closer.Close()
}

func (s *pebbleStore) batch(batch []Entry, write *pebble.WriteOptions) error {
	b := s.db.NewBatch()
	for i := range batch {
		if err := b.Set(batch[i].Key[:], batch[i].Value[:], nil); err != nil {
			return errors.Join(err, b.Close())
		}
	}
	return errors.Join(b.Commit(write), b.Close())
}

func (s *pebbleStore) Load(n uint32) error {
	err := inBatches(n, func(batch []Entry) error { return s.batch(batch, pebble.NoSync) })
	if err != nil {
		return err
	}
	if err := s.db.Flush(); err != nil {
		return err
	}
	return s.db.Compact(ctx, []byte{0}, []byte{255, 255, 255}, false)
}

func (s *pebbleStore) Put(e *Entry) error         { return s.db.Set(e.Key[:], e.Value[:], s.write) }
func (s *pebbleStore) PutAll(batch []Entry) error { return s.batch(batch, s.write) }

func (s *pebbleStore) Get(k *Key, v *Value) error {
	value, closer, err := s.db.Get(k[:])
	if errors.Is(err, pebble.ErrNotFound) {
		return ErrNoKey
	}
	if err != nil {
		return err
	}
	copy(v[:], value)
	return closer.Close()
}

func (s *pebbleStore) Close() error { return s.db.Close() }

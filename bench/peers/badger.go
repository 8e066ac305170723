package peers

import (
	"errors"

	"github.com/dgraph-io/badger/v4"
)

func badgerPeers() []Peer {
	peer := func(name string, safety Safety, sync bool) Peer {
		settings := "default options"
		if sync {
			settings += ", SyncWrites"
		}
		return Peer{Name: name, Safety: safety, Settings: settings,
			Open: func(o Options) (Store, error) { return openBadger(o, sync) }}
	}
	return []Peer{peer("Badger", Kill, false), peer("Badger SyncWrites", Power, true)}
}

type badgerStore struct{ db *badger.DB }

func openBadger(o Options, sync bool) (Store, error) {
	db, err := badger.Open(badger.DefaultOptions(o.Dir).WithSyncWrites(sync).WithLogger(nil))
	if err != nil {
		return nil, err
	}
	return &badgerStore{db}, nil
}

func (s *badgerStore) Increment(counter uint32) error {
	return s.db.Update(func(tx *badger.Txn) error {
		n, err := counterIn(tx, counter)
		if err != nil {
			return err
		}
		return tx.Set(counterKey(counter), bytesOfNumber(n+1))
	})
}

func counterIn(tx *badger.Txn, counter uint32) (n uint64, err error) {
	item, err := tx.Get(counterKey(counter))
	if errors.Is(err, badger.ErrKeyNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	err = item.Value(func(value []byte) error {
		n = number(value)
		return nil
	})
	return n, err
}

func (s *badgerStore) Count(counter uint32) (n uint64, err error) {
	err = s.db.View(func(tx *badger.Txn) error {
		n, err = counterIn(tx, counter)
		return err
	})
	return n, err
}

func (s *badgerStore) Load(n uint32) error {
	batch := s.db.NewWriteBatch()
	defer batch.Cancel()
	for i := range n {
		k, v := KeyOf(i), ValueOf(i, 0)
		if err := batch.Set(k[:], v[:]); err != nil {
			return err
		}
	}
	if err := batch.Flush(); err != nil {
		return err
	}
	return s.db.Sync()
}

func (s *badgerStore) Put(e *Entry) error {
	return s.db.Update(func(tx *badger.Txn) error { return tx.Set(e.Key[:], e.Value[:]) })
}

func (s *badgerStore) PutAll(batch []Entry) error {
	return s.db.Update(func(tx *badger.Txn) error {
		for i := range batch {
			if err := tx.Set(batch[i].Key[:], batch[i].Value[:]); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *badgerStore) Get(k *Key, v *Value) error {
	return s.db.View(func(tx *badger.Txn) error {
		item, err := tx.Get(k[:])
		if errors.Is(err, badger.ErrKeyNotFound) {
			return ErrNoKey
		}
		if err != nil {
			return err
		}
		return item.Value(func(value []byte) error {
			copy(v[:], value)
			return nil
		})
	})
}

func (s *badgerStore) Close() error { return s.db.Close() }

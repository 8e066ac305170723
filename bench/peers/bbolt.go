package peers

import (
	"encoding/binary"
	"errors"
	"path/filepath"

	"go.etcd.io/bbolt"
)

func bboltPeers() []Peer {
	peer := func(name string, safety Safety, noSync bool) Peer {
		settings := "NoFreelistSync, FreelistType map"
		if noSync {
			settings += ", NoSync"
		}
		return Peer{Name: name, Safety: safety, Settings: settings,
			Open: func(o Options) (Store, error) { return openBbolt(o, noSync) }}
	}
	return []Peer{peer("bbolt NoSync", Kill, true), peer("bbolt", Power, false)}
}

type bboltStore struct{ db *bbolt.DB }

var (
	bucket   = []byte("kv")
	counters = []byte("counters")
)

func openBbolt(o Options, noSync bool) (Store, error) {
	db, err := bbolt.Open(filepath.Join(o.Dir, "db"), 0o600, &bbolt.Options{
		NoSync: noSync, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType})
	if err != nil {
		return nil, err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{bucket, counters} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &bboltStore{db}, nil
}

func number(b []byte) uint64 {
	if len(b) != 8 {
		return 0
	}
	return binary.LittleEndian.Uint64(b)
}

// counterKey is shorter than the keys of the table.
func counterKey(counter uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte("#"),
		counter)
}

func bytesOfNumber(n uint64) []byte { return binary.LittleEndian.AppendUint64(nil, n) }

func (s *bboltStore) Increment(counter uint32) error {
	return s.db.Update(func(tx *bbolt.Tx) error {
		b, key := tx.Bucket(counters), counterKey(counter)
		return b.Put(key, bytesOfNumber(number(b.Get(key))+1))
	})
}

func (s *bboltStore) Count(counter uint32) (n uint64, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		n = number(tx.Bucket(counters).Get(counterKey(counter)))
		return nil
	})
	return n, err
}

// Load inserts in the order of the keys and fills pages well, as its documentation advises.
func (s *bboltStore) Load(n uint32) error {
	const batch = 50_000
	order := inKeyOrder(n)
	for at := 0; at < len(order); at += batch {
		err := s.db.Update(func(tx *bbolt.Tx) error {
			b := tx.Bucket(bucket)
			b.FillPercent = 0.9
			for _, i := range order[at:min(at+batch, len(order))] {
				k, v := KeyOf(i), ValueOf(i, 0)
				if err := b.Put(k[:], v[:]); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return s.db.Sync()
}

func (s *bboltStore) Put(e *Entry) error {
	return s.db.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucket).Put(e.Key[:], e.Value[:])
	})
}

func (s *bboltStore) PutAll(batch []Entry) error {
	return s.db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucket)
		for i := range batch {
			// A value must stay as it is until the commit; the batch does.
			if err := b.Put(batch[i].Key[:], batch[i].Value[:]); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *bboltStore) Get(k *Key, v *Value) error {
	return s.db.View(func(tx *bbolt.Tx) error {
		value := tx.Bucket(bucket).Get(k[:])
		if value == nil {
			return ErrNoKey
		}
		copy(v[:], value)
		return nil
	})
}

func (s *bboltStore) Close() error { return s.db.Close() }

package peers

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
)

// filePeers are the floor: what the operating system takes for the bytes alone.
func filePeers() []Peer {
	peer := func(name string, safety Safety, settings string, f fileStore) Peer {
		return Peer{Name: name, Safety: safety, Settings: settings, Floor: true,
			Open: func(o Options) (Store, error) { return openFile(o, f) }}
	}
	const small = "into a file that was written in pieces of 4 KiB, so that its page cache has " +
		"small folios"
	return []Peer{
		peer("pwrite 4 KiB", Kill, small, fileStore{whole: true, piece: pageSize}),
		peer("pwrite 4 KiB, large folios", Kill,
			"into a file that was written in one large write", fileStore{whole: true,
				piece: fileSize}),
		peer("pwrite", Kill, "of the bytes that change, "+small, fileStore{piece: pageSize}),
		peer("pwrite+fdatasync", Power, "of the bytes that change, over blocks that are written",
			fileStore{piece: pageSize, sync: true}),
	}
}

// fileSize is what a file without a table has.
const fileSize = 8 << 20

// fileStore has the counters first, and behind them a slot of 128 bytes for each key, as
// 32 of them fit into a page. Which slot a key has is kept in memory: a floor does not look it up.
type fileStore struct {
	f     *os.File
	sync  bool
	whole bool // the counter is written as a page
	piece int
	area  []byte // the counters
	slots map[Key]uint32
}

const (
	slotSize    = 128
	counterArea = 128 << 10 // bytes, 8 a counter
)

func openFile(o Options, form fileStore) (Store, error) {
	f, err := os.OpenFile(filepath.Join(o.Dir, "file"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	s := form
	s.f = f
	info, err := f.Stat()
	if err == nil && info.Size() == 0 {
		piece := make([]byte, s.piece)
		for at := 0; at < fileSize && err == nil; at += s.piece {
			_, err = f.Write(piece)
		}
		err = errors.Join(err, f.Sync())
	}
	if err == nil {
		s.area = make([]byte, counterArea)
		_, err = f.ReadAt(s.area, 0)
	}
	if err == nil {
		s.slots = make(map[Key]uint32, o.Keys)
		for i := range o.Keys {
			s.slots[KeyOf(i)] = i
		}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &s, nil
}

func (s *fileStore) write(b []byte, at int64) error {
	if _, err := s.f.WriteAt(b, at); err != nil {
		return err
	}
	return nil
}

func (s *fileStore) synced(err error) error {
	if err != nil || !s.sync {
		return err
	}
	return fdatasync(s.f)
}

func (s *fileStore) Increment(counter uint32) error {
	from, n := 8*int(counter), 8
	b := s.area[from : from+n]
	binary.LittleEndian.PutUint64(b, binary.LittleEndian.Uint64(b)+1)
	if s.whole {
		from -= from % pageSize
		n = pageSize
	}
	return s.synced(s.write(s.area[from:from+n], int64(from)))
}

func (s *fileStore) Count(counter uint32) (uint64, error) {
	var b [8]byte
	_, err := s.f.ReadAt(b[:], int64(8*counter))
	return binary.LittleEndian.Uint64(b[:]), err
}

func (s *fileStore) at(k *Key) (int64, error) {
	i, ok := s.slots[*k]
	if !ok {
		return 0, ErrNoKey
	}
	return counterArea + int64(i)*slotSize, nil
}

func (s *fileStore) Load(n uint32) error {
	var page [pageSize]byte
	const perPage = pageSize / slotSize
	for at := uint32(0); at < n; at += perPage {
		for i := range uint32(perPage) {
			k, v := KeyOf(at+i), ValueOf(at+i, 0)
			copy(page[i*slotSize:], k[:])
			copy(page[i*slotSize+KeySize:], v[:])
		}
		if err := s.write(page[:], counterArea+int64(at)*slotSize); err != nil {
			return err
		}
	}
	return s.f.Sync()
}

func (s *fileStore) put(e *Entry) error {
	at, err := s.at(&e.Key)
	if err != nil {
		return err
	}
	return s.write(e.Value[:], at+KeySize)
}

func (s *fileStore) Put(e *Entry) error { return s.synced(s.put(e)) }

// PutAll is not one commit: a kill leaves a part. It is a floor, not a way to keep data.
func (s *fileStore) PutAll(batch []Entry) error {
	for i := range batch {
		if err := s.put(&batch[i]); err != nil {
			return err
		}
	}
	return s.synced(nil)
}

func (s *fileStore) Get(k *Key, v *Value) error {
	at, err := s.at(k)
	if err != nil {
		return err
	}
	_, err = s.f.ReadAt(v[:], at+KeySize)
	return err
}

func (s *fileStore) Close() error { return s.f.Close() }

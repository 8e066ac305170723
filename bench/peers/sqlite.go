package peers

import (
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	_ "github.com/mattn/go-sqlite3" // the driver "sqlite3", in C
	_ "modernc.org/sqlite"          // the driver "sqlite", in Go
)

// sqlitePeers: write-ahead log, prepared statements, one connection, a cache for all of the data
// (a guest has it in memory, too).
func sqlitePeers() []Peer {
	var peers []Peer
	for _, driver := range []struct{ name, driver string }{
		{"SQLite", "sqlite3"}, {"SQLite in Go", "sqlite"},
	} {
		for _, synchronous := range []string{"OFF", "NORMAL", "FULL"} {
			safety := Kill
			if synchronous == "FULL" {
				safety = Power
			}
			peers = append(peers, Peer{Name: driver.name + " " + synchronous, Safety: safety,
				Settings: "journal_mode=WAL, synchronous=" + synchronous +
					", cache_size=512 MiB, prepared statements, BLOB keys WITHOUT ROWID",
				Open: func(o Options) (Store, error) {
					return openSQLite(driver.driver, o,
						synchronous)
				}})
		}
	}
	return peers
}

type sqliteStore struct {
	db                        *sql.DB
	conn                      *sql.Conn
	inc, count, set, get, add *sql.Stmt
	begin, commit, rollback   *sql.Stmt
}

func openSQLite(driver string, o Options, synchronous string) (_ Store, err error) {
	db, err := sql.Open(driver, "file:"+filepath.Join(o.Dir, "db"))
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	s := &sqliteStore{db: db}
	if s.conn, err = db.Conn(ctx); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	for _, statement := range []string{
		"PRAGMA journal_mode=WAL",
		"PRAGMA synchronous=" + synchronous,
		"PRAGMA cache_size=-524288",
		"CREATE TABLE IF NOT EXISTS counter(id INTEGER PRIMARY KEY, n INTEGER)",
		"CREATE TABLE IF NOT EXISTS kv(k BLOB PRIMARY KEY, v BLOB) WITHOUT ROWID",
	} {
		if _, err := s.conn.ExecContext(ctx, statement); err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w", statement, err), s.Close())
		}
	}
	for _, p := range []struct {
		into **sql.Stmt
		text string
	}{
		{&s.inc, "UPDATE counter SET n=n+1 WHERE id=?"},
		{&s.count, "SELECT n FROM counter WHERE id=?"},
		{&s.set, "UPDATE kv SET v=? WHERE k=?"},
		{&s.get, "SELECT v FROM kv WHERE k=?"},
		{&s.add, "INSERT INTO kv VALUES(?, ?)"},
		{&s.begin, "BEGIN"}, {&s.commit, "COMMIT"}, {&s.rollback, "ROLLBACK"},
	} {
		if *p.into, err = s.conn.PrepareContext(ctx, p.text); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	return s, nil
}

func (s *sqliteStore) Increment(counter uint32) error {
	result, err := s.inc.ExecContext(ctx, counter)
	if err != nil {
		return err
	}
	if n, err := result.RowsAffected(); n == 1 || err != nil {
		return err
	}
	_, err = s.conn.ExecContext(ctx, "INSERT INTO counter VALUES(?, 1)", counter)
	return err
}

func (s *sqliteStore) Count(counter uint32) (n uint64, err error) {
	err = s.count.QueryRowContext(ctx, counter).Scan(&n)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	return n, err
}

// within makes one transaction of what fn does.
func (s *sqliteStore) within(fn func() error) error {
	if _, err := s.begin.ExecContext(ctx); err != nil {
		return err
	}
	if err := fn(); err != nil {
		_, e := s.rollback.ExecContext(ctx)
		return errors.Join(err, e)
	}
	_, err := s.commit.ExecContext(ctx)
	return err
}

// Load inserts in the order of the keys, which is the fast way.
func (s *sqliteStore) Load(n uint32) error {
	err := s.within(func() error {
		for _, i := range inKeyOrder(n) {
			k, v := KeyOf(i), ValueOf(i, 0)
			if _, err := s.add.ExecContext(ctx, k[:], v[:]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	_, err = s.conn.ExecContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)")
	return err
}

// inKeyOrder are the indices 0 to n-1 by their keys.
func inKeyOrder(n uint32) []uint32 {
	order := make([]uint32, n)
	for i := range order {
		order[i] = uint32(i)
	}
	slices.SortFunc(order, func(a, b uint32) int {
		x, y := KeyOf(a), KeyOf(b)
		return slices.Compare(x[:], y[:])
	})
	return order
}

func (s *sqliteStore) Put(e *Entry) error {
	result, err := s.set.ExecContext(ctx, e.Value[:], e.Key[:])
	if err != nil {
		return err
	}
	if n, err := result.RowsAffected(); err != nil || n != 1 {
		return errors.Join(err, ErrNoKey)
	}
	return nil
}

func (s *sqliteStore) PutAll(batch []Entry) error {
	return s.within(func() error {
		for i := range batch {
			if err := s.Put(&batch[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *sqliteStore) Get(k *Key, v *Value) error {
	rows, err := s.get.QueryContext(ctx, k[:])
	if err != nil {
		return err
	}
	defer rows.Close()
	if !rows.Next() {
		return errors.Join(rows.Err(), ErrNoKey)
	}
	var value sql.RawBytes
	if err := rows.Scan(&value); err != nil {
		return err
	}
	copy(v[:], value)
	return nil
}

func (s *sqliteStore) Close() error { return errors.Join(s.conn.Close(), s.db.Close()) }

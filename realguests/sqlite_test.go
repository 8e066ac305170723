package realguests

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

// sqliteGuest is SQLite with an in-memory database, through its C API. Each statement is an event,
// so the kills fall into transactions.
func sqliteGuest() *guest {
	exec := func(sql, want string) event {
		return event{func(s *session) (string, error) {
			return s.query(s.recall()["db"], sql),
				nil
		}, want}
	}
	return &guest{
		name: "sqlite",
		wasm: func(tb testing.TB) []byte {
			return readFile(tb, moduleFile(tb, "github.com/ncruces/go-sqlite3",
				"embed/sqlite3.wasm"))
		},
		host: sqliteHost,
		events: []event{
			{func(s *session) (string, error) {
				db := s.openDatabase()
				s.remember(map[string]uint64{"db": db})
				return s.query(db, "select sqlite_version() > '3'"), nil
			}, "1"},
			exec("create table account (id integer primary key, owner text unique, balance int, "+
				"note blob)", ""),
			exec(`with recursive n(i) as (select 1 union all select i+1 from n where i < 5000)
				insert into account
					select i, 'owner-' || i, 100, randomblob(20 + i % 50) from n`, ""),
			exec("begin", ""),
			exec("update account set balance = balance - 40 where id = 7", ""),
			exec("insert into account values (null, 'late', 40, datetime('now'))", ""),
			exec("update account set note = hex(randomblob(50)) where id % 10 = 3", ""),
			exec("savepoint inner", ""),
			exec("delete from account where id > 100", ""),
			exec("select count(*) from account", "100"),
			exec("rollback to inner", ""),
			exec("select count(*) from account", "5001"),
			exec("commit", ""),
			exec("select sum(balance), count(*), max(id) from account", "500000|5001|5001"),
			exec("create index by_note on account(note)", ""),
			exec("begin", ""),
			exec("delete from account where owner like '%9'", ""),
			exec("select count(*) from account", "4501"),
			exec("rollback", ""),
			{func(s *session) (string, error) {
				// A statement that stays half-way from event to event.
				handles := s.recall()
				stmt := s.prepare(handles["db"], "select owner from account order by note, id")
				row := s.step(stmt)
				handles["stmt"] = stmt
				s.remember(handles)
				return row, nil
			}, ""},
			{func(s *session) (string, error) {
				return s.step(s.recall()["stmt"]) + s.step(s.recall()["stmt"]), nil
			}, ""},
			{func(s *session) (string, error) {
				row := s.step(s.recall()["stmt"])
				s.call("sqlite3_finalize", s.recall()["stmt"])
				return row, nil
			}, ""},
			exec("pragma integrity_check", "ok"),
			exec("insert into account (owner) values ('late')",
				"error: UNIQUE constraint failed: account.owner"),
			exec("select total(length(note)) > 0, count(distinct note) > 4000 from account", "1|1"),
		},
		small: func(s *session, i uint64) {
			s.query(s.recall()["db"],
				"update account set balance = balance + 1 where id = "+
					""+strconv.FormatUint(i*7919%5000+1, 10))
		},
	}
}

// sqliteHost has the three imports that an in-memory database needs. The others end the event.
func sqliteHost(rt wazero.Runtime, w *world) error {
	compiled := map[string]api.GoModuleFunc{
		"go_vfs_find": func(_ context.Context, _ api.Module, stack []uint64) { stack[0] = 1 },
		"go_randomness": func(_ context.Context, mod api.Module, stack []uint64) {
			b, ok := mod.Memory().Read(uint32(stack[2]), uint32(stack[1]))
			if !ok {
				panic("go_randomness: out of memory")
			}
			_, _ = randomSource{w}.Read(b)
			stack[0] = uint64(len(b))
		},
		"go_current_time_64": func(_ context.Context, mod api.Module, stack []uint64) {
			w.touch()
			const julianUnixEpoch = 210_866_760_000_000 // ms
			mod.Memory().WriteUint64Le(uint32(stack[1]), uint64(julianUnixEpoch+w.unixMilli()))
			stack[0] = 0
		},
	}
	signatures := map[string]string{ // parameters, then the result; i is i32, I is i64
		"go_vfs_find": "i:i", "go_full_pathname": "iiii:i", "go_access": "iiii:i",
		"go_delete":          "iii:i",
		"go_current_time_64": "ii:i", "go_randomness": "iii:i", "go_sleep": "ii:i",
		"go_busy_timeout": "ii:i",
		"go_func":         "iiii:", "go_step": "iiiii:", "go_value": "iiii:", "go_inverse": "iiii:",
		"go_collation_needed": "iiii:", "go_compare": "iiiii:i", "go_destroy": "i:",
		"go_progress_handler": "i:i",
		"go_busy_handler":     "ii:i", "go_commit_hook": "i:i", "go_rollback_hook": "i:",
		"go_update_hook": "iiiiI:",
		"go_wal_hook":    "iiii:i", "go_authorizer": "iiiiii:i", "go_trace": "iiii:i",
		"go_log":              "iii:",
		"go_autovacuum_pages": "iiiii:i", "go_open": "iiiiii:i", "go_localtime": "iI:i",
		"go_cur_rowid":  "ii:i",
		"go_cur_column": "iii:i", "go_cur_eof": "i:i", "go_cur_next": "i:i",
		"go_cur_filter":      "iiiii:i",
		"go_vtab_best_index": "ii:i", "go_vtab_update": "iiii:i", "go_vtab_rename": "ii:i",
		"go_vtab_rollback": "i:i",
		"go_vtab_commit":   "i:i", "go_vtab_sync": "i:i", "go_vtab_begin": "i:i",
		"go_vtab_rollback_to": "ii:i",
		"go_vtab_release":     "ii:i", "go_vtab_savepoint": "ii:i", "go_vtab_connect": "iiiii:i",
		"go_vtab_disconnect": "i:i", "go_cur_open": "ii:i", "go_cur_close": "i:i",
		"go_vtab_create":  "iiiii:i",
		"go_vtab_destroy": "i:i", "go_vtab_find_function": "iiii:i", "go_vtab_integrity": "iiiii:i",
		"go_close": "i:i",
		"go_read":  "iiiI:i", "go_write": "iiiI:i", "go_truncate": "iI:i", "go_sync": "ii:i",
		"go_file_size": "ii:i",
		"go_lock":      "ii:i", "go_unlock": "ii:i", "go_check_reserved_lock": "ii:i",
		"go_file_control": "iii:i",
		"go_sector_size":  "i:i", "go_device_characteristics": "i:i", "go_shm_map": "iiiii:i",
		"go_shm_lock":    "iiii:i",
		"go_shm_barrier": "i:", "go_shm_unmap": "ii:i",
	}
	return hostModule(rt, "env", signatures, compiled)
}

// hostModule exports functions by signature. Those that are not implemented fail loudly.
func hostModule(rt wazero.Runtime, name string, signatures map[string]string,
	implemented map[string]api.GoModuleFunc) error {
	types := func(s string) []api.ValueType {
		list := []api.ValueType{}
		for _, c := range s {
			list = append(list, map[rune]api.ValueType{
				'i': api.ValueTypeI32, 'I': api.ValueTypeI64, 'f': api.ValueTypeF32,
				'F': api.ValueTypeF64}[c])
		}
		return list
	}
	b := rt.NewHostModuleBuilder(name)
	for function, signature := range signatures {
		params, results, _ := strings.Cut(signature, ":")
		f, ok := implemented[function]
		if !ok {
			f = func(context.Context, api.Module, []uint64) {
				panic(function +
					" is not implemented")
			}
		}
		b.NewFunctionBuilder().WithGoModuleFunction(f, types(params),
			types(results)).Export(function)
	}
	_, err := b.Instantiate(ctx)
	return err
}

func (s *session) openDatabase() uint64 {
	const readWrite, create = 0x2, 0x4
	name := s.cstring("sqlite3_malloc64", ":memory:")
	handle := s.call("sqlite3_malloc64", 4)
	if rc := s.call("sqlite3_open_v2", name, handle, readWrite|create, 0); rc != 0 {
		s.fail("sqlite3_open_v2: %d", rc)
	}
	db := s.word(handle)
	s.call("sqlite3_free", name)
	s.call("sqlite3_free", handle)
	return db
}

func (s *session) prepare(db uint64, sql string) (stmt uint64) {
	const toTheEnd = 1<<32 - 1
	text := s.cstring("sqlite3_malloc64", sql)
	out := s.call("sqlite3_malloc64", 4)
	if rc := s.call("sqlite3_prepare_v3", db, text, toTheEnd, 0, out, 0); rc != 0 {
		s.fail("%s: %s", sql, s.text(s.call("sqlite3_errmsg", db)))
	}
	stmt = s.word(out)
	s.call("sqlite3_free", text)
	s.call("sqlite3_free", out)
	return stmt
}

// step gives the next row, or an empty string at the end.
func (s *session) step(stmt uint64) string {
	const row, done, constraint = 100, 101, 19
	switch rc := uint32(s.call("sqlite3_step", stmt)); {
	case rc == done || s.err != nil:
		return ""
	case rc&0xff == constraint:
		return "error"
	case rc != row:
		s.fail("sqlite3_step: %d", rc)
	}
	var columns []string
	for i := range s.call("sqlite3_column_count", stmt) {
		at := s.call("sqlite3_column_text", stmt, i)
		if at == 0 {
			columns = append(columns, "null")
		} else {
			columns = append(columns, s.text(at))
		}
	}
	return strings.Join(columns, "|")
}

// query runs one statement and gives its rows, one a line.
func (s *session) query(db uint64, sql string) string {
	stmt := s.prepare(db, sql)
	var rows []string
	for s.err == nil {
		row := s.step(stmt)
		if row == "" {
			break
		}
		if row == "error" {
			rows = append(rows, fmt.Sprintf("error: %s", s.text(s.call("sqlite3_errmsg", db))))
			break
		}
		rows = append(rows, row)
	}
	s.call("sqlite3_finalize", stmt)
	return strings.Join(rows, "\n")
}

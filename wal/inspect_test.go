package wal

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/mmrun/mmrun/vfs"
)

// Inspect sees what Open sees, at any point in the life of a wal, and changes nothing.
func TestInspectSeesWhatOpenSees(t *testing.T) {
	dir := t.TempDir()
	l, err := Create(vfs.OS, dir, 4*MinSize, 7)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	appendOne := func() {
		t.Helper()
		if err := l.Append(&Commit{Seq: l.LastSeq() + 1,
			Small: fmt.Appendf(nil, "commit %d", l.LastSeq()+1)}); err != nil {
			t.Fatal(err)
		}
	}
	check := func(records int) {
		t.Helper()
		before := content(t, dir)
		view, err := Inspect(vfs.OS, dir)
		if err != nil {
			t.Fatal(err)
		}
		opened, err := Open(vfs.OS, dir, 4*MinSize)
		if err != nil {
			t.Fatal(err)
		}
		defer opened.Close()
		if view.Report() != opened.Report() {
			t.Errorf("Inspect reports %+v, Open %+v", view.Report(), opened.Report())
		}
		var seen []string
		rec, err := view.Replay(7, func(r Record) error {
			seen = append(seen, string(r.Small))
			return nil
		})
		if err != nil || rec.Records != records || len(seen) != records {
			t.Errorf("%d records (%v), want %d", rec.Records, err, records)
		}
		for i, s := range seen {
			if want := fmt.Sprintf("commit %d", 8+i); s != want {
				t.Errorf("record %d is %q, want %q", i, s, want)
			}
		}
		if content(t, dir) != before {
			t.Error("the files have changed")
		}
	}
	check(0)
	appendOne()
	appendOne()
	check(2)
	if err := l.Switch(); err != nil {
		t.Fatal(err)
	}
	check(2)
	appendOne()
	check(3)
	if err := l.Sync(); err != nil {
		t.Fatal(err)
	}
	check(3)
}

func TestInspectOfMissingOrCutFiles(t *testing.T) {
	dir := t.TempDir()
	if _, err := Inspect(vfs.OS, dir); err == nil {
		t.Error("no files, no error")
	}
	l, err := Create(vfs.OS, dir, 4*MinSize, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Append(&Commit{Seq: 1}); err != nil {
		t.Fatal(err)
	}
	l.Close()
	for _, size := range []int64{headerSize + 100, headerSize, headerSize - 1, 1, 0} {
		if err := os.Truncate(filepath.Join(dir, "wal.0"), size); err != nil {
			t.Fatal(err)
		}
		view, err := Inspect(vfs.OS, dir)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := view.Replay(0, func(Record) error { return nil }); size < headerSize &&
			err == nil {
			t.Errorf("wal.0 of %d bytes: no error", size)
		}
	}
}

func content(t *testing.T, dir string) string {
	t.Helper()
	var all string
	for _, name := range []string{"wal.0", "wal.1"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		all += string(b)
	}
	return all
}

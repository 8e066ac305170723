package main

import (
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func TestEffectsAreSeenAfterTheCommitOnly(t *testing.T) {
	var seen strings.Builder
	e := &effects{to: &seen}
	write := func(s string) {
		if _, err := e.Write([]byte(s)); err != nil {
			t.Fatal(err)
		}
	}
	write("rolled back")
	e.drop()
	write("commit")
	write("ted")
	if seen.Len() > 0 {
		t.Errorf("seen before the commit: %q", seen.String())
	}
	if err := e.release(); err != nil {
		t.Fatal(err)
	}
	if err := e.release(); err != nil {
		t.Fatal(err)
	}
	if seen.String() != "committed" {
		t.Errorf("seen: %q", seen.String())
	}
	if _, err := e.Write(make([]byte, maxEffects+1)); err == nil {
		t.Error("an event may print without end")
	}
}

func TestMounts(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		text     string
		guest    string
		readOnly bool
	}{
		{dir + ":/data", "/data", false},
		{dir + ":/data:ro", "/data", true},
	} {
		m, err := parseMount(c.text)
		if err != nil || m != (mount{dir, c.guest, c.readOnly}) {
			t.Errorf("%s: %+v, %v", c.text, m, err)
		}
	}
	if runtime.GOOS == "windows" {
		if m, err := parseMount(dir); err != nil || m.host != dir {
			t.Errorf("%s: %+v, %v", dir, m, err)
		}
	}
	for _, bad := range []string{"", ":", ":/data", dir + ":",
		filepath.Join(dir, "missing") + ":/data"} {
		if m, err := parseMount(bad); err == nil {
			t.Errorf("%q is read as %+v", bad, m)
		}
	}
}

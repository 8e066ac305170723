package rewriter

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
)

func TestRewriteTwiceIsRewriteOnce(t *testing.T) {
	for _, name := range []string{"state", "tables", "segments", "reread"} {
		out, info, err := Rewrite(readModule(t, name))
		if err != nil {
			t.Fatal(err)
		}
		again, info2, err := Rewrite(out)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(again, out) {
			t.Errorf("%s: the bytes differ", name)
		}
		if !reflect.DeepEqual(info, info2) {
			t.Errorf("%s: the Info differs:\n%+v\n%+v", name, info, info2)
		}
	}
}

// forge gives a rewritten module another marker.
func forge(t *testing.T, out []byte, content []byte) []byte {
	t.Helper()
	m, err := parse(out)
	if err != nil {
		t.Fatal(err)
	}
	return appendSection(bytes.Clone(out[:m.sections[len(m.sections)-1].start]), secCustom, content)
}

func TestForgedMarkerIsRefused(t *testing.T) {
	for _, c := range []struct {
		name   string
		module string
		forge  func(*Info)
	}{
		{"a global left out", "state", func(i *Info) { i.Globals = i.Globals[1:] }},
		{"a global twice", "state", func(i *Info) { i.Globals = append(i.Globals, i.Globals[0]) }},
		{"a global that is none", "state", func(i *Info) { i.Globals[0].Index = 1 << 31 }},
		{"a constant global", "state", func(i *Info) { i.Globals[0].Index = 4 }},
		{"another global's export", "state", func(i *Info) { i.Globals[0].Export = i.Globals[1].Export }},
		{"an export that is none", "state", func(i *Info) { i.Globals[0].Export = "nothing" }},
		{"an export that is a function", "state", func(i *Info) { i.Globals[0].Export = "count" }},
		{"another type", "state", func(i *Info) { i.Globals[0].Type = I64 }},
		{"a getter of another type", "state", func(i *Info) { i.Globals[4].Getter = "count" }},
		{"a setter too many", "state", func(i *Info) { i.Globals[0].Setter = "mmrun:init" }},
		{"another memory", "state", func(i *Info) { i.Memory.Max++ }},
		{"no memory", "state", func(i *Info) { i.Memory = nil }},
		{"init of another type", "state", func(i *Info) { i.Init = "count" }},
		{"no initialize", "state", func(i *Info) { i.Initialize = false }},
		{"a segment that is none", "state", func(i *Info) { i.Segments[0].Index = 100 }},
		{"a flag that is a global of the state", "state", func(i *Info) { i.Segments[0].Dropped = "shown" }},
		{"a flag that is none", "state", func(i *Info) { i.Segments[0].Dropped = "" }},
		{"no drop", "state", func(i *Info) { i.Segments[0].Drop = "" }},
		{"all functions without need", "state", func(i *Info) { i.Func = "count" }},
		{"a table left out", "tables", func(i *Info) { i.Tables = i.Tables[1:] }},
		{"all tables left out", "tables", func(i *Info) { i.Tables = nil }},
		{"a table twice", "tables", func(i *Info) { i.Tables[1] = i.Tables[0] }},
		{"a table that is none", "tables", func(i *Info) { i.Tables[0].Index = 77 }},
		{"another table", "tables", func(i *Info) { i.Tables[0].Max++ }},
		{"a table without get", "tables", func(i *Info) { i.Tables[0].Get = "" }},
		{"a set of another type", "tables", func(i *Info) { i.Tables[0].Set = i.Tables[0].Get }},
		{"a table of references without null check", "tables", func(i *Info) { i.Tables[2].AllNull = "" }},
		{"a global of references without null check", "tables", func(i *Info) { i.Globals[1].IsNull = "" }},
		{"no flag of changed tables", "tables", func(i *Info) { i.TablesChanged = "" }},
		{"no functions", "tables", func(i *Info) { i.Func = "" }},
		{"too many functions", "tables", func(i *Info) { i.FuncCount = 1 << 30 }},
	} {
		out, info, err := Rewrite(readModule(t, c.module))
		if err != nil {
			t.Fatal(err)
		}
		c.forge(&info)
		_, _, err = Rewrite(forge(t, out, marker(info)))
		var f *FormatError
		if !errors.As(err, &f) || !strings.Contains(err.Error(), "does not belong to this module") {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestBrokenMarkerIsRefused(t *testing.T) {
	out, info, err := Rewrite(readModule(t, "state"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(info)
	if err != nil {
		t.Fatal(err)
	}
	name := appendName(nil, markerName)
	for what, content := range map[string][]byte{
		"no version":      name,
		"no JSON":         append(bytes.Clone(name), markerVersion),
		"half of it":      append(append(bytes.Clone(name), markerVersion), text[:len(text)/2]...),
		"another type":    append(append(bytes.Clone(name), markerVersion), bytes.Replace(text, []byte(`"i32"`), []byte(`"i33"`), 1)...),
		"another kind":    append(append(bytes.Clone(name), markerVersion), bytes.Replace(text, []byte(`"data"`), []byte(`"dada"`), 1)...),
		"another field":   append(append(bytes.Clone(name), markerVersion), `{"x":1}`...),
		"something else":  append(append(bytes.Clone(name), markerVersion), `[]`...),
		"null":            append(append(bytes.Clone(name), markerVersion), `null`...),
		"bytes behind it": append(marker(info), ' '),
		"other spelling":  append(append(bytes.Clone(name), markerVersion, ' '), text...),
	} {
		var f *FormatError
		if _, _, err := Rewrite(forge(t, out, content)); !errors.As(err, &f) {
			t.Errorf("%s: %v", what, err)
		}
	}
	var u *UnsupportedError
	if _, _, err := Rewrite(forge(t, out, append(append(bytes.Clone(name), 99), text...))); !errors.As(err, &u) {
		t.Errorf("later version: %v", err)
	}
	var f *FormatError
	if _, _, err := Rewrite(append(bytes.Clone(out), custom("x")...)); !errors.As(err, &f) {
		t.Errorf("a section behind the marker: %v", err)
	}
}

// What a rewrite removes must not come back under its mark: it would run at each resume.
func TestMarkedModuleWithActiveSegmentsOrStartIsRefused(t *testing.T) {
	for name, wasm := range map[string][]byte{
		"start": build(vec(secType, typeVoid), vec(secFunction, bs(0)), sec(secStart, 0), vec(secCode, bodyEmpty), appendSection(nil, secCustom, marker(Info{}))),
		"data": build(vec(secMemory, memory1), vec(secData, bs(0, 0x41, 0, 0x0b, 1, 'x')),
			appendSection(nil, secCustom, marker(Info{Memory: &Memory{Min: 1}}))),
	} {
		var f *FormatError
		if _, _, err := Rewrite(wasm); !errors.As(err, &f) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

package rewriter

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
)

func TestReadInfoGivesWhatRewriteGave(t *testing.T) {
	for _, name := range []string{"state", "tables", "segments", "reread"} {
		out, want, err := Rewrite(readModule(t, name), Options{})
		if err != nil {
			t.Fatal(err)
		}
		info, passes, err := ReadInfo(out)
		if err != nil || !reflect.DeepEqual(info, want) {
			t.Errorf("%s: %+v, %v\nwant %+v", name, info, err, want)
		}
		if !reflect.DeepEqual(passes, []string{"persist"}) {
			t.Errorf("%s: passes %q", name, passes)
		}
	}
}

// Whoever forges the mark could otherwise have code that reaches the flags and functions of a
// rewrite.
func TestMarkedModuleIsRefused(t *testing.T) {
	out, _, err := Rewrite(readModule(t, "state"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	var u *UnsupportedError
	for name, module := range map[string][]byte{
		"a rewritten one":         out,
		"with a section behind":   append(bytes.Clone(out), custom("x")...),
		"with nothing but a mark": build(custom(markerName)),
	} {
		_, _, err := Rewrite(module, Options{})
		if !errors.As(err, &u) || !strings.Contains(err.Error(), "rewritten already") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestBrokenMarkerIsRefused(t *testing.T) {
	out, info, err := Rewrite(readModule(t, "state"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(mark{Info: &info})
	if err != nil {
		t.Fatal(err)
	}
	without := bytes.TrimSuffix(out, markerOf(info))
	marked := func(content ...[]byte) []byte {
		return append(bytes.Clone(without), custom(markerName, bytes.Join(content, nil)...)...)
	}
	version := bs(markerVersion)
	change := func(from, to string) []byte {
		return bytes.Replace(text, []byte(from), []byte(to),
			1)
	}
	for what, module := range map[string][]byte{
		"no version":      marked(),
		"no JSON":         marked(version),
		"half of it":      marked(version, text[:len(text)/2]),
		"another type":    marked(version, change(`"i32"`, `"i33"`)),
		"another kind":    marked(version, change(`"data"`, `"dada"`)),
		"another field":   marked(version, []byte(`{"x":1}`)),
		"something else":  marked(version, []byte(`[]`)),
		"no mark":         without,
		"section behind":  append(bytes.Clone(out), custom("x")...),
		"no module":       []byte("(module)"),
		"cut off":         out[:len(out)-1],
		"nothing":         nil,
		"an empty module": build(),
	} {
		var f *FormatError
		if _, _, err := ReadInfo(module); !errors.As(err, &f) {
			t.Errorf("%s: %v", what, err)
		}
	}
	var u *UnsupportedError
	_, _, err = ReadInfo(marked(bs(99), text))
	if !errors.As(err, &u) || !strings.Contains(err.Error(), "version 99") ||
		!strings.Contains(err.Error(), "version 3") {
		t.Errorf("later version: %v", err)
	}
}

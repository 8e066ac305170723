package main

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

func TestUnsafeCharactersAreEscaped(t *testing.T) {
	for _, c := range []struct{ text, name, lines string }{
		{"add_1.x €", "add_1.x €", "add_1.x €"},
		{"\x1b[2J", `\x1b[2J`, `\x1b[2J`},
		{"a\nb\tc\rd", `a\nb\tc\rd`, "a\nb\tc\\rd"},
		{"\u202eabc\u2066\u200f", `\u202eabc\u2066\u200f`, `\u202eabc\u2066\u200f`},
		{"\u009b31m\u2028", `\u009b31m\u2028`, `\u009b31m\u2028`},
		{"\xff\xc3 é\xe2\x82", `\xff\xc3 é\xe2\x82`, `\xff\xc3 é\xe2\x82`},
		{"\ufffd 👩‍👧", "\ufffd 👩‍👧", "\ufffd 👩‍👧"}, // what joins emoji is no threat
	} {
		if got := escapeName(c.text); got != c.name {
			t.Errorf("name %q is shown as %s, want %s", c.text, got, c.name)
		}
		if got := escapeText(c.text); got != c.lines {
			t.Errorf("text %q is shown as %q, want %q", c.text, got, c.lines)
		}
	}
}

// However a text is cut into pieces, it comes out as if it had come in one.
func TestEscapingWriterKeepsCharactersTogether(t *testing.T) {
	piece := rapid.OneOf(rapid.String(), rapid.Map(rapid.SliceOfN(rapid.Byte(), 0, 8),
		func(b []byte) string { return string(b) }))
	rapid.Check(t, func(t *rapid.T) {
		text := strings.Join(rapid.SliceOf(piece).Draw(t, "text"), "é")
		var out bytes.Buffer
		w := &escapingWriter{to: &out}
		for rest := text; rest != ""; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "bytes")
			if got, err := w.Write([]byte(rest[:n])); got != n || err != nil {
				t.Fatalf("%d, %v", got, err)
			}
			rest = rest[n:]
		}
		if err := w.flush(); err != nil {
			t.Fatal(err)
		}
		if got, want := out.String(), escapeText(text); got != want {
			t.Fatalf("%q comes out as %q, want %q", text, got, want)
		}
		if !utf8.Valid(out.Bytes()) {
			t.Fatalf("%q is not UTF-8", out.String())
		}
	})
}

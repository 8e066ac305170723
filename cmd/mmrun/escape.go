package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"
)

// Names of exports and messages come from guests, which nobody needs to trust: what would move a
// terminal's cursor, clear its screen, turn text around or look like a line of mmrun's own is
// shown as an escape sequence of Go's instead.
//
// What mmrun itself writes for people is always escaped, to a terminal or not: a log is read on a
// terminal in the end, and a name with a line feed in it would be a second line. What the guest
// prints is the guest's: it is escaped on a terminal and passed on byte by byte to anything else.
// JSON has escapes of its own.

// unsafeRune tells which characters are not shown as they are: control characters, those that
// change the direction of the text around them, and Unicode's line and paragraph separators.
func unsafeRune(r rune) bool {
	return unicode.In(r, unicode.Cc, unicode.Bidi_Control, unicode.Zl, unicode.Zp)
}

// escapeName makes a name safe to show within a line.
func escapeName(s string) string { return escape(s, "") }

// escapeText makes a text of several lines safe to show.
func escapeText(s string) string { return escape(s, "\n\t") }

// escape replaces what is not safe to show, but the characters in but.
func escape(s, but string) string {
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n <= 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case !unsafeRune(r) || strings.ContainsRune(but, r):
			b.WriteRune(r)
		default:
			quoted := fmt.Sprintf("%+q", string(r))
			b.WriteString(quoted[1 : len(quoted)-1])
		}
		i += n
	}
	return b.String()
}

// escapingWriter escapes a text that comes in pieces. A character may be split between two.
type escapingWriter struct {
	to io.Writer

	mu   sync.Mutex
	rest []byte // the beginning of a character, shorter than utf8.UTFMax
}

func (w *escapingWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	text := append(w.rest, p...)
	whole := len(text) - len(unfinished(text))
	w.rest = append([]byte(nil), text[whole:]...)
	if _, err := io.WriteString(w.to, escapeText(string(text[:whole]))); err != nil {
		return 0, err
	}
	return len(p), nil
}

// flush writes a character that has not been finished and will not be.
func (w *escapingWriter) flush() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.rest) == 0 {
		return nil
	}
	_, err := io.WriteString(w.to, escapeText(string(w.rest)))
	w.rest = nil
	return err
}

// unfinished is the beginning of a character at the end of b.
func unfinished(b []byte) []byte {
	for n := 1; n < utf8.UTFMax && n <= len(b); n++ {
		tail := b[len(b)-n:]
		if utf8.RuneStart(tail[0]) {
			if utf8.FullRune(tail) {
				return nil
			}
			return tail
		}
	}
	return nil
}

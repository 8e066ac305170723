package section

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The document and the comments draw the same formats: it would not be noticed otherwise that one
// of them has been left behind.
func TestFormatDocumentHasTheDrawings(t *testing.T) {
	document, err := os.ReadFile(filepath.Join("..", "..", "docs", "format.md"))
	if err != nil {
		t.Fatal(err)
	}
	lines := make(map[string]bool)
	for line := range strings.Lines(string(document)) {
		lines[strings.TrimSpace(line)] = true
	}
	for _, file := range []string{"internal/section/section.go", "globalsfile/header.go",
		"globalsfile/event.go", "globalsfile/slot.go", "internal/delta/encode.go",
		"internal/binding/binding.go", "internal/pagefile/header.go", "wal/header.go",
		"internal/engine/costs.go",
		"internal/receipts/receipts.go", "internal/clock/clock.go", "internal/engine/derive.go",
		"upgrade.go", "program.go", "internal/eventnote/note.go", "internal/history/history.go",
		"internal/snapshot/format.go",
		"wal/record.go"} {
		source, err := os.ReadFile(filepath.Join("..", "..", file))
		if err != nil {
			t.Fatal(err)
		}
		drawn, inside := 0, false
		for line := range strings.Lines(string(source)) {
			switch text := strings.TrimSpace(line); {
			case text == "/*":
				inside = true
			case text == "*/":
				inside = false
			case strings.HasPrefix(line, "//\t"):
				text = strings.TrimSpace(strings.TrimPrefix(line, "//"))
				fallthrough
			case inside && strings.HasPrefix(line, "\t"):
				if drawn++; !lines[text] {
					t.Errorf("%s: not in docs/format.md: %s", file, text)
				}
			}
		}
		if drawn < 2 {
			t.Errorf("%s: %d lines drawn", file, drawn)
		}
	}
	for id, name := range names {
		if !strings.Contains(string(document), "| "+name+" |") {
			t.Errorf("%v is not in docs/format.md", id)
		}
	}
}

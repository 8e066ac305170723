package registry

import "testing"

// Each name has a place of its own that no file system takes for another one or for a path.
func FuzzNames(f *testing.F) {
	for _, name := range []string{"a", "A", "..", "con", "x.name", "end.", "ä/b", "nul.txt"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if checkName(name) != nil {
			return
		}
		p := placeOf(name)
		for i := range len(p.base) {
			switch c := p.base[i]; {
			case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-', c == '_', c == '%',
				c == '.' && i > 0 && i < len(p.base)-1, c == '~' && i == 0,
				'A' <= c && c <= 'F' && i > 0:
			default:
				t.Fatalf("%q: %q", name, p.base)
			}
		}
		if len(p.base) > longest {
			t.Fatalf("%q: %d bytes", name, len(p.base))
		}
		if back, ok := decode(p.base); !p.isLong() && (!ok || back != name) {
			t.Fatalf("%q: %q, %q", name, p.base, back)
		}
	})
}

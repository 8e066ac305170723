package rewriter

import (
	"os"
	"testing"
)

// FuzzRewrite holds Rewrite to what properties says, for any input. Without -fuzz it runs the
// seeds.
func FuzzRewrite(f *testing.F) {
	for _, module := range seeds(f) {
		f.Add(module)
	}
	n := 0
	for path := range specModules(f) {
		module, err := os.ReadFile(path)
		if n++; err == nil && len(module) < 300 && n%40 == 0 {
			f.Add(module)
		}
	}
	p := newProperties(f)
	f.Fuzz(p.check)
}

// seeds are modules that use all that the rewriter looks at, and invalid ones that reach for what
// it adds.
func seeds(t testing.TB) (all [][]byte) {
	for _, name := range []string{"state", "tables", "segments", "reread"} {
		module := readModule(t, name)
		out, _, err := Rewrite(module, Options{})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, module, out)
	}
	all = append(all,
		typedModule(),
		build(),
		build(custom("g", 7, 4, 1, 0, 1, 'g'), vec(secGlobal, mutI32)),
		build(vec(secType, typeVoid), vec(secImport, importOf("env", "nothing", kindFunc, 0)),
			sec(secStart, 0)),
		build(vec(secType, typeVoid, bs(0x4e, 1, 0x60, 0, 0)), vec(secFunction, bs(0)),
			vec(secTag, bs(0, 0)),
			vec(secCode, body(0x06, 0x40, 0x08, 0, 0x19, 0x0b, 0x1f, 0x40, 1, 2, 0, 0x0b, 0x0b))))
	for _, c := range reaching() {
		all = append(all, c.module)
	}
	return all
}

package rewriter

import (
	"os"
	"testing"
)

// bigModule is a module of 10 MB, nearly all of it code: of the kind that compilers write.
func bigModule() []byte {
	var c []byte
	for len(c) < 2000 {
		c = append(c, 0x20, 0, 0x28, 2, 8, 0x41, 0xff, 0xff, 3, 0x71, 0x22, 0, 0x04, 0x40, 0x20, 0,
			0x0c,
			0, 0x0b, 0x1a, 0x10, 0x80, 1)
	}
	one := append([]byte{1, 1, 0x7f}, append(c, 0x0b)...) // one local i32
	one = append(appendU32(nil, uint32(len(one))), one...)
	bodies, types := make([][]byte, 5000), make([][]byte, 5000)
	for i := range bodies {
		bodies[i], types[i] = one, bs(0)
	}
	return build(vec(secType, typeVoid), vec(secFunction, types...), vec(secMemory, memory1),
		vec(secGlobal, mutI32), vec(secCode, bodies...))
}

// BenchmarkRewrite rewrites the file named by REWRITER_BENCH, or a made-up module of 10 MB.
func BenchmarkRewrite(b *testing.B) {
	wasm := bigModule()
	if name := os.Getenv("REWRITER_BENCH"); name != "" {
		var err error
		if wasm, err = os.ReadFile(name); err != nil {
			b.Fatal(err)
		}
	}
	b.SetBytes(int64(len(wasm)))
	for b.Loop() {
		if _, _, err := Rewrite(wasm, Options{}); err != nil {
			b.Fatal(err)
		}
	}
}

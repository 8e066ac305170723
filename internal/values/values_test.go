package values

import (
	"encoding/json"
	"math"
	"testing"

	"github.com/tetratelabs/wazero/api"
	"pgregory.net/rapid"
)

var valueTypes = []api.ValueType{api.ValueTypeI32, api.ValueTypeI64, api.ValueTypeF32,
	api.ValueTypeF64, V128}

// What is printed reads back as the same bits, a NaN's payload and the sign of a zero included.
func TestPrintedValuesReadBack(t *testing.T) {
	interesting := []uint64{0, 1, 1 << 31, 1<<31 - 1, 1<<32 - 1, 1 << 63, 1<<63 - 1, 1<<64 - 1,
		math.Float64bits(math.NaN()), math.Float64bits(math.Inf(-1)), math.Float64bits(0.1),
		math.Float64bits(1e21), math.Float64bits(5e-324),
		uint64(math.Float32bits(float32(math.NaN()))), uint64(math.Float32bits(0.1)),
		0x7f800001, 0xff800000, 0x7fc00000, 0x7ff0000000000001}
	bits := rapid.OneOf(rapid.SampledFrom(interesting), rapid.Uint64())
	rapid.Check(t, func(t *rapid.T) {
		v := Value{Type: rapid.SampledFrom(valueTypes).Draw(t, "type"), Lo: bits.Draw(t, "lo")}
		switch v.Type {
		case api.ValueTypeI32, api.ValueTypeF32:
			v.Lo = uint64(uint32(v.Lo))
		case V128:
			v.Hi = bits.Draw(t, "hi")
		}
		text := v.String()
		got, err := Parse(v.Type, text)
		if err != nil || got != v {
			t.Fatalf("%s %#x is written as %s and read as %#x, %v", TypeName(v.Type), v.Lo, text,
				got.Lo, err)
		}
		encoded, err := json.Marshal(v)
		if err != nil || !json.Valid(encoded) {
			t.Fatalf("%s as JSON: %s, %v", text, encoded, err)
		}
	})
}

// wazero leaves garbage above an i32 or f32.
func TestUpperHalfOfNarrowValuesIsIgnored(t *testing.T) {
	const garbage = 0xdeadbeef << 32
	for _, c := range []struct {
		v    Value
		want string
	}{
		{Value{Type: api.ValueTypeI32, Lo: garbage | 0xffffffff}, "-1"},
		{Value{Type: api.ValueTypeF32, Lo: garbage | uint64(math.Float32bits(1.5))}, "1.5"},
	} {
		if got := c.v.String(); got != c.want {
			t.Errorf("got %s, want %s", got, c.want)
		}
	}
}

func TestReadValues(t *testing.T) {
	for _, c := range []struct {
		typ  api.ValueType
		text string
		lo   uint64
		hi   uint64
	}{
		{api.ValueTypeI32, "+5", 5, 0},
		{api.ValueTypeI32, "-0x1", 0xffffffff, 0},
		{api.ValueTypeI32, "0XFFFFFFFF", 0xffffffff, 0},
		{api.ValueTypeI32, "0010", 10, 0},
		{api.ValueTypeI64, "-9223372036854775808", 1 << 63, 0},
		{api.ValueTypeI64, "0xffffffffffffffff", math.MaxUint64, 0},
		{api.ValueTypeF32, "1e-46", 0, 0},
		{api.ValueTypeF32, "16777217", uint64(math.Float32bits(16777216)), 0},
		{api.ValueTypeF64, "Infinity", math.Float64bits(math.Inf(1)), 0},
		{api.ValueTypeF64, "-INF", math.Float64bits(math.Inf(-1)), 0},
		{api.ValueTypeF64, "0x1p-2", math.Float64bits(0.25), 0},
		{api.ValueTypeF64, "-0xff", math.Float64bits(-255), 0},
		{api.ValueTypeF64, ".5", math.Float64bits(0.5), 0},
		{V128, "0x10000000000000002", 2, 1},
		{api.ValueTypeExternref, "null", 0, 0},
		{FuncRef, "null", 0, 0},
	} {
		got, err := Parse(c.typ, c.text)
		if err != nil || got.Lo != c.lo || got.Hi != c.hi {
			t.Errorf("%s %s: %#x %#x, %v", TypeName(c.typ), c.text, got.Hi, got.Lo, err)
		}
	}
	for _, c := range []struct {
		typ  api.ValueType
		text string
	}{
		{api.ValueTypeI32, ""}, {api.ValueTypeI32, "-"},
		{api.ValueTypeI32, "0x"}, {api.ValueTypeI32, "1_000"},
		{api.ValueTypeI32, "--1"}, {api.ValueTypeI32, "+-1"},
		{api.ValueTypeI32, "1.0"}, {api.ValueTypeI32, "٣"},
		{api.ValueTypeI32, "4294967296"}, {api.ValueTypeI32, "-2147483649"},
		{api.ValueTypeI64, "-9223372036854775809"},
		{api.ValueTypeF32, ""}, {api.ValueTypeF32, "1e40"}, {api.ValueTypeF32, "nan:0x0"},
		{api.ValueTypeF32, "nan:0x800000"},
		{api.ValueTypeF64, "1_0.0"}, {api.ValueTypeF64, "--1"},
		{api.ValueTypeF64, "-+1"}, {api.ValueTypeF64, "0x"},
		{V128, "1"}, {V128, "0x"}, {V128, "0x-1"}, {V128, "0x1_0"},
		{V128, "0x100000000000000000000000000000000"},
		{api.ValueTypeExternref, "0"},
	} {
		if got, err := Parse(c.typ, c.text); err == nil {
			t.Errorf("%s %q is read as %v", TypeName(c.typ), c.text, got)
		}
	}
}

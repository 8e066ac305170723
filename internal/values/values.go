// Package values writes values of a guest as text and as JSON, and reads them from text. On
// wazero's stack a value takes one uint64, of which an i32 or f32 uses the low half and may leave
// garbage in the high one; a v128 takes two, the low half first.
package values

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"

	"github.com/tetratelabs/wazero/api"
)

// V128 and FuncRef are missing among wazero's value types.
const (
	V128    api.ValueType = 0x7b
	FuncRef api.ValueType = 0x70
)

// Value is one value with its type. Only a v128 uses Hi.
type Value struct {
	Type   api.ValueType
	Lo, Hi uint64
}

// TypeName is the name of a type in the text format.
func TypeName(t api.ValueType) string {
	switch t {
	case V128:
		return "v128"
	case FuncRef:
		return "funcref"
	}
	return api.ValueTypeName(t)
}

// Signature writes a function's type as in "(i32, i64) -> (f64)".
func Signature(params, results []api.ValueType) string {
	list := func(types []api.ValueType) string {
		names := make([]string, len(types))
		for i, t := range types {
			names[i] = TypeName(t)
		}
		return "(" + strings.Join(names, ", ") + ")"
	}
	return list(params) + " -> " + list(results)
}

// Unstack reads values of the given types from what a call returned.
func Unstack(types []api.ValueType, stack []uint64) []Value {
	values := make([]Value, len(types))
	for i, t := range types {
		values[i] = Value{Type: t, Lo: stack[0]}
		stack = stack[1:]
		if t == V128 {
			values[i].Hi = stack[0]
			stack = stack[1:]
		}
	}
	return values
}

// String writes integers as signed decimals, floats in their shortest form that reads back the
// same, a v128 as 0x and 32 hex digits.
func (v Value) String() string {
	switch v.Type {
	case api.ValueTypeI32:
		return strconv.FormatInt(int64(int32(v.Lo)), 10)
	case api.ValueTypeI64:
		return strconv.FormatInt(int64(v.Lo), 10)
	case api.ValueTypeF32:
		return formatFloat(uint64(uint32(v.Lo)), float32Format)
	case api.ValueTypeF64:
		return formatFloat(v.Lo, float64Format)
	case V128:
		return fmt.Sprintf("0x%016x%016x", v.Hi, v.Lo)
	}
	if v.Lo == 0 {
		return "null"
	}
	return TypeName(v.Type) // a reference means nothing outside of the process
}

// MarshalJSON writes {"type":"i32","value":-5}. What JSON has no number for is a string.
func (v Value) MarshalJSON() ([]byte, error) {
	return fmt.Appendf(nil, `{"type":%q,"value":%s}`, TypeName(v.Type), v.JSON()), nil
}

// JSON is the value alone: a number, or a string where JSON has none.
func (v Value) JSON() string {
	text := v.String()
	number := false
	switch v.Type {
	case api.ValueTypeI32, api.ValueTypeI64:
		number = true
	case api.ValueTypeF32, api.ValueTypeF64:
		number = !strings.ContainsAny(text, "ni") // nan, inf
	}
	if number {
		return text
	}
	return strconv.Quote(text) // plain ASCII
}

// Plain is JSON for those who read numbers as floats: an i64 that they could not tell from its
// neighbours is a string, too.
func (v Value) Plain() string {
	const exact = 1 << 53
	if n := int64(v.Lo); v.Type == api.ValueTypeI64 && (n > exact || n < -exact) {
		return strconv.Quote(v.String())
	}
	return v.JSON()
}

// floatFormat describes a binary float format of IEEE 754.
type floatFormat struct {
	bits     int
	mantissa int // bits
}

var (
	float32Format = floatFormat{32, 23}
	float64Format = floatFormat{64, 52}
)

func (f floatFormat) sign() uint64     { return 1 << (f.bits - 1) }
func (f floatFormat) infinity() uint64 { return f.sign() - 1<<f.mantissa }
func (f floatFormat) payload() uint64  { return 1<<f.mantissa - 1 }

// canonical is the payload of the NaN that operations usually give.
func (f floatFormat) canonical() uint64 { return 1 << (f.mantissa - 1) }

func (f floatFormat) value(bits uint64) float64 {
	if f.bits == 32 {
		return float64(math.Float32frombits(uint32(bits)))
	}
	return math.Float64frombits(bits)
}

// formatFloat writes a NaN as WebAssembly's text format does, since its payload is part of the
// value.
func formatFloat(bits uint64, f floatFormat) string {
	sign := ""
	if bits&f.sign() != 0 {
		sign = "-"
	}
	switch magnitude := bits &^ f.sign(); {
	case magnitude == f.infinity():
		return sign + "inf"
	case magnitude == f.infinity()|f.canonical():
		return sign + "nan"
	case magnitude > f.infinity():
		return fmt.Sprintf("%snan:%#x", sign, bits&f.payload())
	}
	v := f.value(bits)
	// Without an exponent where people would write none, as in JSON.
	if abs := math.Abs(v); abs == 0 || 1e-6 <= abs && abs < 1e21 {
		return strconv.FormatFloat(v, 'f', -1, f.bits)
	}
	return strconv.FormatFloat(v, 'e', -1, f.bits)
}

// ParseArgs reads the arguments of a function into the form that a call takes.
func ParseArgs(name string, def api.FunctionDefinition, args []string) ([]uint64, error) {
	types := def.ParamTypes()
	if len(args) != len(types) {
		return nil, fmt.Errorf("function %s%s takes %s, %d given",
			name, Signature(def.ParamTypes(), def.ResultTypes()), arguments(len(types)), len(args))
	}
	var stack []uint64
	for i, t := range types {
		v, err := Parse(t, args[i])
		if err != nil {
			return nil, fmt.Errorf("function %s%s: argument %d, %q: %w",
				name, Signature(def.ParamTypes(), def.ResultTypes()), i+1, args[i], err)
		}
		stack = append(stack, v.Lo)
		if t == V128 {
			stack = append(stack, v.Hi)
		}
	}
	return stack, nil
}

func arguments(n int) string {
	switch n {
	case 0:
		return "no arguments"
	case 1:
		return "1 argument"
	}
	return fmt.Sprintf("%d arguments", n)
}

// Parse reads a value of a type.
func Parse(t api.ValueType, s string) (v Value, err error) {
	v.Type = t
	switch t {
	case api.ValueTypeI32:
		v.Lo, err = parseInt(s, 32)
		v.Lo = uint64(uint32(v.Lo))
	case api.ValueTypeI64:
		v.Lo, err = parseInt(s, 64)
	case api.ValueTypeF32:
		v.Lo, err = parseFloat(s, float32Format)
	case api.ValueTypeF64:
		v.Lo, err = parseFloat(s, float64Format)
	case V128:
		v.Lo, v.Hi, err = parseVector(s)
	default:
		if s != "null" {
			err = fmt.Errorf("a %s can only be null here", TypeName(t))
		}
	}
	return v, err
}

// parseInt reads a decimal number or, behind 0x, a hexadecimal one, with or without a sign, in
// the range of either the signed or the unsigned type.
func parseInt(s string, bits int) (uint64, error) {
	digits, negative := strings.CutPrefix(s, "-")
	if !negative {
		digits = strings.TrimPrefix(digits, "+")
	}
	base := 10
	if hex, ok := cutHex(digits); ok {
		digits, base = hex, 16
	}
	limit := ^uint64(0) >> (64 - bits)
	if negative {
		limit = 1 << (bits - 1)
	}
	u, err := strconv.ParseUint(digits, base, 64)
	switch {
	case errors.Is(err, strconv.ErrRange), err == nil && u > limit:
		return 0, fmt.Errorf("does not fit into an i%d", bits)
	case err != nil:
		return 0, fmt.Errorf("not an integer (an i%d is wanted)", bits)
	case negative:
		u = -u
	}
	return u, nil
}

func cutHex(s string) (digits string, ok bool) {
	if len(s) > 2 && s[0] == '0' && (s[1] == 'x' || s[1] == 'X') {
		return s[2:], true
	}
	return s, false
}

func parseFloat(s string, f floatFormat) (uint64, error) {
	text := strings.ToLower(s)
	magnitude, negative := strings.CutPrefix(text, "-")
	var sign uint64
	if negative {
		sign = f.sign()
	} else {
		magnitude = strings.TrimPrefix(magnitude, "+")
	}
	if magnitude == "nan" {
		return sign | f.infinity() | f.canonical(), nil
	}
	if payload, ok := strings.CutPrefix(magnitude, "nan:0x"); ok {
		p, err := strconv.ParseUint(payload, 16, 64)
		if err != nil || p == 0 || p > f.payload() {
			return 0, fmt.Errorf("a NaN's payload is from 0x1 to %#x", f.payload())
		}
		return sign | f.infinity() | p, nil
	}
	if _, hex := cutHex(magnitude); hex && !strings.Contains(magnitude, "p") {
		magnitude += "p0" // strconv wants an exponent
	}
	v, err := strconv.ParseFloat(magnitude, f.bits)
	switch {
	case errors.Is(err, strconv.ErrRange):
		return 0, fmt.Errorf("does not fit into an f%d", f.bits)
	case err != nil || strings.HasPrefix(magnitude, "-") || strings.HasPrefix(magnitude, "+") ||
		strings.Contains(magnitude, "_"):
		return 0, fmt.Errorf("not a number (an f%d is wanted)", f.bits)
	}
	if f.bits == 32 {
		return sign | uint64(math.Float32bits(float32(v))), nil
	}
	return sign | math.Float64bits(v), nil
}

func parseVector(s string) (lo, hi uint64, err error) {
	digits, ok := cutHex(s)
	n, valid := new(big.Int).SetString(digits, 16)
	if !ok || len(digits) > 32 || !valid || n.Sign() < 0 || strings.ContainsAny(digits, "+-_") {
		return 0, 0, errors.New("not a v128 (0x and up to 32 hex digits are wanted)")
	}
	lo = new(big.Int).And(n, new(big.Int).SetUint64(math.MaxUint64)).Uint64()
	return lo, new(big.Int).Rsh(n, 64).Uint64(), nil
}

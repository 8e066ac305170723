package spectest

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// Value is an argument or an expected result.
type Value struct {
	Type string `json:"type"`      // i32, f64, v128, funcref, ...
	Lane string `json:"lane_type"` // v128: i8 to f64
	// a string, or one for each lane, or nothing: any reference will do
	Value json.RawMessage `json:"value"`
}

// Slots is the number of elements that the value takes in a call's stack.
func (v *Value) Slots() int {
	if v.Type == "v128" {
		return 2
	}
	return 1
}

// Bits returns the value as wazero's API takes it.
func (v *Value) Bits() ([]uint64, error) {
	if v.Type != "v128" {
		s, err := v.text()
		if err != nil {
			return nil, err
		}
		bits, err := v.scalar(s)
		return []uint64{bits}, err
	}
	lanes, width, err := v.lanes()
	if err != nil {
		return nil, err
	}
	bits := make([]uint64, 2)
	for i, s := range lanes {
		n, err := number(s, width)
		if err != nil {
			return nil, err
		}
		bits[i*width/64] |= n << (i * width % 64)
	}
	return bits, nil
}

// Matches tells whether a result, in the encoding of wazero's API, is the expected one.
func (v *Value) Matches(got []uint64) (bool, error) {
	switch v.Type {
	case "v128":
		lanes, width, err := v.lanes()
		if err != nil {
			return false, err
		}
		for i, s := range lanes {
			lane := got[i*width/64] >> (i * width % 64)
			if ok, err := matches(s, lane, width); err != nil || !ok {
				return false, err
			}
		}
		return true, nil
	case "i32", "i64", "f32", "f64":
		s, err := v.text()
		if err != nil {
			return false, err
		}
		width, err := strconv.Atoi(v.Type[1:])
		if err != nil {
			return false, err
		}
		return matches(s, got[0], width)
	}
	if v.Value == nil && v.Type != "refnull" {
		return got[0] != 0, nil // any reference but null
	}
	s, err := v.text()
	if err != nil {
		return false, err
	}
	want, err := v.scalar(s)
	return got[0] == want, err
}

// scalar reads a number or a reference. References from the host are counted from 0 in the scripts;
// wazero takes 0 for null, so they are counted from 1 here.
func (v *Value) scalar(s string) (uint64, error) {
	switch v.Type {
	case "i32", "f32":
		return number(s, 32)
	case "i64", "f64":
		return number(s, 64)
	}
	if s == "null" || s == "" {
		return 0, nil
	}
	if v.Type != "externref" {
		return 0, fmt.Errorf("a %s that is not null cannot be made: %s", v.Type, s)
	}
	n, err := number(s, 32)
	return n + 1, err
}

func (v *Value) text() (string, error) {
	if v.Value == nil {
		return "", nil
	}
	var s string
	err := json.Unmarshal(v.Value, &s)
	return s, err
}

func (v *Value) lanes() (lanes []string, width int, err error) {
	if err := json.Unmarshal(v.Value, &lanes); err != nil {
		return nil, 0, err
	}
	width, err = strconv.Atoi(v.Lane[1:])
	if err == nil && width*len(lanes) != 128 {
		err = fmt.Errorf("%d lanes of type %s", len(lanes), v.Lane)
	}
	return lanes, width, err
}

// number reads the bits of a number of the given width, written as a decimal, signed or not.
func number(s string, width int) (uint64, error) {
	if strings.HasPrefix(s, "-") {
		n, err := strconv.ParseInt(s, 10, width)
		return uint64(n) & mask(width), err
	}
	return strconv.ParseUint(s, 10, width)
}

func mask(width int) uint64 { return ^uint64(0) >> (64 - width) }

// matches compares a number. Of a NaN the scripts give the bits, or its class: canonical (payload
// 1000...), or arithmetic (any with the payload's first bit set).
func matches(want string, got uint64, width int) (bool, error) {
	got &= mask(width)
	canonical := uint64(0x7fc0_0000)
	if width == 64 {
		canonical = 0x7ff8_0000_0000_0000
	}
	switch want {
	case "nan:canonical":
		return got&(mask(width)>>1) == canonical, nil
	case "nan:arithmetic":
		return got&canonical == canonical, nil
	}
	bits, err := number(want, width)
	return bits == got, err
}

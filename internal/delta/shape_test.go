package delta

import (
	"errors"
	"testing"

	"github.com/mmrun/mmrun/globalsfile"
)

func TestShape(t *testing.T) {
	shape := &Shape{
		Globals:   []GlobalShape{{Type: 0x7f}, {Type: 0x70, Function: true}},
		Tables:    []TableShape{{Min: 2, Max: 4, Function: true}, {Max: 4}},
		Segments:  1,
		Functions: 3, MinPages: 1, MaxPages: 2,
	}
	null := ^uint64(0)
	good := func() *globalsfile.State {
		s := shape.Blank()
		s.MemoryPages, s.Globals[0].Lo, s.Globals[1].Lo = 1, 1<<40, null
		s.Tables[0], s.Tables[1] = []int32{-1, 2, 0}, []int32{-1}
		return s
	}
	type state = globalsfile.State
	for name, change := range map[string]func(s *state){
		"as it is":                    func(s *state) {},
		"tables as instantiated":      func(s *state) { s.Tables[0], s.Tables[1] = nil, nil },
		"function in a global":        func(s *state) { s.Globals[1].Lo = 2 },
		"largest memory":              func(s *state) { s.MemoryPages = 2 },
		"- a global less":             func(s *state) { s.Globals = s.Globals[:1] },
		"- another type":              func(s *state) { s.Globals[0].Type = 0x7e },
		"- no such function":          func(s *state) { s.Globals[1].Lo = 3 },
		"- function with a high half": func(s *state) { s.Globals[1].Lo = 1 << 32 },
		"- a table more":              func(s *state) { s.Tables = append(s.Tables, nil) },
		"- table too short":           func(s *state) { s.Tables[0] = []int32{1} },
		"- table too long":            func(s *state) { s.Tables[0] = make([]int32, 5) },
		"- no such function, table":   func(s *state) { s.Tables[0][1] = 3 },
		"- below null":                func(s *state) { s.Tables[0][1] = -2 },
		"- function among references": func(s *state) { s.Tables[1][0] = 0 },
		"- a segment more":            func(s *state) { s.Dropped = make([]bool, 2) },
		"- memory too small":          func(s *state) { s.MemoryPages = 0 },
		"- memory too large":          func(s *state) { s.MemoryPages = 3 },
	} {
		s := good()
		change(s)
		err := shape.Check(s)
		if (name[0] == '-') != (err != nil) || err != nil && !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

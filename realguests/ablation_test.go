package realguests

import (
	"fmt"
	"slices"
	"testing"

	"github.com/mmrun/mmrun/internal/testkit/oracle"
)

// What these tests are worth: with a part of the state left out of a resume, guests notice, and
// with nothing left out none does. Some go on to answer as if nothing had happened: only the bytes
// show it.
func TestGuestsNoticeWhatIsLeftOut(t *testing.T) {
	ablations := []struct {
		name   string
		omit   oracle.Omission
		guests []string // that must notice
	}{
		{"nothing is left out", oracle.Nothing, nil},
		{"globals are not restored", oracle.Globals, []string{"lua", "go", "assemblyscript",
			"counter"}},
		{"data segments are active", oracle.DataIsActive,
			[]string{"sqlite", "lua", "go", "assemblyscript", "rust_wasi"}},
		{"start functions run again", oracle.StartsAgain, []string{"assemblyscript"}},
		{"_initialize runs again", oracle.InitializeTwice, []string{"go"}},
	}
	forEach(t, func(t *testing.T, g *guest, wasm []byte, want []step) {
		for _, a := range ablations {
			t.Run(a.name, func(t *testing.T) {
				seen := notices(t, g, wasm, want, a.omit)
				t.Logf("%s", seen)
				if a.omit == oracle.Nothing && seen != "" {
					t.Errorf("although nothing was left out: %s", seen)
				}
				if slices.Contains(a.guests, g.name) && seen == "" {
					t.Error("the guest has not noticed")
				}
			})
		}
	})
}

// notices resumes the guest by hand before each event from the third on, and says by what it shows
// that something was left out, empty if by nothing.
func notices(t *testing.T, g *guest, wasm []byte, want []step, omit oracle.Omission) string {
	tw := newTwin(t, g, wasm)
	bytes := ""
	for _, w := range want {
		if w.Event > 2 {
			if err := tw.resume(omit); err != nil {
				return fmt.Sprintf("event %d: resume: %v", w.Event, err)
			}
		}
		s, err := tw.step(w.Event)
		switch {
		case err != nil:
			return fmt.Sprintf("event %d fails: %.80s", w.Event, err)
		case s.Answer != w.Answer:
			return fmt.Sprintf("event %d answers %.40q instead of %.40q", w.Event, s.Answer,
				w.Answer)
		case bytes == "" && (s.Before != w.Before || s.After != w.After):
			bytes = fmt.Sprintf("only by its bytes, from event %d on", w.Event)
		}
	}
	return bytes
}

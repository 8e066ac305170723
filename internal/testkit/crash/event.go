// Package crash holds what the crash tests share.
//
//	event.go     events as data, and what they act on
//	workload.go  guests, each with a deterministic stream of events
//	twin.go      the oracle: the same guest on plain wazero, which never persists anything
//	image.go     the whole state of a guest, and how two of them differ
//	child.go     the process that is killed: events on a state, acknowledged over a pipe
//	lane.go      one state, its twin, and children that are killed over it
//	planner.go   when they are killed
//	process.go   starts that process, kills it, and keeps what it had acknowledged
//
// An event is a function of a seed, its number and the size of the memory. So the process that is
// killed and the twin that is not do the same without talking to each other, and what the twin is
// at event N is what the state must be.
package crash

import (
	"errors"
	"fmt"
	"hash/fnv"

	"github.com/tetratelabs/wazero/api"
)

// End is how an event ends.
type End int

const (
	Commits End = iota // all steps succeed
	Traps              // the last step traps: nothing of the event may remain
	Refused            // the host refuses after the last step: nothing may remain
	Panics             // the host panics after the last step: nothing may remain
	MayTrap            // a step may trap, which depends on more than the event knows
)

func (e End) String() string {
	return [...]string{"commits", "traps", "refused", "panics", "may trap"}[e]
}

// Step is a call, or a write by the host if Func is empty.
type Step struct {
	Func   string
	Params []uint64

	Offset uint32
	Data   []byte
}

func (s Step) String() string {
	if s.Func == "" {
		return fmt.Sprintf("write(%#x, %d bytes)", s.Offset, len(s.Data))
	}
	return fmt.Sprintf("%s%d", s.Func, s.Params)
}

// Event is one event of a stream.
type Event struct {
	Steps []Step
	Meta  []byte // nil: left as it is
	End   End
}

func (e Event) String() string {
	s := fmt.Sprintf("%v", e.Steps)
	if e.Meta != nil {
		s += fmt.Sprintf(" meta of %d bytes", len(e.Meta))
	}
	return s + ", " + e.End.String()
}

// Machine is what the steps of an event act on.
type Machine interface {
	Call(name string, params ...uint64) ([]uint64, error)
	Memory() api.Memory
}

var errOutside = errors.New("the host writes outside of the memory")

// Run does the steps of e on m, up to the first that fails, and digests the answers.
func Run(m Machine, e Event) (answers uint64, err error) {
	digest := fnv.New64a()
	for _, s := range e.Steps {
		if s.Func == "" {
			if !m.Memory().Write(s.Offset, s.Data) {
				return 0, errOutside
			}
			continue
		}
		results, err := m.Call(s.Func, s.Params...)
		if err != nil {
			return 0, err
		}
		for _, r := range results {
			digest.Write(fmt.Appendln(nil, r))
		}
	}
	return digest.Sum64(), nil
}

// Mask clears what wazero leaves above the 32 bits of i32 and f32 results.
func Mask(results []uint64, types []api.ValueType) []uint64 {
	at := 0
	for _, t := range types {
		switch {
		case at >= len(results):
		case t == api.ValueTypeI32 || t == api.ValueTypeF32:
			results[at] = uint64(uint32(results[at]))
		case t == v128:
			at++
		}
		at++
	}
	return results
}

const v128 api.ValueType = 0x7b // wazero's package api does not name it

//go:build linux

package ratios

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/bench/lab"
)

// touch turns an event function into an op: a store in each of n pages. The pages lie stride
// apart; the first is 0 each time, or is another one each time if it moves.
func touch(name string, event func([]uint64) error, n, stride int, moves bool) *op {
	stack := make([]uint64, 4)
	first, v := 0, uint64(1)
	return &op{name: name, warm: 1, run: func() error {
		v++
		if moves {
			first = (first + 1) % stride
		}
		stack[0], stack[1], stack[2], stack[3] = uint64(first), uint64(stride), uint64(n), v
		return event(stack)
	}}
}

// commitCost: by the number of pages, where they lie, and the size of the memory.
func commitCost(r *run) error {
	var all contestants
	defer func() { all.close() }()
	var ops []*op
	for _, mib := range []int{1, 64, 1024} {
		s, err := r.state(&all, fmt.Sprint("same", mib), mib, true)
		if err != nil {
			return err
		}
		random1, err := r.state(&all, fmt.Sprint("random", mib), mib, true)
		if err != nil {
			return err
		}
		for _, n := range []int{1, 8, 64, 1024} {
			pages := mib * lab.MiB / lab.PageSize
			if n > pages {
				continue
			}
			ops = append(ops, touch(fmt.Sprintf("commit, %s, the same each time, %d MiB",
				pagesOf(n), mib), s.Event("touch"), n, pages/n, false))
			o := random(fmt.Sprintf("commit, %s, random, %d MiB", pagesOf(n), mib),
				random1.Event("random"), n)
			// Long enough for the checkpoints that these events cause: the mean counts, and the
			// time of the whole process.
			o.n, o.clock = max(2000/n, 10), process
			ops = append(ops, o)
		}
	}
	if err := takeTurns(thread, max(r.rounds/5, 5), ops...); err != nil {
		return err
	}
	r.note(ops...)
	return nil
}

// viewCost: a query that writes to four pages.
func viewCost(r *run) error {
	var all contestants
	defer func() { all.close() }()
	type pair struct {
		plain, hot, cold *op
		what             string
	}
	var pairs []pair
	var ops []*op
	var names []string
	for _, m := range []struct {
		mib     int
		touched bool
	}{{1, true}, {64, false}, {64, true}} {
		p, err := r.plain(&all, m.mib)
		if err != nil {
			return err
		}
		pages := m.mib * lab.MiB / lab.PageSize
		what := fmt.Sprintf("%d MiB %s", m.mib, map[bool]string{true: "touched",
			false: "untouched"}[m.touched])
		x := pair{what: what, plain: touch("plain call that writes to 4 pages, "+what,
			p.Event("touch"), 4, pages/4, false)}
		for _, kind := range []string{"the same each time", "others each time"} {
			name := fmt.Sprintf("view %d %v %d", m.mib, m.touched, len(names))
			s, err := r.state(&all, name, m.mib, m.touched)
			if err != nil {
				return err
			}
			names = append(names, name)
			label := "View that writes to 4 pages, " + kind + ", " + what
			if x.hot == nil {
				x.hot = touch(label, s.ViewEvent("touch"), 4, pages/4, false)
			} else {
				x.cold = touch(label, s.ViewEvent("touch"), 4, pages/4, true)
			}
		}
		pairs = append(pairs, x)
		ops = append(ops, x.plain, x.hot, x.cold)
	}
	before, err := r.hashStates(names)
	if err != nil {
		return err
	}
	if err := takeTurns(thread, r.rounds, ops...); err != nil {
		return err
	}
	after, err := r.hashStates(names)
	if err != nil {
		return err
	}
	r.note(ops...)
	for _, x := range pairs {
		r.atMost("View beyond the plain call, 4 pages, the same each time, "+x.what,
			(x.hot.median()-x.plain.median())*1e6, 30, " µs")
		r.atMost("View beyond the plain call, 4 pages, others each time, "+x.what,
			(x.cold.median()-x.plain.median())*1e6, 30, " µs")
	}
	r.noFileChanged(before, after)
	return nil
}

func (r *run) noFileChanged(before, after map[string][32]byte) {
	changed := 0
	for name, h := range after {
		if before[name] != h {
			changed++
		}
	}
	r.atMost("files of the state that Views have changed", float64(changed), 0, "")
}

// hashStates hashes the content of all files of the states.
func (r *run) hashStates(names []string) (map[string][32]byte, error) {
	sums := map[string][32]byte{}
	for _, name := range names {
		entries, err := os.ReadDir(r.path(name))
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			path := filepath.Join(r.path(name), e.Name())
			f, err := os.Open(path)
			if err != nil {
				return nil, err
			}
			h := sha256.New()
			_, err = io.Copy(h, f)
			if err = errors.Join(err, f.Close()); err != nil {
				return nil, err
			}
			sums[path] = [32]byte(h.Sum(nil))
		}
	}
	return sums, nil
}

var errRollback = errors.New("rolled back on purpose")

// failing makes an event that calls an export and then fails.
func failing(s *lab.State, export string) func([]uint64) error {
	var f *mmrun.Function
	var stack []uint64
	body := func(tx *mmrun.Tx) error {
		if f == nil {
			f = tx.Function(export)
		}
		if err := f.CallWithStack(ctx, stack); err != nil {
			return err
		}
		return errRollback
	}
	return func(st []uint64) error {
		stack = st
		if err := s.Update(ctx, body); !errors.Is(err, errRollback) {
			return fmt.Errorf("not rolled back: %w", err)
		}
		return nil
	}
}

// rollbackCost: an event that fails after it has written to n pages.
func rollbackCost(r *run) error {
	const mib = 64
	var all contestants
	defer func() { all.close() }()
	var ops []*op
	for _, n := range []int{1, 8, 64, 1024} {
		for _, moves := range []bool{false, true} {
			s, err := r.state(&all, fmt.Sprint("state", n, moves), mib, true)
			if err != nil {
				return err
			}
			where := map[bool]string{false: "the same each time", true: "others each time"}[moves]
			ops = append(ops, touch(fmt.Sprintf("rollback of %s, %s, 64 MiB", pagesOf(n), where),
				failing(s, "touch"), n, mib*lab.MiB/lab.PageSize/n, moves))
		}
	}
	if err := takeTurns(thread, r.rounds, ops...); err != nil {
		return err
	}
	r.note(ops...)
	return nil
}

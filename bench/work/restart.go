//go:build linux

package work

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/mmrun/mmrun/bench/peers"
	"github.com/mmrun/mmrun/bench/report"
)

// keysInMiB is about how many keys make a MiB of the guest's hash table.
const keysInMiB = 4400

// restart is W5: a process is killed after its last acknowledged update, and another one is started
// and asked for the value of that key.
func restart(r *Run) error {
	if err := r.afterKills(); err != nil {
		return err
	}
	const updates = 1000
	nothing := report.Row{Name: "floor: a process", Safety: peers.Nothing.String()}
	for range r.rounds(10) {
		_, took, err := r.once(job{what: "nothing", peer: nothing.Name})
		if err != nil {
			return err
		}
		nothing.Samples = append(nothing.Samples, took.Seconds()*1e3)
	}
	warm := report.Table{Workload: "W5", Case: report.CaseRestart, Unit: "ms", Reference: fastest,
		XName: "MiB", Floor: nothing.Name, Notes: "From the start of the process to its answer. " +
			"The floor is a " +
			"process that opens nothing. Updates since the last checkpoint: 1,000."}
	cold := report.Table{Workload: "W5", Case: "whole process, files dropped from the page cache",
		Unit: "ms", Reference: fastest, XName: "MiB"}
	log := report.Table{Workload: "W5", Case: "by commits in the log, 64 MiB, warm page cache",
		Unit: "ms", Reference: fastest, XName: "commits"}
	sizes := []int{1, 64, 1024, 4000}
	if r.Quick {
		sizes = []int{1, 64}
	}
	for _, mib := range sizes {
		nothing.X = float64(mib)
		warm.Rows = append(warm.Rows, nothing)
		for _, p := range peers.All() {
			big := p.Guest && !p.CopyBased || p.Name == "copy, rename"
			if !r.Peer(p.Name) || p.Why() != nil || p.Safety == peers.Nothing || p.Floor ||
				mib > 1024 && !big {
				continue
			}
			s, err := r.stored(p, uint32(mib*keysInMiB))
			if err != nil {
				return err
			}
			r.Step(fmt.Sprintf("W5, %s, %d MiB", p.Name, mib))
			row, err := s.answers(updates, r.rounds(10), false)
			row.X = float64(mib)
			warm.Rows = append(warm.Rows, row)
			if err == nil {
				row, err = s.answers(updates, r.rounds(5), true)
				row.X = float64(mib)
				cold.Rows = append(cold.Rows, row)
			}
			for _, commits := range []uint32{100, 14_000} {
				if err != nil || mib != 64 || p.CopyBased {
					break
				}
				row, err = s.answers(commits, r.rounds(5), false)
				row.X = float64(commits)
				log.Rows = append(log.Rows, row)
			}
			if err := errors.Join(err, os.RemoveAll(s.dir)); err != nil {
				return err
			}
		}
	}
	r.Tables = append(r.Tables, warm, cold, log)
	return nil
}

// stored is a store that no process has open.
type stored struct {
	r    *Run
	peer peers.Peer
	dir  string
	keys uint32
}

func (r *Run) stored(p peers.Peer, keys uint32) (*stored, error) {
	dir, err := r.newDir()
	if err != nil {
		return nil, err
	}
	s := &stored{r, p, dir, keys}
	if keys > 0 {
		r.Step(fmt.Sprintf("loading %s with %d keys", p.Name, keys))
		_, _, err = r.once(s.job("load", 0))
	}
	return s, err
}

func (s *stored) job(what string, n uint32) job {
	return job{what: what, peer: s.peer.Name, dir: s.dir, keys: s.keys, n: n}
}

// answers updates, kills, starts and asks. A wrong answer is a row without a figure.
func (s *stored) answers(updates uint32, rounds int, cold bool) (report.Row, error) {
	row := report.Row{Name: s.peer.Name, Safety: s.peer.Safety.String()}
	for range rounds {
		if _, _, err := s.r.once(s.job("update", updates)); err != nil {
			return row, err
		}
		if cold {
			if err := dropCache(s.dir); err != nil {
				return row, err
			}
		}
		line, took, err := s.r.once(s.job("answer", 0))
		if err != nil {
			return row, err
		}
		version, _, _ := strings.Cut(line, " ")
		if version != strconv.FormatUint(uint64(updates), 10) {
			row.Failed = fmt.Sprintf("lost: version %s instead of %d", version, updates)
			return row, nil
		}
		row.Samples = append(row.Samples, took.Seconds()*1e3)
	}
	return row, nil
}

// dropCache writes the files out and drops them from the page cache.
func dropCache(dir string) error {
	unix.Sync()
	return filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		return errors.Join(unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED), f.Close())
	})
}

// afterKills: a process counts and says each number that was acknowledged; it is killed, and the
// next one must not have lost any of them.
func (r *Run) afterKills() error {
	t := report.Table{Workload: "W5", Case: "acknowledged events lost by kill -9",
		Unit: "events lost", Reference: fastest,
		Notes: "A process increments and says each acknowledged number; it is killed, and the " +
			"store " +
			"opened again. What loses an event has no figure elsewhere, or promises nothing."}
	for _, p := range peers.All() {
		if !r.Peer(p.Name) || p.Why() != nil || p.Name == "plain wazero" || p.Floor {
			continue
		}
		r.Step("killing " + p.Name)
		s, err := r.stored(p, 0)
		if err != nil {
			return err
		}
		row := report.Row{Name: p.Name, Safety: p.Safety.String()}
		for i := range r.rounds(25) {
			lost, err := s.killOnce(50 + 97*i)
			if err != nil {
				row.Failed = err.Error()
				break
			}
			row.Samples = append(row.Samples, float64(lost))
		}
		t.Rows = append(t.Rows, row)
		if err := os.RemoveAll(s.dir); err != nil {
			return err
		}
	}
	r.Tables = append(r.Tables, t)
	return nil
}

// killOnce lets a process count, kills it after so many numbers, and says how many it has lost.
func (s *stored) killOnce(numbers int) (lost uint64, err error) {
	if s.peer.CopyBased {
		numbers = numbers/10 + 1
	}
	c, err := s.r.start(s.job("count", 0))
	if err != nil {
		return 0, err
	}
	last := uint64(0)
	for range numbers {
		if last, err = c.number(); err != nil {
			return 0, errors.Join(err, c.kill())
		}
	}
	if err := c.cmd.Process.Kill(); err != nil {
		return 0, err
	}
	for { // what was said before it died
		n, err := c.number()
		if err != nil {
			break
		}
		last = n
	}
	_ = c.cmd.Wait() // killed
	store, err := s.peer.Open(peers.Options{Dir: s.dir})
	if err != nil {
		return 0, fmt.Errorf("does not open after a kill: %w", err)
	}
	got, err := store.Count(0)
	if err = errors.Join(err, store.Close()); err != nil {
		return 0, err
	}
	return last - min(got, last), nil
}

//go:build linux

package work

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/mmrun/mmrun/bench/peers"
	"github.com/mmrun/mmrun/bench/report"
)

// written is W6: what reaches the disk for an event, and what the files take.
func written(r *Run) error {
	for _, form := range []struct {
		name string
		keys int
		n    int
	}{
		{"a counter", 0, r.pick(20_000, 2_000)},
		{"one update of a key-value table", r.pick(300_000, 20_000), r.pick(20_000, 2_000)},
	} {
		bytes := report.Table{Workload: "W6", Case: form.name + ": bytes written to the disk",
			Unit: "bytes an event", Reference: fastest,
			Notes: fmt.Sprintf("write_bytes of /proc/PID/io over %d events and a sync of "+
				"everything at "+
				"the end.", form.n)}
		space := report.Table{Workload: "W6", Case: form.name + ": disk space afterwards",
			Unit:      "MiB",
			Reference: fastest}
		for _, p := range peers.All() {
			if !r.Peer(p.Name) || p.Why() != nil || p.Name == "plain wazero" ||
				p.CopyBased && form.keys > 0 {
				continue
			}
			r.Step("W6, " + form.name + ", " + p.Name)
			n := form.n
			if p.CopyBased || p.Safety == peers.Power {
				n /= 10
			}
			dir, err := r.newDir()
			if err != nil {
				return err
			}
			line, _, err := r.once(job{"written", p.Name, dir, uint32(form.keys), uint32(n)})
			if err != nil {
				return err
			}
			total, err := strconv.ParseFloat(line, 64)
			if err != nil {
				return err
			}
			used, err := diskUsage(dir)
			if err = errors.Join(err, os.RemoveAll(dir)); err != nil {
				return err
			}
			row := report.Row{Name: p.Name, Safety: p.Safety.String()}
			row.Samples = []float64{total / float64(n)}
			bytes.Rows = append(bytes.Rows, row)
			row.Samples = []float64{float64(used) / (1 << 20)}
			space.Rows = append(space.Rows, row)
		}
		r.Tables = append(r.Tables, bytes, space)
	}
	return nil
}

// diskUsage counts blocks, as du does.
func diskUsage(dir string) (total int64, err error) {
	err = filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var s syscall.Stat_t
		if err := syscall.Lstat(path, &s); err != nil {
			return err
		}
		total += s.Blocks * 512
		return nil
	})
	return total, err
}

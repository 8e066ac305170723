//go:build linux

package work_test

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mmrun/mmrun/bench/report"
	"github.com/mmrun/mmrun/bench/work"
)

// Children of workloads are this program.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "child" {
		if err := work.Child(os.Args[2:]); err != nil {
			os.Stderr.WriteString(err.Error())
			os.Exit(2)
		}
	}
	os.Exit(m.Run())
}

// Each workload runs, quickly, with a few contestants, and gives each of them a figure; what an
// answer is wrong of has none.
func TestWorkloadsRun(t *testing.T) {
	chosen := []string{"mmrun atomic never", "mmrun atomic always", "bbolt NoSync", "copy, rename",
		"Pebble NoSync", "pwrite 4 KiB", "pwrite+fdatasync"}
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range work.Workloads {
		t.Run(w.ID, func(t *testing.T) {
			if testing.Short() && w.ID != "W1" {
				t.Skip("takes seconds")
			}
			run := &work.Run{Config: work.Config{Dir: t.TempDir(), Quick: true,
				Peer: func(name string) bool { return slices.Contains(chosen, name) },
				Step: func(string) {}, Executable: executable, Tail: 100 * time.Millisecond}}
			if err := w.Run(run); err != nil {
				t.Fatal(err)
			}
			if len(run.Tables) == 0 {
				t.Fatal("no tables")
			}
			for _, table := range run.Tables {
				if table.Workload != w.ID || len(table.Rows) == 0 {
					t.Errorf("table %q of %s has %d rows", table.Case, table.Workload,
						len(table.Rows))
				}
				for _, row := range table.Rows {
					if row.Failed != "" || len(row.Samples) == 0 {
						t.Errorf("%s, %s: no figure (%s)", table.Case, row.Name, row.Failed)
					}
					if strings.HasPrefix(table.Case, "acknowledged events lost") {
						lost(t, row)
					}
				}
			}
		})
	}
}

// lost: what promises to survive kill -9 does, and the one that buffers in the process is caught.
func lost(t *testing.T, row report.Row) {
	t.Helper()
	most := slices.Max(row.Samples)
	if promised := row.Safety != "nothing"; promised && most > 0 || !promised && most == 0 {
		t.Errorf("%s has lost up to %g events, and promises: %s", row.Name, most, row.Safety)
	}
}

package report_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mmrun/mmrun/bench/report"
)

func results() *report.Results {
	return &report.Results{
		Machine: report.Machine{Kernel: "Linux 6.18", Processors: 2},
		Contestants: []report.Contestant{{Name: "Redis", Safety: "kill -9",
			Missing: "no redis-server"}},
		Tables: []report.Table{
			{Workload: "W1", Case: "one event", Unit: "µs an event", Reference: "mmrun",
				Floor: "pwrite",
				Rows: []report.Row{
					{Name: "mmrun", Safety: "kill -9", Samples: []float64{2, 2, 3}},
					{Name: "faster and as safe", Safety: "kill -9", Samples: []float64{1, 1, 1}},
					{Name: "faster and not safe", Safety: "nothing", Samples: []float64{0.1}},
					{Name: "pwrite", Safety: "kill -9", Samples: []float64{0.5}},
					{Name: "broken", Safety: "kill -9", Failed: "lost | 3 events"},
				}},
			{Workload: "W5", Case: report.CaseRestart, Unit: "ms", Reference: "mmrun", XName: "MiB",
				Rows: []report.Row{
					{Name: "mmrun", Safety: "kill -9", X: 1, Samples: []float64{1}},
					{Name: "mmrun", Safety: "kill -9", X: 64, Samples: []float64{1}},
					{Name: "copy", Safety: "kill -9", X: 1, Samples: []float64{2}},
					{Name: "copy", Safety: "kill -9", X: 64, Samples: []float64{80}},
				}},
		},
	}
}

func markdown(t *testing.T, r *report.Results) string {
	t.Helper()
	var out bytes.Buffer
	if err := r.Markdown(&out); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// The first thing that a reader sees is where mmrun loses to something as safe, with the factor.
func TestLossesComeFirst(t *testing.T) {
	text := markdown(t, results())
	first, _, _ := strings.Cut(text, "## W1")
	if !strings.Contains(first, "- W1, one event: faster and as safe 2x\n") {
		t.Errorf("the loss is missing:\n%s", first)
	}
	for _, no := range []string{"not safe", "pwrite", "broken", "W5"} {
		if strings.Contains(strings.SplitN(first, "Contestants take", 2)[0], no) {
			t.Errorf("%q is no loss:\n%s", no, first)
		}
	}
}

// What failed has no figure, and its reason does not break the table.
func TestRowsOfTheReport(t *testing.T) {
	text := markdown(t, results())
	for _, want := range []string{
		"| mmrun | kill -9 | 2 (2 to 3) | 1 | 4 |\n",
		"| broken | kill -9 | no figure: lost \\| 3 events |\n",
		"| 64.0 | copy | kill -9 | 80.0 (80.0 to 80.0) | 80.0 |\n",
		"**did not run**: no redis-server",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
}

func TestResultsAreReadBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "results.json")
	r := results()
	if err := r.Write(path); err != nil {
		t.Fatal(err)
	}
	again, err := report.Read(path)
	if err != nil {
		t.Fatal(err)
	}
	if markdown(t, r) != markdown(t, again) {
		t.Error("another report")
	}
	if err := os.WriteFile(path, []byte("[]"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := report.Read(path); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("what is no result: %v", err)
	}
}

// A median that moves less than the middle halves of the two runs is noise.
func TestComparisonKnowsNoise(t *testing.T) {
	older, newer := results(), results()
	newer.Tables[0].Rows[0].Samples = []float64{2.1, 2.5, 2.9}
	newer.Tables[0].Rows[1].Samples = []float64{1.5, 1.5, 1.5}
	var out bytes.Buffer
	if err := newer.Compare(&out, older); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(),
		"| W1 one event | faster and as safe | 1 | 1.50 | +50 % |") ||
		strings.Contains(out.String(), "| mmrun |") {
		t.Errorf("%s", out.String())
	}
}

func TestPlotsOfTablesThatAreThere(t *testing.T) {
	dir := t.TempDir()
	if err := results().Plots(dir); err != nil {
		t.Fatal(err)
	}
	names, err := os.ReadDir(dir)
	if err != nil || len(names) != 2 {
		t.Errorf("%v, %v: want one plot in two forms", names, err)
	}
}

package report

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
)

// titles say what a workload asks.
var titles = map[string]string{
	"W1": "A counter",
	"W2": "A key-value table: 16-byte keys, 100-byte values",
	"W3": "An event that rewrites a part of 256 MiB",
	"W4": "Queries",
	"W5": "Time to the first answer after kill -9",
	"W6": "Disk space and bytes written",
	"W7": "Many instances",
	"W9": "Tail latency, checkpoints included",
}

// Markdown writes the report. Where mmrun loses comes first.
func (r *Results) Markdown(w io.Writer) error {
	p := &printer{w: w}
	p.line("# mmrun beside what one would take instead")
	p.line("")
	p.losses(r)
	p.machine(r)
	workload := ""
	for i := range r.Tables {
		t := &r.Tables[i]
		if t.Workload != workload {
			workload = t.Workload
			p.line("## %s %s", workload, titles[workload])
			p.line("")
			if t.Notes != "" {
				p.line("%s", t.Notes)
				p.line("")
			}
			p.plots(workload)
		}
		p.table(t)
	}
	p.contestants(r)
	return p.err
}

type printer struct {
	w   io.Writer
	err error
}

func (p *printer) line(format string, a ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, format+"\n", a...)
	}
}

// loss is a case in which something at least as safe as mmrun is cheaper.
type loss struct {
	what   string
	factor float64 // of the cheapest
}

// losses of a table, one for each X. Floors are not alternatives, and the other modes of mmrun are
// shown in the tables.
func (t *Table) losses() (all []loss) {
	var xs []float64
	for _, row := range t.Rows {
		if !slices.Contains(xs, row.X) {
			xs = append(xs, row.X)
		}
	}
	for _, x := range xs {
		reference := t.Row(t.Reference, x)
		if reference == nil || len(reference.Samples) == 0 {
			continue
		}
		var ahead []loss
		for i := range t.Rows {
			row := &t.Rows[i]
			if row.X != x || len(row.Samples) == 0 || strings.HasPrefix(row.Name, "mmrun") ||
				isFloor(row.Name) ||
				!atLeastAsSafe(row.Safety, reference.Safety) {
				continue
			}
			if factor := reference.Median() / row.Median(); factor > 1.05 &&
				!math.IsInf(factor, 0) {
				ahead = append(ahead, loss{fmt.Sprintf("%s %s", row.Name, times(factor)), factor})
			}
		}
		if len(ahead) == 0 {
			continue
		}
		slices.SortStableFunc(ahead, dearestFirst)
		text := fmt.Sprintf("%s, %s: %s", t.Workload, t.withX(t.Case, x), ahead[0].what)
		for _, other := range ahead[1:min(3, len(ahead))] {
			text += ", " + other.what
		}
		if len(ahead) > 3 {
			text += fmt.Sprintf(", and %d more", len(ahead)-3)
		}
		all = append(all, loss{text, ahead[0].factor})
	}
	return all
}

func dearestFirst(a, b loss) int { return cmp.Compare(b.factor, a.factor) }

func (t *Table) withX(text string, x float64) string {
	if t.XName == "" {
		return text
	}
	return fmt.Sprintf("%s, %s %s", text, t.XName, number(x))
}

func isFloor(name string) bool {
	return strings.HasPrefix(name, "pwrite") || strings.HasPrefix(name, "floor")
}

func atLeastAsSafe(a, b string) bool {
	rank := map[string]int{"nothing": 0, "kill -9 between events": 1, "kill -9": 2, "power cut": 3}
	return rank[a] >= rank[b]
}

func (p *printer) losses(r *Results) {
	var all []loss
	for i := range r.Tables {
		all = append(all, r.Tables[i].losses()...)
	}
	if len(all) == 0 {
		p.line("In this run nothing of at least the same safety was ahead of mmrun.")
		p.line("")
		return
	}
	slices.SortStableFunc(all, dearestFirst)
	p.line("**Where mmrun loses** to something at least as safe, how many times it costs, by the " +
		"medians")
	p.line("of this run:")
	p.line("")
	for _, l := range all {
		p.line("- %s", l.what)
	}
	p.line("")
}

func (p *printer) machine(r *Results) {
	m := r.Machine
	p.line("%s, %d processors (%s), %d MiB of memory, files on %s; %s, %s%s.", m.Kernel,
		m.Processors,
		m.Model, m.MemoryMiB, m.FileSystem, r.Started.UTC().Format("2006-01-02"),
		time.Duration(r.Seconds*float64(time.Second)).Round(time.Second),
		map[bool]string{true: ", a quick run: fewer rounds and smaller sizes"}[r.Quick])
	p.line("")
	p.line("Contestants take turns (A B C, B C A, ...) inside one process; a figure is the " +
		"median over")
	p.line("the rounds, with the middle half of them in parentheses. All keep the same data and " +
		"are checked")
	p.line("to give the same answers at the end, and after a kill -9. *Safe against* is what an " +
		"acknowledged")
	p.line("commit survives. *x mmrun* is the cost as a multiple of the line marked with 1; *x " +
		"floor* as a")
	p.line("multiple of the bare system call in the same run.")
	p.line("")
	if len(m.Floor) > 0 {
		p.line("| floor of this machine | |")
		p.line("|---|---|")
		for _, name := range slices.Sorted(maps.Keys(m.Floor)) {
			p.line("| %s | %s |", name, number(m.Floor[name]))
		}
		p.line("")
	}
}

func (p *printer) table(t *Table) {
	p.line("### %s", t.Case)
	p.line("")
	head, rule := "| contestant | safe against | "+t.Unit+" | x mmrun |", "|---|---|---|---|"
	if t.XName != "" {
		head, rule = "| "+t.XName+" "+head, "|---"+rule
	}
	columns := struct{ floor, cpu, latency bool }{floor: t.Floor != ""}
	for i := range t.Rows {
		columns.cpu = columns.cpu || t.Rows[i].CPU != nil
		columns.latency = columns.latency || t.Rows[i].Latency != nil
	}
	for _, c := range []struct {
		there bool
		head  string
	}{{columns.floor, " x floor |"}, {columns.cpu, " processor |"},
		{columns.latency, " p50 | p99 | p99.9 | max |"}} {
		if c.there {
			head += c.head
			rule += strings.Repeat("---|", strings.Count(c.head, "|"))
		}
	}
	p.line("%s", head)
	p.line("%s", rule)
	for i := range t.Rows {
		row := &t.Rows[i]
		line := fmt.Sprintf("| %s | %s |", row.Name, row.Safety)
		if t.XName != "" {
			line = fmt.Sprintf("| %s %s", number(row.X), line)
		}
		if row.Failed != "" {
			p.line("%s no figure: %s |", line, escape(row.Failed))
			continue
		}
		line += fmt.Sprintf(" %s (%s to %s) | %s |", number(row.Median()),
			number(Quantile(row.Samples, 0.25)),
			number(Quantile(row.Samples, 0.75)), ratio(row, t.Row(t.Reference, row.X)))
		if columns.floor {
			line += fmt.Sprintf(" %s |", ratio(row, t.Row(t.Floor, row.X)))
		}
		if columns.cpu {
			line += fmt.Sprintf(" %s |", number(Quantile(row.CPU, 0.5)))
		}
		if l := row.Latency; columns.latency && l != nil {
			line += fmt.Sprintf(" %s | %s | %s | %s |", number(l.P50), number(l.P99),
				number(l.P999), number(l.Max))
		} else if columns.latency {
			line += " | | | |"
		}
		p.line("%s", line)
	}
	p.line("")
}

func (p *printer) plots(workload string) {
	for _, plot := range plotsOf(workload) {
		p.line("![%s](%s.svg)", plot.title, plot.file)
		p.line("")
	}
}

func (p *printer) contestants(r *Results) {
	p.line("## Settings")
	p.line("")
	p.line("| contestant | safe against | settings |")
	p.line("|---|---|---|")
	for _, c := range r.Contestants {
		settings := c.Settings
		if c.Missing != "" {
			settings += "; **did not run**: " + c.Missing
		}
		p.line("| %s | %s | %s |", c.Name, c.Safety, escape(settings))
	}
	p.line("")
	p.line("Versions:")
	p.line("")
	for _, name := range slices.Sorted(maps.Keys(r.Machine.Versions)) {
		p.line("- %s %s", name, r.Machine.Versions[name])
	}
}

func escape(s string) string {
	return strings.ReplaceAll(strings.ReplaceAll(s, "|", "\\|"), "\n",
		" ")
}

func ratio(row, reference *Row) string {
	if reference == nil || len(reference.Samples) == 0 || reference.Median() == 0 {
		return ""
	}
	return number(row.Median() / reference.Median())
}

func times(f float64) string { return number(f) + "x" }

// number has three significant digits.
func number(f float64) string {
	switch a := math.Abs(f); {
	case math.IsNaN(f):
		return ""
	case a >= 100:
		return fmt.Sprintf("%.0f", f)
	case a >= 10:
		return fmt.Sprintf("%.1f", f)
	case a >= 0.1 || a == 0:
		return strings.TrimSuffix(fmt.Sprintf("%.2f", f), ".00")
	}
	return fmt.Sprintf("%.3f", f)
}

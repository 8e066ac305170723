package report

import (
	"fmt"
	"io"
)

// Compare tells which medians have moved from the older run by more than the middle halves of both
// runs overlap.
func (r *Results) Compare(w io.Writer, older *Results) error {
	p := &printer{w: w}
	p.line("| workload | contestant | before | now | change |")
	p.line("|---|---|---|---|---|")
	changed := 0
	for i := range r.Tables {
		t := &r.Tables[i]
		before := older.Table(t.Workload, t.Case)
		if before == nil {
			continue
		}
		for j := range t.Rows {
			now := &t.Rows[j]
			then := before.Row(now.Name, now.X)
			if then == nil || len(then.Samples) == 0 || len(now.Samples) == 0 || !apart(then, now) {
				continue
			}
			changed++
			p.line("| %s %s | %s | %s | %s | %+.0f %% |", t.Workload, t.withX(t.Case, now.X),
				now.Name,
				number(then.Median()), number(now.Median()), 100*(now.Median()/then.Median()-1))
		}
	}
	if changed == 0 {
		p.line("")
		p.line("Nothing has changed beyond noise.")
	}
	if p.err != nil {
		return fmt.Errorf("comparison: %w", p.err)
	}
	return nil
}

// apart: the middle halves do not meet.
func apart(a, b *Row) bool {
	return Quantile(a.Samples, 0.75) < Quantile(b.Samples, 0.25) ||
		Quantile(b.Samples, 0.75) < Quantile(a.Samples, 0.25)
}

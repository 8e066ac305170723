package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"github.com/tetratelabs/wazero/api"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/fsck"
	"github.com/mmrun/mmrun/internal/values"
)

const inspectHelp = `Show what a state holds: commits, memory, every mutable global with its
value, tables, dropped segments, wal and files.

Nothing is locked or changed; a state that is in use, or that may only be read, can be
inspected. Values are those of the last commit.`

func (a *app) inspectCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:               "inspect TARGET",
		Short:             "Show what a state holds",
		Long:              inspectHelp,
		Args:              exactTarget,
		ValidArgsFunction: completeTarget,
		RunE: func(_ *cobra.Command, args []string) error {
			t, err := a.existing(args[0])
			if err != nil {
				return err
			}
			r, err := fsck.Inspect(t.state)
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(inspection{r, globals(r)})
			}
			return printReport(a.out, r)
		},
	}
	a.stateFlag(cmd)
	return cmd
}

// inspection is a report whose globals have values that people and programs can read.
type inspection struct {
	*fsck.Report
	Globals []global `json:"globals"`
}

type global struct {
	Index uint32 `json:"index"`
	Name  string `json:"name,omitempty"`
	Type  string `json:"type"`
	// Value is a number, or a string where JSON has none. A funcref is the index of its function.
	Value json.RawMessage `json:"value"`

	text string
}

func globals(r *fsck.Report) []global {
	list := make([]global, len(r.Globals))
	for i, g := range r.Globals {
		v := values.Value{Type: typeByName(g.Type), Lo: g.Lo, Hi: g.Hi}
		x := global{Index: g.Index, Name: g.Name, Type: g.Type, text: v.String(),
			Value: json.RawMessage(v.JSON())}
		if v.Type == values.FuncRef {
			x.text, x.Value = "null", json.RawMessage("null")
			if index := int32(g.Lo); index >= 0 {
				x.text, x.Value = fmt.Sprintf("function %d",
					index), json.RawMessage(fmt.Sprint(index))
			}
		}
		list[i] = x
	}
	return list
}

func typeByName(name string) api.ValueType {
	for _, t := range []api.ValueType{api.ValueTypeI32, api.ValueTypeI64, api.ValueTypeF32,
		api.ValueTypeF64, values.V128, values.FuncRef} {
		if values.TypeName(t) == name {
			return t
		}
	}
	return api.ValueTypeExternref
}

// printReport writes a report for people.
func printReport(to io.Writer, r *fsck.Report) error {
	w := tabwriter.NewWriter(to, 0, 8, 2, ' ', 0)
	row := func(cells ...any) { fmt.Fprintln(w, strings.TrimSuffix(fmt.Sprintln(cells...), "\n")) }
	field := func(name, format string, args ...any) {
		row(name + "\t" +
			fmt.Sprintf(format, args...))
	}

	field("state", "%s", r.Dir)
	if r.Problem != "" {
		field("problem", "%s", r.Problem)
	}
	if r.InUse {
		field("in use", "%s", owner(r))
	}
	field("mode", "%s", r.Mode)
	field("commit", "%s", commits(r))
	field("module", "sha256 %s, %d bytes", r.Module, r.ModuleSize)
	if m := r.Memory; m != nil {
		field("memory", "%d wasm pages, %d bytes, at most %d wasm pages",
			m.WasmPages, m.Bytes, m.MaxPages)
	} else {
		field("memory", "none")
	}
	field("meta", "%d bytes", r.MetaBytes)
	field("tracker", "%s (%s)", r.Tracker, r.TrackerReason)
	w.Flush()

	section := func(name string, n int) {
		if n > 0 {
			w.Flush()
			fmt.Fprintf(to, "\n%s\n", name)
		}
	}
	section("globals", len(r.Globals))
	for _, g := range globals(r) {
		row(fmt.Sprintf("  %d\t%s\t%s\t%s", g.Index, escapeName(g.Name), g.Type, g.text))
	}
	section("tables", len(r.Tables))
	for _, t := range r.Tables {
		row(fmt.Sprintf("  %d\t%s\t%s", t.Index, t.Type, entries(t)))
	}
	section("segments", len(r.Segments))
	for _, s := range r.Segments {
		what := "there"
		if s.Dropped {
			what = "dropped"
		}
		row(fmt.Sprintf("  %s %d\t%s", s.Kind, s.Index, what))
	}
	section("slots", len(r.Slots))
	for i, s := range r.Slots {
		what := fmt.Sprintf("commit %d\twrite %d\t%d bytes", s.Seq, s.Write, s.Bytes)
		if s.Counts {
			what += "\tcounts"
		}
		if s.Problem != "" {
			what = s.Problem
		}
		row(fmt.Sprintf("  %d\t%s", i, what))
	}
	section("wal", len(r.WAL))
	for _, j := range r.WAL {
		what := j.State + "\t" + j.End
		if j.State == "open" {
			what = fmt.Sprintf("%s\t%d records\tcommits %d to %d\t%d of %d bytes\t%s",
				j.State, j.Records, j.BaseSeq+1, j.LastSeq, j.Used, j.Size, j.End)
		}
		row(fmt.Sprintf("  %s\t%s", j.Name, what))
	}
	section("files", len(r.Files))
	var onDisk int64
	for _, f := range r.Files {
		row(fmt.Sprintf("  %s\t%d bytes\t%d on disk", f.Name, f.Bytes, f.OnDisk))
		onDisk += f.OnDisk
	}
	row(fmt.Sprintf("  in all\t\t%d on disk", onDisk))
	return w.Flush()
}

func owner(r *fsck.Report) string {
	if r.Owner == 0 {
		return "by another process"
	}
	return fmt.Sprintf("by process %d", r.Owner)
}

func commits(r *fsck.Report) string {
	switch {
	case r.Mode == mmrun.Atomic.String():
		return fmt.Sprintf("%d (checkpoint %d, in the wal %d more)",
			r.Seq, r.CheckpointSeq, r.Seq-r.CheckpointSeq)
	case r.InEvent:
		return fmt.Sprintf("%d (inside event %d)", r.Seq, r.Event)
	case r.Clean:
		return fmt.Sprintf("%d (flushed)", r.Seq)
	}
	return fmt.Sprintf("%d (not flushed)", r.Seq)
}

// entries writes the content of a table, function indices with dots for null.
func entries(t fsck.TableReport) string {
	if !t.Changed {
		return "as instantiated"
	}
	const most = 32
	var b strings.Builder
	fmt.Fprintf(&b, "%d entries:", len(t.Entries))
	for _, e := range t.Entries[:min(most, len(t.Entries))] {
		if e < 0 {
			b.WriteString(" .")
		} else {
			fmt.Fprintf(&b, " %d", e)
		}
	}
	if len(t.Entries) > most {
		b.WriteString(" ...")
	}
	return b.String()
}

// Package report holds what a run of the benchmarks has found, and writes it as JSON, as Markdown
// and as plots.
package report

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
	"time"
)

// Results are all of a run.
type Results struct {
	Started time.Time `json:"started"`
	Seconds float64   `json:"seconds"`
	Quick   bool      `json:"quick"`
	Machine Machine   `json:"machine"`
	// Contestants are all that were asked to take part, with the reason if one could not.
	Contestants []Contestant `json:"contestants"`
	Tables      []Table      `json:"tables"`
}

// Machine is where the run was made.
type Machine struct {
	Kernel     string            `json:"kernel"`
	Processors int               `json:"processors"`
	Model      string            `json:"model"`
	MemoryMiB  int               `json:"memory_mib"`
	FileSystem string            `json:"file_system"`
	Versions   map[string]string `json:"versions"`
	// Floor are the costs of the bare machine, in microseconds unless the name says otherwise.
	Floor map[string]float64 `json:"floor"`
}

// Contestant is one way to keep a state, under one setting.
type Contestant struct {
	Name     string `json:"name"`
	Safety   string `json:"safety"`
	Settings string `json:"settings"`
	Missing  string `json:"missing,omitempty"`
}

// Table is one case of one workload: contestants that did the same work in turns.
type Table struct {
	Workload string `json:"workload"` // W1 to W9
	Case     string `json:"case"`
	Unit     string `json:"unit"`
	// Reference is the row that the others are compared with.
	Reference string `json:"reference"`
	// Floor is the row of the bare machine's work; empty: there is none.
	Floor string `json:"floor,omitempty"`
	// XName and XUnit name what Row.X is; empty: the rows have none.
	XName string `json:"x_name,omitempty"`
	Rows  []Row  `json:"rows"`
	Notes string `json:"notes,omitempty"`
}

// Row is what one contestant took.
type Row struct {
	Name   string  `json:"name"`
	Safety string  `json:"safety"`
	X      float64 `json:"x,omitempty"`
	// Samples are the costs of an operation, one a round; smaller is better.
	Samples []float64 `json:"samples,omitempty"`
	// CPU is the processor time of an operation, one a round, background work included.
	CPU     []float64 `json:"cpu,omitempty"`
	Latency *Latency  `json:"latency,omitempty"`
	// Failed says why there is no figure.
	Failed string `json:"failed,omitempty"`
}

// Latency are quantiles of single operations, in the unit of the table.
type Latency struct {
	P50  float64 `json:"p50"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p999"`
	Max  float64 `json:"max"`
	N    int64   `json:"n"`
}

// Quantile of samples, which stay as they are; NaN if there are none.
func Quantile(samples []float64, q float64) float64 {
	if len(samples) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(samples))
	return s[min(len(s)-1, int(q*float64(len(s))))]
}

// Median of the samples; NaN if there are none.
func (r *Row) Median() float64 { return Quantile(r.Samples, 0.5) }

// Row finds a row by its name and X.
func (t *Table) Row(name string, x float64) *Row {
	for i := range t.Rows {
		if t.Rows[i].Name == name && t.Rows[i].X == x {
			return &t.Rows[i]
		}
	}
	return nil
}

// Table finds a table.
func (r *Results) Table(workload, name string) *Table {
	for i := range r.Tables {
		if r.Tables[i].Workload == workload && r.Tables[i].Case == name {
			return &r.Tables[i]
		}
	}
	return nil
}

// Write writes the results as JSON.
func (r *Results) Write(path string) error {
	text, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}

// Read reads what Write has written.
func Read(path string) (*Results, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r := new(Results)
	if err := json.Unmarshal(text, r); err != nil {
		return nil, fmt.Errorf("%s: not the results of a run: %w", path, err)
	}
	return r, nil
}

package report

import (
	"errors"
	"fmt"
	"image/color"
	"math"
	"path/filepath"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// figure is a plot of one table over its X.
type figure struct {
	workload, name string // of the table
	file, title    string
	x, y           string
	logX           bool
}

var figures = []figure{
	{"W1", CaseMemory, "memory", "Cost of one event against the size of the memory",
		"MiB of memory", "µs an event", true},
	{"W3", CasePages, "pages", "Cost of one event against what it changes in 256 MiB",
		"pages of 4 KiB changed", "µs an event", true},
	{"W5", CaseRestart, "restart", "Time to the first answer after kill -9",
		"MiB of state", "ms", true},
	{"W7", CaseInstances, "instances", "Cost of one event against the number of instances",
		"instances", "µs an event", true},
}

// The names of the cases that are plotted.
const (
	CaseMemory    = "one event, by size of the memory"
	CasePages     = "one event, by pages changed"
	CaseRestart   = "whole process, warm page cache"
	CaseInstances = "round robin, kill -9 safe"
)

func plotsOf(workload string) (of []figure) {
	for _, f := range figures {
		if f.workload == workload {
			of = append(of, f)
		}
	}
	return of
}

// Plots writes each figure whose table is there as SVG and PNG into dir. Lines differ by dashes and
// marks as well as by colour.
func (r *Results) Plots(dir string) error {
	for _, f := range figures {
		t := r.Table(f.workload, f.name)
		if t == nil {
			continue
		}
		p, err := f.draw(t)
		if err != nil {
			return fmt.Errorf("%s: %w", f.file, err)
		}
		for _, kind := range []string{".svg", ".png"} {
			if err := p.Save(20*vg.Centimeter, 12*vg.Centimeter,
				filepath.Join(dir, f.file+kind)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (f figure) draw(t *Table) (*plot.Plot, error) {
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = f.title, f.x, f.y
	p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	if f.logX {
		p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	}
	p.Add(plotter.NewGrid())
	p.Legend.Top, p.Legend.Left = true, true
	p.Legend.TextStyle.Font.Size = vg.Points(8)
	drawn := 0
	for _, name := range t.names() {
		var points plotter.XYs
		for i := range t.Rows {
			if row := &t.Rows[i]; row.Name == name && row.Failed == "" && row.Median() > 0 {
				points = append(points, plotter.XY{X: row.X, Y: row.Median()})
			}
		}
		if len(points) == 0 {
			continue
		}
		line, marks, err := plotter.NewLinePoints(points)
		if err != nil {
			return nil, err
		}
		style(line, marks, drawn)
		p.Add(line, marks)
		p.Legend.Add(name, line, marks)
		drawn++
	}
	if drawn == 0 {
		return nil, errors.New("the table has no figures")
	}
	p.Y.Max *= math.Pow(10, 0.1*float64(drawn)) // room for the legend
	return p, nil
}

// names in the order of the table.
func (t *Table) names() (names []string) {
	seen := make(map[string]bool)
	for _, row := range t.Rows {
		if !seen[row.Name] {
			seen[row.Name] = true
			names = append(names, row.Name)
		}
	}
	return names
}

func style(line *plotter.Line, marks *plotter.Scatter, i int) {
	// Okabe and Ito's palette, which most kinds of colour vision tell apart.
	colours := []color.RGBA{
		{0, 0, 0, 255}, {230, 159, 0, 255}, {86, 180, 233, 255}, {0, 158, 115, 255},
		{0, 114, 178, 255}, {213, 94, 0, 255}, {204, 121, 167, 255},
	}
	glyphs := []draw.GlyphDrawer{draw.CircleGlyph{}, draw.SquareGlyph{}, draw.TriangleGlyph{},
		draw.CrossGlyph{}, draw.PlusGlyph{}, draw.RingGlyph{}, draw.BoxGlyph{}, draw.PyramidGlyph{}}
	dashes := [][]vg.Length{nil, {vg.Points(6), vg.Points(2)}, {vg.Points(2), vg.Points(2)},
		{vg.Points(6), vg.Points(2), vg.Points(2), vg.Points(2)}}
	line.Color, line.Width = colours[i%len(colours)], vg.Points(1.5)
	line.Dashes = dashes[i%len(dashes)]
	marks.Color, marks.Shape, marks.Radius = line.Color, glyphs[i%len(glyphs)], vg.Points(3)
}

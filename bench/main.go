//go:build linux

// Command bench measures mmrun beside what a user could take instead, on this machine, and writes a
// report.
//
// Usage:
//
//	go run . [--quick] [--only W1,W5] [--contestants REGEXP] [--out DIR] [--dir DIR] [--tail 10m]
//	go run . --compare OLD.json
//	go run . --ratios [--check] [--sections REGEXP] [--rounds N]
//
// It writes report.md, results.json and plots into the directory that --out names. What is not
// installed on the machine (Redis, CRIU) does not take part, and the report says so. With --compare
// the new results, those of --out, are held against older ones; nothing is measured.
//
// With --ratios it checks the ratios that mmrun claims for itself, and with --check its exit status
// is 1 if one does not hold.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"

	"github.com/mmrun/mmrun/bench/peers"
	"github.com/mmrun/mmrun/bench/ratios"
	"github.com/mmrun/mmrun/bench/report"
	"github.com/mmrun/mmrun/bench/work"
)

type options struct {
	quick             bool
	only, contestants string
	out, dir, compare string
	tail              time.Duration
	ratios, check     bool
	sections          string
	rounds            int
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "child" {
		fail(work.Child(os.Args[2:]))
	}
	var o options
	flag.BoolVar(&o.quick, "quick", false,
		"fewer rounds and smaller sizes: minutes instead of an hour")
	flag.StringVar(&o.only, "only", "", "only these workloads, such as W1,W5")
	flag.StringVar(&o.contestants, "contestants", "",
		"only contestants whose name matches this regular expression")
	flag.StringVar(&o.out, "out", "results", "where report.md, results.json and the plots go")
	flag.StringVar(&o.dir, "dir", os.TempDir(),
		"where the contestants' files go; its file system is part of what is measured")
	flag.StringVar(&o.compare, "compare", "",
		"older results: print what has changed beyond noise, measure nothing")
	flag.DurationVar(&o.tail, "tail", time.Minute, "how long each contestant of W9 runs")
	flag.BoolVar(&o.ratios, "ratios", false, "check the ratios that mmrun claims")
	flag.BoolVar(&o.check, "check", false, "with --ratios: exit with status 1 if one does not hold")
	flag.StringVar(&o.sections, "sections", "",
		"with --ratios: only sections whose name matches this regular expression")
	flag.IntVar(&o.rounds, "rounds", 51, "with --ratios: how often the contestants take turns")
	flag.Parse()
	if flag.NArg() > 0 {
		fail(fmt.Errorf("unexpected argument %q", flag.Arg(0)))
	}
	switch {
	case o.ratios:
		runtime.LockOSThread() // its clocks are this thread's
		holds, err := ratios.Measure(o.sections, o.rounds, o.dir, os.Stdout)
		fail(err)
		if o.check && !holds {
			os.Exit(1)
		}
	case o.compare != "":
		fail(o.comparison())
	default:
		fail(o.measure())
	}
}

// fail ends the program if there is an error.
func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
}

func (o *options) comparison() error {
	older, err := report.Read(o.compare)
	if err != nil {
		return err
	}
	newer, err := report.Read(filepath.Join(o.out, "results.json"))
	if err != nil {
		return err
	}
	return newer.Compare(os.Stdout, older)
}

// chosen are the workloads of --only.
func (o *options) chosen() ([]work.Workload, error) {
	if o.only == "" {
		return work.Workloads, nil
	}
	var all []work.Workload
	for id := range strings.SplitSeq(o.only, ",") {
		i := slices.IndexFunc(work.Workloads, func(w work.Workload) bool {
			return strings.EqualFold(w.ID, strings.TrimSpace(id))
		})
		if i < 0 {
			return nil, fmt.Errorf("no workload %q", id)
		}
		all = append(all, work.Workloads[i])
	}
	return all, nil
}

func (o *options) measure() (err error) {
	workloads, err := o.chosen()
	if err != nil {
		return err
	}
	match, err := regexp.Compile(o.contestants)
	if err != nil {
		return err
	}
	executable, err := os.Executable()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(o.dir, "mmrun-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	results := report.Results{Started: time.Now(), Quick: o.quick}
	if results.Machine, err = machine(o.dir); err != nil {
		return err
	}
	if results.Machine.Floor, err = work.Floor(dir); err != nil {
		return err
	}
	for _, p := range peers.All() {
		c := report.Contestant{Name: p.Name, Safety: p.Safety.String(), Settings: p.Settings}
		if why := p.Why(); why != nil {
			c.Missing = why.Error()
		}
		if match.MatchString(p.Name) {
			results.Contestants = append(results.Contestants, c)
		}
	}
	bar := newProgress(len(workloads))
	for _, w := range workloads {
		run := &work.Run{Config: work.Config{Dir: filepath.Join(dir, w.ID), Quick: o.quick,
			Peer: match.MatchString, Step: func(what string) { bar.step(w.ID, what) },
			Executable: executable, Tail: o.tail}}
		if o.quick {
			run.Tail = min(run.Tail, 5*time.Second)
		}
		if err := w.Run(run); err != nil {
			return fmt.Errorf("%s: %w", w.ID, err)
		}
		results.Tables = append(results.Tables, run.Tables...)
		bar.done()
		// What there is survives an interruption.
		results.Seconds = time.Since(results.Started).Seconds()
		if err := write(&results, o.out); err != nil {
			return err
		}
	}
	bar.end()
	fmt.Println(filepath.Join(o.out, "report.md"))
	return nil
}

func write(r *report.Results, out string) error {
	if err := r.Write(filepath.Join(out, "results.json")); err != nil {
		return err
	}
	if err := r.Plots(out); err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(out, "report.md"))
	if err != nil {
		return err
	}
	return errors.Join(r.Markdown(f), f.Close())
}

// progress shows workloads and what is going on in one.
type progress struct{ bar *progressbar.ProgressBar }

func newProgress(n int) progress {
	return progress{progressbar.NewOptions(n, progressbar.OptionSetWriter(os.Stderr),
		progressbar.OptionSetPredictTime(true), progressbar.OptionShowCount(),
		progressbar.OptionFullWidth(), progressbar.OptionSetElapsedTime(true))}
}

func (p progress) step(workload, what string) {
	what = strings.TrimPrefix(what, workload+", ")
	p.bar.Describe(workload + ": " + what)
}

func (p progress) done() { _ = p.bar.Add(1) }
func (p progress) end()  { _ = p.bar.Finish(); fmt.Fprintln(os.Stderr) }

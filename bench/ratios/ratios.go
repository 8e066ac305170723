//go:build linux

// Package ratios lets mmrun and its peers take turns inside one process and prints, as Markdown,
// what they cost and whether the ratios that mmrun claims hold.
//
// A figure is the median over all rounds, with the middle half of them in parentheses. In a round
// each contestant works for about half a millisecond, or for one operation if that takes longer, so
// that all meet the same machine and what disturbs one of them now and then does not count. Ratios
// are made from those medians.
package ratios

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"

	"golang.org/x/sys/unix"

	"github.com/mmrun/mmrun/bench/lab"
)

// section is a group of measurements that share contestants.
type section struct {
	name string
	run  func(*run) error
}

var sections = []section{
	{"event", oneEvent},
	{"commit", commitCost},
	{"random", randomPages},
	{"sync", syncRate},
	{"view", viewCost},
	{"rollback", rollbackCost},
	{"resume", resumeTime},
	{"recovery", recoveryTime},
	{"checkpoint", checkpointSpeed},
	{"background", backgroundCheckpoint},
	{"large", largeEvent},
}

// run is what the sections work with and what they leave.
type run struct {
	wasm    []byte
	dir     string
	rounds  int
	figures []figure
	claims  []claim
}

// figure is one line of the table of figures.
type figure struct{ what, value string }

// claim is one line of the table of claims.
type claim struct {
	what, measured, limit string
	holds                 bool
}

func (r *run) figure(what, format string, a ...any) {
	r.figures = append(r.figures, figure{what, fmt.Sprintf(format, a...)})
}

// atMost and atLeast note a claim and whether it holds.
func (r *run) atMost(what string, got, limit float64, unit string) {
	r.claims = append(r.claims, claim{what, number(got) + unit, "at most " + number(limit) + unit,
		got <= limit})
}

func (r *run) atLeast(what string, got, limit float64, unit string) {
	r.claims = append(r.claims, claim{what, number(got) + unit, "at least " + number(limit) + unit,
		got >= limit})
}

func number(f float64) string {
	switch {
	case f >= 1000:
		return fmt.Sprintf("%.0f", f)
	case f >= 10:
		return fmt.Sprintf("%.1f", f)
	}
	return fmt.Sprintf("%.2f", f)
}

// Measure runs the sections whose names match the regular expression pattern, each with rounds
// turns, and prints their claims and figures. The files go to directories under parent, whose file
// system is part of what is measured. It says whether all claims hold. The calling goroutine must
// be locked to its thread, see clock.
func Measure(pattern string, rounds int, parent string, out io.Writer) (holds bool, err error) {
	re, err := regexp.Compile(pattern)
	if err != nil {
		return false, err
	}
	wasm, err := lab.Module("stores")
	if err != nil {
		return false, err
	}
	all := run{}
	for _, s := range sections {
		if !re.MatchString(s.name) {
			continue
		}
		r := &run{wasm: wasm, rounds: rounds}
		if r.dir, err = os.MkdirTemp(parent, "mmrun-ratios-"); err != nil {
			return false, err
		}
		fmt.Fprintln(os.Stderr, "measuring:", s.name)
		err := s.run(r)
		if e := os.RemoveAll(r.dir); err == nil {
			err = e
		}
		if err != nil {
			return false, fmt.Errorf("%s: %w", s.name, err)
		}
		all.figures = append(all.figures, r.figures...)
		all.claims = append(all.claims, r.claims...)
		debug.FreeOSMemory()
	}
	return all.print(out, parent), nil
}

func (r *run) print(out io.Writer, dir string) (holds bool) {
	fmt.Fprintf(out, "%s, %d processors, files on %s.\n\n", Kernel(), runtime.NumCPU(),
		FileSystem(dir))
	fmt.Fprint(out, "| claim | measured | limit | |\n|---|---|---|---|\n")
	holds = true
	for _, c := range r.claims {
		verdict := "PASS"
		if !c.holds {
			verdict, holds = "**FAIL**", false
		}
		fmt.Fprintf(out, "| %s | %s | %s | %s |\n", c.what, c.measured, c.limit, verdict)
	}
	fmt.Fprint(out, "\n| what | cost |\n|---|---|\n")
	for _, f := range r.figures {
		fmt.Fprintf(out, "| %s | %s |\n", f.what, f.value)
	}
	return holds
}

// Kernel is the name and version of the kernel.
func Kernel() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return "Linux"
	}
	return "Linux " +
		regexp.MustCompile(`^\d+\.\d+`).FindString(unix.ByteSliceToString(u.Release[:]))
}

// FileSystem is the name of the file system that dir is on.
func FileSystem(dir string) string {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return err.Error()
	}
	switch s.Type {
	case unix.EXT4_SUPER_MAGIC:
		return "ext4"
	case unix.XFS_SUPER_MAGIC:
		return "xfs"
	case unix.BTRFS_SUPER_MAGIC:
		return "btrfs"
	case unix.TMPFS_MAGIC:
		return "tmpfs (which syncs nothing: choose another -dir)"
	}
	return fmt.Sprintf("a file system of type %#x", s.Type)
}

// path is a name in the section's own directory.
func (r *run) path(name string) string { return filepath.Join(r.dir, name) }

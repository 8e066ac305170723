package tests

import (
	"encoding/binary"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/mmrun/mmrun/internal/statedir"
	"github.com/mmrun/mmrun/internal/testkit/scratch"
	"github.com/mmrun/mmrun/vfs/faultfs"
)

var ablation = flag.Bool("ablation", false, "run TestEachSyncIsNeeded for every sync, with a table")

// syncSite names the place in the program that asked for a sync: the function that decided on it.
// WAL.Sync counts twice: the sealed segment, which it syncs first, and the active one, there with
// the function that called.
func syncSite(op *faultfs.Op) string {
	frames := strings.Split(faultfs.Site(modulePath), " < ")
	for i, f := range frames {
		name, _, _ := strings.Cut(f, ":")
		switch name {
		case "statedir.WriteFile", "globalsfile.(*File).Sync", "globalsfile.(*File).syncMapping",
			"pagefile.(*Checksums).Sync", "wal.(*Log).sync":
			continue
		case "wal.(*Log).Sync":
			if isOlderSegment(op.Path) {
				return f + ", sealed segment"
			}
			return frames[i+1] + ", active segment"
		case "statedir.(*batch).flush": // for whoever has put it off
			if op.Kind == faultfs.SyncDir {
				return f + ", names"
			}
			return f + ", " + filepath.Base(op.Path)
		}
		return f
	}
	return strings.Join(frames, " < ")
}

// isOlderSegment tells whether the other wal segment is open and begins later.
func isOlderSegment(path string) bool {
	base := func(name string) (seq uint64, open bool) {
		var header [32]byte
		f, err := os.Open(filepath.Join(filepath.Dir(path), name))
		if err != nil {
			return 0, false
		}
		defer f.Close()
		if _, err := f.ReadAt(header[:], 0); err != nil {
			return 0, false
		}
		le := binary.LittleEndian
		return le.Uint64(header[24:]), le.Uint32(header[12:]) == 1
	}
	other := statedir.WALNames[0]
	if filepath.Base(path) == other {
		other = statedir.WALNames[1]
	}
	mine, _ := base(filepath.Base(path))
	theirs, open := base(other)
	return open && theirs > mine
}

// notNeeded says of each sync that can be left out alone, as far as these workloads go, why it is
// there all the same.
var notNeeded = map[string]string{
	"globalsfile.(*File).SetHeader, 2nd": "matters when a copy of the header is damaged after a " +
		"cut: `TestBothHeaderCopiesAreDurable` (globalsfile)",
	"wal.Create": "whoever creates a state or converts one syncs the same directory later; " +
		"by itself Create needs it: `TestCreateIsDurable` (wal)",
	"engine.syncCopied": "matters when a state was copied: " +
		"`TestCopyOfAStateIsOnTheDiskBeforeACommit`",
}

// TestEachSyncIsNeeded leaves out one sync of the program at a time and cuts the power until a cut
// does harm. A sync that can be left out without harm is either not needed or not tested. At the
// end there is a table.
func TestEachSyncIsNeeded(t *testing.T) {
	if !*ablation {
		t.Skip("takes long; run with -ablation")
	}
	all := enumerations()
	slices.SortStableFunc(all,
		func(a, b namedEnumeration) int {
			return len(a.steps) - len(b.steps)
		})
	uses := make(map[string][]int) // by site: indexes of enumerations
	for i, e := range all {
		var mu sync.Mutex
		e.deepEvery = 40
		e.skip = func(op *faultfs.Op) bool {
			mu.Lock()
			defer mu.Unlock()
			if site := syncSite(op); !slices.Contains(uses[site], i) {
				uses[site] = append(uses[site], i)
			}
			return false
		}
		if r := e.run(t); len(r.violations) > 0 {
			t.Fatalf("%s: %s", e.name, r.violations[0])
		}
	}
	sites := slices.Sorted(maps.Keys(uses))
	table := "| sync left out | caught by | images |\n|---|---|---:|\n"
	names := make(map[string]bool)
	for n, site := range sites {
		name := siteName(sites, n)
		names[name] = true
		t.Run(name, func(t *testing.T) {
			caught, images := leaveOut(t, site, all, uses[site])
			caught = scratchPath.ReplaceAllString(caught, "")
			reason, exempt := notNeeded[name]
			switch {
			case caught != "" && exempt:
				t.Errorf("said not to be needed, but: %s", caught)
			case caught == "" && !exempt:
				t.Errorf("left out, and no cut did harm (%d images)", images)
			case exempt:
				caught = "nothing here; " + reason
			}
			table += fmt.Sprintf("| `%s` | %s | %d |\n", name, caught, images)
		})
	}
	for name := range notNeeded {
		if !names[name] {
			t.Errorf("there is no sync %s any more", name)
		}
	}
	t.Logf("%d syncs\n%s", len(sites), table)
}

// scratchPath matches the begin of a path in an image that was opened, or in the directory of a
// workload.
var scratchPath = regexp.MustCompile(`(/[^/\s]+)*/mmrun-test-[^/\s]+/([\d-]+/)?` +
	`((images|worker\d+)/\d+|w\b)/?`)

// siteName is site n without line numbers, but with a count where a function has several.
func siteName(sites []string, n int) string {
	bare := func(site string) string {
		name, rest, _ := strings.Cut(site, ":")
		if _, what, ok := strings.Cut(rest, ", "); ok {
			name += ", " + what
		}
		return name
	}
	name, before, same := bare(sites[n]), 0, 0
	for i, s := range sites {
		if bare(s) == name {
			same++
			if i < n {
				before++
			}
		}
	}
	if same > 1 {
		name += []string{", 1st", ", 2nd", ", 3rd"}[before]
	}
	return name
}

// leaveOut looks for a power cut that does harm without the syncs of one site: after any operation,
// or after a kill at any operation.
func leaveOut(t *testing.T, site string, all []namedEnumeration, use []int) (caught string,
	images int) {
	skip := func(op *faultfs.Op) bool { return syncSite(op) == site }
	for _, i := range use {
		e := all[i]
		e.seed, e.random, e.deepEvery, e.first, e.skip = 1, 3, 8, true, skip
		r := e.run(t)
		images += r.images + r.second
		if len(r.violations) > 0 {
			return e.name + ": " + r.violations[0], images
		}
	}
	m := newMachine(t)
	for _, w := range faultWorkloads() {
		want := predict(t, m.rt, m.wasm, w.mode, w.steps)
		ops := len(operations(t, w, want))
		scratch := scratch.Dir(t)
		for k := 1; k <= ops; k++ {
			dir := filepath.Join(scratch, fmt.Sprint(k))
			if err := os.Mkdir(dir, 0o777); err != nil {
				t.Fatal(err)
			}
			n, err := runWithCuts(m, dir, w, want, func(r *faultRun, cuts *ackCuts) {
				cuts.rec.Skip = skip
				killAt(k, r, cuts)
			})
			images += n
			if err != nil {
				return fmt.Sprintf("kill in %s: %v", w.name, err), images
			}
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
		}
	}
	return "", images
}

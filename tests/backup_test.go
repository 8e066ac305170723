package tests

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/archive"
	"github.com/mmrun/mmrun/internal/testkit/guests"
)

// A backup goes on after interruptions and damage of its end, over closes, kills and checkpoints of
// the state, and any commit that it has is what it was.
func TestBackup(t *testing.T) {
	for _, history := range []bool{true, false} {
		t.Run(fmt.Sprintf("history=%t", history), func(t *testing.T) { testBackup(t, history) })
	}
}

func testBackup(t *testing.T, keeps bool) {
	rounds := 60
	if testing.Short() {
		rounds = 12
	}
	rt, root := newRuntime(t), t.TempDir()
	dir, to := filepath.Join(root, "s"), filepath.Join(root, "backup")
	var opts []mmrun.Option
	if keeps {
		opts = append(opts, mmrun.WithHistory("all"))
	}
	in, err := openSeen(rt, dir, guests.Load(t, "stores"), opts...)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(seed(t), 15))
	values := map[uint64]uint64{}
	bases, n := 0, uint64(0)
	for round := range rounds {
		for range 1 + r.IntN(40) {
			n++
			call(t, in, "one", 64, n)
			values[in.Seq()] = n
			if r.IntN(30) == 0 {
				if err := in.Checkpoint(ctx); err != nil {
					t.Fatal(err)
				}
			}
		}
		last := in.Seq()
		switch r.IntN(3) {
		case 0:
			abandon(in)
			in = nil
		case 1:
			closeInstance(t, in)
			in = nil
		}
		if in != nil && !keeps {
			closeInstance(t, in) // it has to be closed for a snapshot
			in = nil
		}
		switch r.IntN(4) {
		case 0: // interrupted
			stopped, cancel := context.WithCancel(ctx)
			cancel()
			if _, err := archive.Backup(stopped, dir, to); err == nil && round == 0 {
				t.Error("a backup that was stopped says that it is done")
			}
		case 1: // and its end torn
			tear(t, to, r)
		}
		report, err := archive.Backup(ctx, dir, to)
		if err != nil {
			t.Fatal(err)
		}
		if report.Base != 0 {
			bases++
		}
		if report.Seq != last {
			t.Fatalf("round %d: %+v, the state is at %d", round, report, last)
		}
		again, err := archive.Backup(ctx, dir, to)
		if err != nil || again.Records != 0 || keeps && again.Base != 0 || again.Seq != last {
			t.Fatalf("again: %+v %v", again, err)
		}
		seqs := []uint64{0, last}
		if keeps {
			seqs = append(seqs, 2+r.Uint64N(last-1), 2+r.Uint64N(last-1))
		}
		for _, seq := range seqs {
			made := filepath.Join(root, "made")
			got, err := archive.Archiver{}.RestoreBackup(ctx, to, seq, made)
			if err != nil || seq == 0 && got != last || seq != 0 && got != seq {
				t.Fatalf("restore of %d of %d: %d, %v", seq, last, got, err)
			}
			f := open(t, rt, made, nil)
			if v := call64(t, f, "load", 64); v != values[got] && values[got] != 0 {
				t.Fatalf("commit %d: %d, want %d", got, v, values[got])
			}
			closeInstance(t, f)
			if err := os.RemoveAll(made); err != nil {
				t.Fatal(err)
			}
		}
		if in == nil {
			if in, err = openSeen(rt, dir, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	closeInstance(t, in)
	t.Logf("%d rounds, %d bases", rounds, bases)
	if keeps && bases > 1+rounds/4 {
		t.Errorf("%d bases were shipped in %d rounds", bases, rounds)
	}
}

// tear cuts the newest log of a backup.
func tear(t *testing.T, backup string, r *rand.Rand) {
	logs, err := filepath.Glob(filepath.Join(backup, "history", "*.log"))
	if err != nil || len(logs) == 0 {
		return
	}
	newest := logs[len(logs)-1]
	info, err := os.Stat(newest)
	if err == nil {
		err = os.Truncate(newest, r.Int64N(info.Size()+1))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A backup never mixes two courses of a state, nor two states.
func TestBackupOfAnotherCourse(t *testing.T) {
	rt, root := newRuntime(t), t.TempDir()
	dir, to := filepath.Join(root, "s"), filepath.Join(root, "backup")
	other := filepath.Join(root, "other")
	write := func(dir string, from, n uint64) {
		in := open(t, rt, dir, nil)
		for i := range n {
			call(t, in, "one", 64, from+i)
		}
		closeInstance(t, in)
	}
	closeInstance(t, open(t, rt, dir, guests.Load(t, "stores"), mmrun.WithHistory("all")))
	write(dir, 1, 10)
	// The same commits, up to here.
	if err := os.CopyFS(other, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	write(dir, 100, 10)
	if _, err := archive.Backup(ctx, dir, to); err != nil {
		t.Fatal(err)
	}
	write(other, 200, 5)
	if _, err := archive.Backup(ctx, other, to); err == nil ||
		!strings.Contains(err.Error(), "another course") {
		t.Errorf("a state that is behind: %v", err)
	}
	write(other, 300, 20) // now it is ahead
	report, err := archive.Backup(ctx, other, to)
	if err != nil || report.Base == 0 {
		t.Fatalf("%+v %v", report, err)
	}
	for seq, want := range map[uint64]uint64{21: 109, 11: 10, report.Seq: 319} {
		made := filepath.Join(root, fmt.Sprint(seq))
		if err := archive.ForkAt(ctx, to, seq, made); err != nil {
			t.Fatal(seq, err)
		}
		f := open(t, rt, made, nil)
		if got := call64(t, f, "load", 64); got != want {
			t.Errorf("commit %d: %d, want %d", seq, got, want)
		}
		closeInstance(t, f)
	}
	// What it does not have, since it had the other course then, it says.
	err = archive.ForkAt(ctx, to, 25, filepath.Join(root, "x"))
	if !errors.Is(err, archive.ErrMissing) {
		t.Errorf("a commit of neither course: %v", err)
	}
}

// A history that has lost what came last does not make a backup believe that there is nothing new.
func TestBackupOfABrokenHistory(t *testing.T) {
	rt, root := newRuntime(t), t.TempDir()
	dir, to := filepath.Join(root, "s"), filepath.Join(root, "backup")
	in := open(t, rt, dir, guests.Load(t, "stores"), mmrun.WithHistory("all"))
	call(t, in, "one", 64, 1)
	closeInstance(t, in)
	in = open(t, rt, dir, nil)
	call(t, in, "one", 64, 2)
	if err := in.Checkpoint(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := archive.Backup(ctx, dir, to); err != nil {
		t.Fatal(err)
	}
	closeInstance(t, in)
	in = open(t, rt, dir, nil)
	obstacle := filepath.Join(dir, "history", fmt.Sprintf("%020d.log", in.Seq()+1))
	if err := os.Mkdir(obstacle, 0o700); err != nil {
		t.Fatal(err)
	}
	call(t, in, "one", 64, 3)
	closeInstance(t, in)
	if err := os.Remove(obstacle); err != nil {
		t.Fatal(err)
	}
	report, err := archive.Backup(ctx, dir, to)
	if err != nil || report.Base != report.Seq || report.Seq != report.Before+1 {
		t.Errorf("%+v %v", report, err)
	}
}

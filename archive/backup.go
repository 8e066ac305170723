package archive

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/mmrun/mmrun/internal/engine"
	"github.com/mmrun/mmrun/internal/errs"
	"github.com/mmrun/mmrun/internal/history"
	"github.com/mmrun/mmrun/internal/snapshot"
	"github.com/mmrun/mmrun/internal/statedir"
	"github.com/mmrun/mmrun/wal"
)

// BackupReport says what a backup has shipped.
type BackupReport struct {
	Seq     uint64 `json:"seq"`     // of the last commit in the backup
	Before  uint64 `json:"before"`  // the one of the backup before, 0 if there was none
	Base    uint64 `json:"base"`    // commit of which a whole snapshot was shipped, 0 if of none
	Records int    `json:"records"` // commits that were shipped one by one
}

// Backup brings the directory to, which it makes if it is not there, up to the last commit of the
// state in dir. The first time it ships a snapshot, then what was committed since, if the state
// keeps a history (mmrun.WithHistory): without one it ships a snapshot each time. The state may be
// in use, unless a snapshot is needed that its history does not have. After an interruption the
// next call goes on; what was in the backup before stays there.
//
// [Archiver.RestoreBackup], [ForkAt] and [CheckOut] read it. A backup is of one course of a state:
// if that has gone back since (an upgrade undone, a repair), another directory must be begun.
func Backup(ctx context.Context, dir, to string) (*BackupReport, error) {
	return Archiver{}.Backup(ctx, dir, to)
}

// Backup is the function of that name.
func (a Archiver) Backup(ctx context.Context, dir, to string) (_ *BackupReport, err error) {
	a = a.orDefault()
	b := &backup{a: a, ctx: ctx, dir: filepath.Clean(dir), to: filepath.Clean(to)}
	if err := statedir.MustExist(b.dir); err != nil {
		return nil, err
	}
	if isState(b.to) {
		return nil, errs.State(b.to, "", errors.New("it is a state, no backup"))
	}
	if b.w, err = history.Open(b.to, history.Keep{All: true}); err != nil {
		return nil, fmt.Errorf("backup %s: %w", b.to, err)
	}
	defer func() { err = errors.Join(err, b.w.Close()) }()
	if err := b.run(); err != nil {
		return nil, fmt.Errorf("backup %s: %w", b.to, err)
	}
	return &b.report, nil
}

// backup is one call of Backup.
type backup struct {
	a      Archiver
	ctx    context.Context
	dir    string
	to     string
	w      *history.Writer
	last   uint64 // commit that the backup has
	record []byte // of it, nil if there is a base of it alone
	report BackupReport
}

// errGap: the state does not have the records that come behind the backup's.
var errGap = errors.New("records are missing")

func (b *backup) run() error {
	if err := b.shipped(); err != nil {
		return err
	}
	b.report.Before = b.last
	// What a checkpoint brings from the log to the history meanwhile may be seen in neither.
	err := errGap
	for try := 0; try < 3 && errors.Is(err, errGap) && b.last > 0; try++ {
		err = b.follow()
	}
	if errors.Is(err, errGap) {
		if err = b.base(); err == nil {
			if err = b.follow(); errors.Is(err, errGap) {
				err = nil // the next backup ships what has come since
			}
		}
	}
	b.report.Seq = b.last
	return errors.Join(err, b.w.Flush())
}

// shipped finds what the backup has.
func (b *backup) shipped() error {
	bases, err := history.Bases(b.to)
	if err != nil || len(bases) == 0 {
		return err
	}
	newest := bases[len(bases)-1]
	b.last, err = history.Records(b.to, newest, func(r wal.Record) (bool, error) {
		b.record = wal.EncodeRecord(b.record[:0], r)
		return true, b.ctx.Err()
	})
	return err
}

// follow ships the records behind the last commit that was shipped, if it is this state's.
func (b *backup) follow() error {
	known := b.last == b.report.Base // it has just been shipped
	if !known && b.record == nil {
		var err error
		known, err = sameFile(history.BasePath(b.dir, b.last), history.BasePath(b.to, b.last))
		if err != nil {
			return err
		}
	}
	at, err := walk(b.dir, b.last, func(r wal.Record) error {
		if err := b.ctx.Err(); err != nil {
			return err
		}
		switch {
		case r.Seq == b.last+1 && known:
			b.w.Add(r)
			b.last, b.record = r.Seq, wal.EncodeRecord(b.record[:0], r)
			b.report.Records++
		case r.Seq > b.last:
			return errGap
		case r.Seq == b.last && !known && b.record != nil:
			if !bytes.Equal(wal.EncodeRecord(nil, r), b.record) {
				return errGap
			}
			known = true
		}
		return nil
	})
	if err == nil && (!known || at > b.last) {
		err = errGap
	}
	return err
}

// base ships a snapshot: the newest one of the history, if the backup does not have it, or one that
// is made.
func (b *backup) base() error {
	bases, err := history.Bases(b.dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	var seq uint64
	err = history.WriteBase(b.to, func(w io.Writer) (uint64, error) {
		if seq, err = b.writeBase(w, bases); err == nil && seq < b.last {
			err = fmt.Errorf("it is of another course of the state: it has commit %d, the state "+
				"is "+
				"at %d (an upgrade was undone, or a repair has gone back): begin another directory",
				b.last, seq)
		}
		return seq, err
	})
	if err != nil {
		return err
	}
	b.report.Base, b.last, b.record = seq, seq, nil
	return nil
}

func (b *backup) writeBase(w io.Writer, bases []uint64) (seq uint64, err error) {
	if n := len(bases); n > 0 && bases[n-1] > b.last {
		f, err := os.Open(history.BasePath(b.dir, bases[n-1]))
		if err != nil {
			return 0, err
		}
		defer f.Close()
		im, err := snapshot.Read(io.TeeReader(f, w)) // it is checked on its way
		if err != nil {
			return 0, err
		}
		err = im.Pages(func(uint64, []byte) error { return b.ctx.Err() })
		if err == nil && im.State.Seq != bases[n-1] {
			err = fmt.Errorf("%s is of commit %d", f.Name(), im.State.Seq)
		}
		return im.State.Seq, errors.Join(err, im.Close())
	}
	m, err := b.a.Snapshot(b.ctx, b.dir, w)
	if err != nil {
		return 0, err
	}
	return m.Seq, nil
}

// sameFile tells whether two files have the same content; one that is missing has not.
func sameFile(a, b string) (bool, error) {
	var sums [2][]byte
	for i, path := range []string{a, b} {
		f, err := os.Open(path)
		if errors.Is(err, os.ErrNotExist) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		h := sha256.New()
		_, err = io.Copy(h, f)
		if err = errors.Join(err, f.Close()); err != nil {
			return false, err
		}
		sums[i] = h.Sum(nil)
	}
	return bytes.Equal(sums[0], sums[1]), nil
}

// IsBackup tells whether a directory has been made by [Backup].
func IsBackup(dir string) bool {
	bases, err := history.Bases(dir)
	return err == nil && len(bases) > 0 && !isState(dir)
}

func isState(dir string) bool {
	_, err := os.Lstat(filepath.Join(dir, statedir.GlobalsName))
	return err == nil
}

// RestoreBackup makes a state in to of a commit of a backup, the last one if seq is 0, and returns
// its number.
func (a Archiver) RestoreBackup(ctx context.Context, from string, seq uint64, to string) (
	uint64, error) {
	if seq == 0 {
		b := backup{ctx: ctx, to: filepath.Clean(from)}
		if err := b.shipped(); err != nil {
			return 0, fmt.Errorf("backup %s: %w", from, err)
		}
		seq = b.last
	}
	return seq, a.at(ctx, from, seq, to, func(im *engine.Image) { im.Derive(engine.Restored) })
}

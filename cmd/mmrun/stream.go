package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"strings"
	"time"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/internal/values"
)

// files runs the events of a file into another one, each once: how far both have come is committed
// with each event (mmrun.Stream).
//
// The output is written after the commit, and may not have reached the disk, or the file, when
// something comes in between. So the state has it, too, until the file is known to have it: see
// exactOutput.
func (l *eventLoop) files(ctx context.Context, f runFlags) error {
	var at mmrun.Stream
	err := l.in.View(ctx, func(tx *mmrun.Tx) (err error) {
		at, err = tx.Stream()
		return err
	})
	if err != nil {
		return err
	}
	in, err := openInput(f.in, at)
	if err != nil {
		return fmt.Errorf("--in %s: %w", f.in, err)
	}
	defer in.file.Close()
	out, err := openOutput(f.out, at)
	if err != nil {
		return fmt.Errorf("--out %s: %w", f.out, err)
	}
	defer out.file.Close()
	if f.follow {
		in.follow(l.stop.stopped)
	}
	err = l.pump(ctx, in, out)
	return firstError(err, out.finish())
}

func (l *eventLoop) pump(ctx context.Context, in *exactInput, out *exactOutput) error {
	fs := functions(l.in.Functions())
	garbage := newCollector()
	defer garbage.restore()
	for {
		garbage.betweenEvents()
		p, err := l.frame.read(in.buffered)
		switch {
		case errors.Is(err, io.EOF), in.ended():
			return l.ended()
		case errors.Is(err, errPartial):
			l.app.message("the last %d bytes of the input are no whole event yet: they wait",
				p.size)
			return l.ended()
		case err != nil:
			return err
		}
		next := in.after(p.size)
		if l.skipped(p) {
			in.take(next)
			continue
		}
		if !l.stop.begin() {
			return l.ended()
		}
		answer, err := l.exactly(ctx, fs, p, next, out)
		l.stop.end()
		if err != nil {
			return err
		}
		in.take(next)
		if err := out.write(answer); err != nil {
			return fmt.Errorf("commit %d was made, and its output could not be written (the next "+
				"run "+
				"will write it): %w", l.in.Seq(), err)
		}
	}
}

// exactly runs one event that takes the input up to next. The error is one that ends the loop.
func (l *eventLoop) exactly(ctx context.Context, fs functions, p piece, next position,
	out *exactOutput) (
	answer []byte, err error) {
	moved := func(tx *mmrun.Tx, answer []byte) error {
		tx.SetStream(next.stream(out, answer))
		return nil
	}
	if l.handle {
		answer, err = l.handler(ctx, p, moved)
	} else {
		answer, err = l.exactCall(ctx, fs, p, moved)
	}
	if err == nil {
		return answer, nil
	}
	if errors.Is(err, mmrun.ErrPoisoned) || errors.Is(err, mmrun.ErrClosed) {
		return nil, err
	}
	l.tell(err)
	answer = nil
	if l.handle {
		l.failed++
	}
	if !l.handle || l.app.json {
		answer = l.line(nil, err)
	}
	// It has failed for good: the input goes on behind it.
	return answer, l.in.Update(ctx, func(tx *mmrun.Tx) error { return moved(tx, answer) })
}

func (l *eventLoop) exactCall(ctx context.Context, fs functions, p piece,
	moved func(tx *mmrun.Tx, answer []byte) error) (answer []byte, err error) {
	if p.err != nil {
		return nil, p.err
	}
	fields := strings.Fields(string(p.data))
	name := fields[0]
	stack, err := fs.arguments(name, fields[1:])
	if err != nil {
		return nil, err
	}
	ctx, cancel := l.timeout(ctx)
	defer cancel()
	err = l.in.Update(ctx, func(tx *mmrun.Tx) error {
		results, err := tx.Call(ctx, name, stack...)
		if err != nil {
			return err
		}
		answer = l.lineAt(tx.Seq(), values.Unstack(fs[name].ResultTypes(), results))
		return moved(tx, answer)
	})
	if err != nil {
		l.effects.drop()
		return nil, l.session.failed(ctx, err)
	}
	l.release()
	return answer, nil
}

// position is how far the input has been taken.
type position struct {
	in   int64
	hash []byte // state of the digest of all before it
}

// stream is the position that goes into the commit of an event with that answer.
func (p position) stream(out *exactOutput, answer []byte) mmrun.Stream {
	return mmrun.Stream{In: p.in, Check: p.hash, Out: out.synced,
		Pending: append(out.pending[:len(out.pending):len(out.pending)], answer...)}
}

// exactInput is an input that is read once. The digest of all that has been taken tells it from
// another one.
type exactInput struct {
	file     *os.File
	buffered *bufio.Reader
	at       int64
	hash     hash.Hash
	taken    *teeHash
	stopped  <-chan struct{} // of an input that is followed
}

// teeHash keeps what was read and not taken yet.
type teeHash struct{ unread bytes.Buffer }

func openInput(path string, at mmrun.Stream) (*exactInput, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	in := &exactInput{file: f, at: at.In, hash: sha256.New(), taken: &teeHash{}}
	if err := in.check(at); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	in.buffered = bufio.NewReaderSize(io.TeeReader(f, &in.taken.unread), maxLine)
	return in, nil
}

// check reads what has been taken before, and leaves the file behind it.
func (in *exactInput) check(at mmrun.Stream) error {
	info, err := in.file.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return errors.New("not a regular file: only what is read from one can be read once")
	}
	n, err := io.CopyN(in.hash, in.file, at.In)
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("the input has been cut: %d bytes of it have been taken, there are %d",
			at.In, n)
	}
	if err != nil {
		return err
	}
	if state, err := marshal(in.hash); err != nil || at.In > 0 && !bytes.Equal(state, at.Check) {
		return errors.Join(fmt.Errorf("the first %d bytes are not those that have been taken: it "+
			"is another "+
			"input, or it was changed", at.In), err)
	}
	return nil
}

func marshal(h hash.Hash) ([]byte, error) { return h.(encoding.BinaryMarshaler).MarshalBinary() }

// after is the position behind the next size bytes, which have been read.
func (in *exactInput) after(size int64) position {
	in.hash.Write(in.taken.unread.Next(int(size)))
	state, err := marshal(in.hash)
	if err != nil {
		panic(err) // the digest of the standard library can do it
	}
	return position{in.at + size, state}
}

func (in *exactInput) take(p position) { in.at = p.in }

// follow makes the input wait at its end for more, until stopped.
func (in *exactInput) follow(stopped <-chan struct{}) {
	in.stopped = stopped
	in.buffered = bufio.NewReaderSize(io.TeeReader(&follower{in: in}, &in.taken.unread), maxLine)
}

// ended tells whether an input that is followed has been told to stop.
func (in *exactInput) ended() bool {
	select {
	case <-in.stopped: // nil if it is not followed
		return true
	default:
		return false
	}
}

// follower reads a file that grows.
type follower struct{ in *exactInput }

// pollEvery is how long a follower waits at the end of its file.
const pollEvery = 20 * time.Millisecond

func (f *follower) Read(p []byte) (int, error) {
	for {
		n, err := f.in.file.Read(p)
		if n > 0 || err != nil && !errors.Is(err, io.EOF) {
			return n, err
		}
		if err := f.check(); err != nil {
			return 0, err
		}
		select {
		case <-f.in.stopped:
			return 0, io.EOF
		case <-time.After(pollEvery):
		}
	}
}

// check notices that the file has been cut, or that another one has its name.
func (f *follower) check() error {
	info, err := f.in.file.Stat()
	if err != nil {
		return err
	}
	at, err := f.in.file.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	if info.Size() < at {
		return fmt.Errorf("--in: %s has been cut: %d bytes of it have been read, there are %d",
			f.in.file.Name(), at, info.Size())
	}
	if named, err := os.Stat(f.in.file.Name()); err == nil && !os.SameFile(named, info) {
		return fmt.Errorf("--in: %s has been replaced by another file", f.in.file.Name())
	}
	return nil
}

// exactOutput is an output that is written once. What is not known to be on the disk is in the
// state as well, so that whatever was lost of it can be written again.
type exactOutput struct {
	file    *os.File
	synced  int64  // bytes that are known to be on the disk
	pending []byte // what follows them
}

// mostPending is how much output the state keeps, in bytes, before the file is synced.
const mostPending = 64 << 10

func openOutput(path string, at mmrun.Stream) (*exactOutput, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return nil, err
	}
	out := &exactOutput{file: f, synced: at.Out, pending: at.Pending}
	if err := out.recover(at); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return out, nil
}

// recover makes the file what the last commit says.
func (o *exactOutput) recover(at mmrun.Stream) error {
	info, err := o.file.Stat()
	if err != nil {
		return err
	}
	switch size := info.Size(); {
	case !info.Mode().IsRegular():
		return errors.New("not a regular file: only what is written to one can be written once")
	case at.In == 0 && at.Out == 0 && size > 0:
		return fmt.Errorf("the file holds %d bytes that this state has not written: give an "+
			"empty one", size)
	case size < at.Out:
		return fmt.Errorf("the output has been cut: %d bytes of it were on the disk, there are %d",
			at.Out, size)
	}
	if _, err := o.file.WriteAt(o.pending, o.synced); err != nil {
		return err
	}
	return o.file.Truncate(o.synced + int64(len(o.pending)))
}

// write writes what has been committed.
func (o *exactOutput) write(b []byte) error {
	if _, err := o.file.WriteAt(b, o.synced+int64(len(o.pending))); err != nil {
		return err
	}
	o.pending = append(o.pending, b...)
	if len(o.pending) < mostPending {
		return nil
	}
	return o.finish()
}

// finish makes all that was written durable. The state learns of it with its next commit.
func (o *exactOutput) finish() error {
	if err := o.file.Sync(); err != nil {
		return err
	}
	o.synced += int64(len(o.pending))
	o.pending = nil
	return nil
}

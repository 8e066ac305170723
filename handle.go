package mmrun

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/tetratelabs/wazero/api"

	"github.com/mmrun/mmrun/internal/engine"
	"github.com/mmrun/mmrun/internal/errs"
	"github.com/mmrun/mmrun/internal/receipts"
	"github.com/mmrun/mmrun/internal/section"
)

// HandlerName is the export of a guest that takes events by its standard input: a function without
// parameters, and without a result or with an i32 of which anything but 0 refuses the event.
const HandlerName = "handle"

// flusher is an export that Handle calls with 0 behind the handler, if there is one: C's fflush,
// which writes out what standard output has buffered.
const flusher = "fflush"

// MaxEffect is how much one event may print, in bytes: 64 MiB. Until the commit all of it is kept
// in memory.
const MaxEffect = 64 << 20

// WithHandler gives the guest's standard input and output to its events, which [Instance.Handle]
// needs: what the guest reads is the event's bytes, and then end of file; what it prints is the
// event's effect. Those that WithModuleConfig gives are not used.
//
// An event that is not one of Handle reads an empty input. What it prints is written to rest, after
// the commit, and an error of that is not told; if rest is nil, it is discarded. rest is used by
// one goroutine at a time.
func WithHandler(rest io.Writer) Option {
	return func(o *engine.Options) error {
		if rest == nil {
			rest = io.Discard
		}
		o.Handler = &stdio{rest: rest}
		return nil
	}
}

// stdio is the standard input and output of a guest. It belongs to whoever has entered the store;
// only mu is for those who write out what an event has printed.
type stdio struct {
	input  []byte // of the event, what has not been read yet
	output []byte
	full   bool // the guest has tried to print more than MaxEffect

	rest io.Writer
	turn chan struct{} // holds a token while nobody writes to rest
}

func (s *stdio) Read(p []byte) (int, error) {
	n := copy(p, s.input)
	s.input = s.input[n:]
	if n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return n, nil
}

// stdout is the other direction.
type stdout struct{ *stdio }

func (s stdout) Write(p []byte) (int, error) {
	if len(s.output)+len(p) > MaxEffect {
		s.full = true
		return 0, errTooMuchOutput
	}
	s.output = append(s.output, p...)
	return len(p), nil
}

var errTooMuchOutput = fmt.Errorf("an event prints more than %d bytes", MaxEffect)

// take is what has been printed so far; nothing of it is left.
func (s *stdio) take() []byte {
	if len(s.output) == 0 {
		return nil
	}
	b := bytes.Clone(s.output)
	s.reset()
	return b
}

func (s *stdio) reset() {
	s.input, s.full = nil, false
	const keep = 1 << 20
	if s.output = s.output[:0]; cap(s.output) > keep {
		s.output = nil
	}
}

// release writes out what events that are not handlers have printed.
func (s *stdio) release(b []byte) error {
	s.turn <- struct{}{}
	defer func() { <-s.turn }()
	_, err := s.rest.Write(b)
	return err
}

// Handle runs the guest's handler as one event: the guest reads the bytes from its standard input
// and finds end of file behind them, and the effect is what it has printed, when that may be let
// out: after the commit and, under SyncAlways, its sync. An event that the handler refuses
// ([ErrRefused]), or that fails in any other way, is rolled back, and nothing of what it printed is
// returned. The guest's standard error is written as the module configuration says.
//
// The instance must have been opened with [WithHandler]. docs/handlers.md says what programs in
// several languages have to do so that all that they print has left them when the handler returns.
func (in *Instance) Handle(ctx context.Context, event []byte) (effect []byte, err error) {
	err = in.Update(ctx, func(tx *Tx) error {
		effect, err = tx.Handle(ctx, event)
		return err
	})
	if err != nil {
		return nil, err
	}
	return effect, nil
}

// Handle is a call of the handler inside an event; see [Instance.Handle]. The effect must not be
// let out before the commit.
func (tx *Tx) Handle(ctx context.Context, event []byte) (effect []byte, err error) {
	if err := tx.usable(); err != nil {
		return nil, err
	}
	io := tx.in.io
	if io == nil {
		return nil, errs.As(ErrUnsupported, fmt.Errorf(
			"state %s: it was opened without WithHandler, which Handle needs", tx.in.Dir()))
	}
	f, err := tx.in.function(HandlerName, 0)
	if err != nil {
		return nil, err
	}
	if r := f.def.ResultTypes(); len(r) > 1 || len(r) == 1 && r[0] != api.ValueTypeI32 {
		return nil, errs.As(ErrUnsupported,
			fmt.Errorf("function %s is %s: a handler has no result or "+
				"an i32", HandlerName, Signature(f.def)))
	}
	before := io.take()
	defer func() { io.output = append(before, io.output...) }()
	io.input = event
	if err := f.call(ctx, nil); err != nil {
		return nil, tx.in.event.note(err)
	}
	if code := int32(f.firstResult()); code != 0 {
		return nil, tx.in.event.note(&EventError{Function: HandlerName, Err: &RefusedError{code}})
	}
	if flush, err := tx.in.find(flusher); err == nil && takesAndGivesI32(flush.def, 1) {
		if err := flush.call(ctx, []uint64{0}); err != nil {
			return nil, tx.in.event.note(err)
		}
	}
	if io.full {
		return nil, tx.in.event.note(&EventError{Function: HandlerName,
			Err: errs.As(ErrEffectTooLarge, errTooMuchOutput)})
	}
	effect = io.take()
	io.input = nil
	return effect, nil
}

// RefusedError is the cause of an event that the guest's handler has refused. It wraps ErrRefused.
type RefusedError struct {
	Code int32 // what the handler returned, not 0
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("the guest has refused the event with code %d", e.Code)
}

// Unwrap gives the kind.
func (e *RefusedError) Unwrap() error { return ErrRefused }

// Request is what makes two events the same one: see [Instance.Once].
type Request struct {
	Key      string // chosen by whoever asks, at most 256 bytes and not empty
	Function string // what it is about
	Body     []byte
}

func (r Request) digest() receipts.Digest {
	h := sha256.New()
	var length [8]byte
	binary.LittleEndian.PutUint64(length[:], uint64(len(r.Function)))
	h.Write(length[:])
	io.WriteString(h, r.Function)
	h.Write(r.Body)
	return receipts.Digest(h.Sum(nil)[:len(receipts.Digest{})])
}

// Outcome is what has become of a request.
type Outcome struct {
	Effect   []byte
	Seq      uint64 // of the commit
	Repeated bool   // by an earlier event with the same key
}

// Once runs fn as an event, unless an event with the same key has been committed before: then it
// gives that one's effect again, also after a kill. So a request may be repeated by whoever does
// not know what has become of it. One that comes while the first still runs waits for it.
//
// The receipt is a part of the commit. The newest ones are kept, 1,024 or 1 MiB of them. The same
// key with another function or body is refused ([ErrKeyReused]); an event whose effect has no room
// is rolled back ([ErrEffectTooLarge]).
func (in *Instance) Once(ctx context.Context, r Request,
	fn func(tx *Tx) (effect []byte, err error)) (
	Outcome, error) {
	if r.Key == "" || len(r.Key) > receipts.MostKey {
		return Outcome{}, fmt.Errorf("a key of %d bytes: want 1 to %d", len(r.Key),
			receipts.MostKey)
	}
	var out Outcome
	again := errors.New("repeated")
	err := in.Update(ctx, func(tx *Tx) error {
		table, err := in.receipts()
		if err != nil {
			return err
		}
		if old, ok := table.Find(r.Key); ok {
			if old.Digest != r.digest() {
				return errs.As(ErrKeyReused, fmt.Errorf(
					"key %q: it has been used for another request, in commit %d", r.Key, old.Seq))
			}
			out = Outcome{bytes.Clone(old.Effect), old.Seq, true}
			return again // nothing to commit
		}
		if out.Effect, err = fn(tx); err != nil {
			return err
		}
		if !receipts.Fits(r.Key, out.Effect) {
			return errs.As(ErrEffectTooLarge,
				fmt.Errorf("an effect of %d bytes has no room among the "+
					"receipts, which have %d", len(out.Effect), receipts.MostBytes))
		}
		out.Seq = tx.Seq()
		b, appended := table.Plan(receipts.Receipt{Key: r.Key, Digest: r.digest(), Seq: out.Seq,
			Effect: out.Effect})
		in.event.receipt = table
		tx.keep(engine.Change{ID: section.Receipts, Bytes: b, Append: appended})
		return nil
	})
	if out.Repeated && errors.Is(err, again) {
		// It must not be told before the first one was.
		return out, in.store.Durable(out.Seq)
	}
	if err != nil {
		return Outcome{}, err
	}
	return out, nil
}

// receipts are those of the last commit, read when they are first needed.
func (in *Instance) receipts() (*receipts.Table, error) {
	if in.receipted == nil {
		table, err := receipts.Load(bytes.Clone(in.store.Kept(section.Receipts)))
		if err != nil {
			return nil, errs.Statef(ErrCorrupt, in.Dir(), "%w", err)
		}
		in.receipted = table
	}
	return in.receipted, nil
}

// Stream is how far a state has come along an input and an output, as of a commit. Whoever feeds a
// state from a file and writes its effects to another one sets it in each event, and after a kill
// goes on where it says: then each part of the input has its effect once.
type Stream struct {
	In    int64  // bytes of the input that events have taken
	Check []byte // whatever tells the input from another one
	Out   int64  // bytes of the output that are known to be on the disk
	// Pending is the output behind those: it has to be written there again, since nobody knows how
	// much of it has been.
	Pending []byte
}

// SetStream makes s the stream position that is committed with the event. What is appended to
// Pending costs the log no more than that.
func (tx *Tx) SetStream(s Stream) {
	if !tx.live() {
		return
	}
	head := binary.AppendUvarint(binary.AppendUvarint(nil, uint64(s.In)), uint64(s.Out))
	tx.keep(engine.Change{ID: section.StreamPosition, Bytes: append(head, s.Check...)})
	old := tx.in.store.Kept(section.PendingOutput)
	if len(old) > 0 && bytes.HasPrefix(s.Pending, old) {
		tx.keep(engine.Change{ID: section.PendingOutput, Bytes: s.Pending[len(old):], Append: true})
	} else {
		tx.keep(engine.Change{ID: section.PendingOutput, Bytes: s.Pending})
	}
}

// Stream is the position as of the last commit; the zero value if none was ever set.
func (tx *Tx) Stream() (s Stream, err error) {
	if err := tx.usable(); err != nil {
		return s, err
	}
	head := tx.in.store.Kept(section.StreamPosition)
	if len(head) == 0 {
		return s, nil
	}
	in, n := binary.Uvarint(head)
	out, m := binary.Uvarint(head[max(n, 0):])
	if n <= 0 || m <= 0 || int64(in) < 0 || int64(out) < 0 {
		return s, errs.Statef(ErrCorrupt, tx.in.Dir(), "malformed stream position")
	}
	return Stream{In: int64(in), Out: int64(out), Check: bytes.Clone(head[n+m:]),
		Pending: bytes.Clone(tx.in.store.Kept(section.PendingOutput))}, nil
}

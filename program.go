package mmrun

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/sys"

	"github.com/mmrun/mmrun/internal/engine"
	"github.com/mmrun/mmrun/internal/errs"
	"github.com/mmrun/mmrun/internal/section"
	"github.com/mmrun/mmrun/rewriter"
)

// StartName is the export of a program with a main loop of its own.
const StartName = "_start"

// WithProgram opens a program with a main loop of its own, for [Instance.Run]. The module is
// compiled so that its calls can be left where it waits; the standard streams of WithModuleConfig
// are not used. Atomic mode is needed.
func WithProgram() Option {
	return func(o *engine.Options) error {
		o.Program = true
		return nil
	}
}

// ProgramConfig is what a program is connected to while it runs.
type ProgramConfig struct {
	// Stdin is read when the program waits for input. What was read is committed before the program
	// gets it; only what lies between the read and that commit can be lost.
	Stdin io.Reader
	// Stdout and Stderr get what was printed, after its commit. What was written and not known to
	// be when the process was killed, an instant, is written again.
	Stdout, Stderr io.Writer
	// Whole: Stdin is all of an input from its begin, and what the program has been given before is
	// skipped. With it, and with Out, the output is that of a run that was never interrupted.
	Whole bool
	// Out, if not nil, gets what Stdout would, each byte at its place, whenever it is written
	// again.
	Out interface {
		io.WriterAt
		Sync() error
	}
	// EOF: the end of Stdin is told to the program. Otherwise Run returns then, and the program
	// waits.
	EOF bool
	// Terminal: Stdin and Stdout are a person's. The end of input is told to the program, which may
	// go on reading; and what it printed last without a newline is shown again when it goes on.
	Terminal bool
	// Trapped is told that an input has made the program trap, which is then back where it waited
	// before.
	Trapped func(input []byte, err error)
}

// ProgramEnd is why Run has returned without an error.
type ProgramEnd struct {
	Ended    bool // the program has; otherwise it waits, and Run goes on with it
	ExitCode uint32
}

// Run runs the program until it ends, its input ends, or ctx does. It goes on where it was left, in
// the middle of its calls: each time the program waits for input, or sleeps, its stack is saved and
// committed with its memory, then what it has printed is let out. So it survives whatever ends the
// process.
//
// If the program traps it goes back to where it waited last, and the input that has led to it is
// taken away; the same input three times in a row, or a trap without any, is an error.
func (in *Instance) Run(ctx context.Context, c ProgramConfig) (end ProgramEnd, err error) {
	p := in.program
	if p == nil {
		return end, errs.As(ErrUnsupported,
			fmt.Errorf("state %s: it was opened without WithProgram, which "+
				"Run needs", in.Dir()))
	}
	if !in.store.RollsBack() {
		return end, errs.As(ErrUnsupported,
			fmt.Errorf("state %s: a %s state has no rollback, which a "+
				"program needs", in.Dir(), in.Mode()))
	}
	if c.Stdout == nil {
		c.Stdout = io.Discard
	}
	if c.Stderr == nil {
		c.Stderr = io.Discard
	}
	r := &programRun{program: p, c: c}
	if err := r.load(ctx); err != nil {
		return end, err
	}
	if c.Terminal && r.status == programWaits && len(r.pending) == 0 {
		if _, err := c.Stdout.Write(r.tail); err != nil {
			return end, err
		}
	}
	return r.loop(ctx)
}

/*
The section of frames. Numbers are unsigned varints unless said otherwise:

	bytes
	    1  version of this layout, 1
	    1  status: 0 not begun, 1 waits for input, 2 sleeps, 3 ended, 4 goes on at once
	    4  exit code, little endian, if it has ended
	    8  when to wake it, by its monotonic clock, little endian, if it sleeps
	       length of the tail, tail: what was printed last without a newline
	    F  the saved stack, up to the end

The section of a program's input:

	bytes
	    1  1 if the input ends behind it
	    8  how many bytes the program has been given in all, little endian
	    I  those of them that it has not read, up to the end

The section of a program's pending output:

	bytes
	    8  how many bytes of standard output are out, little endian
	       pieces up to the end, each: 1 or 2 for the stream, length, bytes
*/
const framesVersion = 1

type programStatus byte

const (
	programNew programStatus = iota
	programWaits
	programSleeps
	programEnded
	programYields // nothing: it has called mmrun.wait, and goes on at once
)

const (
	// firstRoom and mostRoom are how many bytes of the memory a saved stack is written to: it is
	// tried with more if they do not do.
	firstRoom = 128 << 10
	mostRoom  = 64 << 20
	mostTail  = 256
	// shortSleep is not worth leaving the program.
	shortSleep = 5 * time.Millisecond
)

// program is what a guest that is a program is connected to. It belongs to whoever runs its events.
type program struct {
	in *Instance

	coming, leaving bool
	room            uint32
	aside           []byte
	served          uint64 // number of the call in which input was given out

	taken  uint64 // bytes of input that it has been given in all
	input  []byte // that the program may read
	eof    bool   // its end is to be told behind that
	used   int    // of the input
	told   bool   // the end has been
	output []byte // pieces, of this stretch
	full   bool

	status programStatus // why it was left
	wake   int64
	clock  func() int64
}

func newProgram(in *Instance) *program {
	start := time.Now()
	return &program{in: in, room: firstRoom,
		clock: func() int64 { return int64(time.Since(start)) }}
}

// configure connects the guest.
func (p *program) configure(c wazero.ModuleConfig) wazero.ModuleConfig {
	return c.WithStdin(p).WithStdout(programStream{p, 1}).WithStderr(programStream{p, 2}).
		WithNanosleep(p.sleep)
}

// programStream takes what the program prints.
type programStream struct {
	*program
	stream byte
}

func (s programStream) Write(b []byte) (int, error) {
	if len(s.output)+len(b) > MaxEffect {
		s.full = true
		return 0, errTooMuchOutput
	}
	s.output = binary.AppendUvarint(append(s.output, s.stream), uint64(len(b)))
	s.output = append(s.output, b...)
	return len(b), nil
}

// suspend is what the rewriter has added.
func (p *program) suspend() *rewriter.Suspend { return p.in.store.Guest().Suspend() }

func (p *program) global(name string) api.MutableGlobal {
	return p.in.store.Guest().Module().ExportedGlobal(name).(api.MutableGlobal)
}

func (p *program) set(sp, limit uint32, state uint64) {
	s := p.suspend()
	p.global(s.SP).Set(uint64(sp))
	p.global(s.Limit).Set(uint64(limit))
	p.global(s.State).Set(state)
}

// Read is the program's standard input.
func (p *program) Read(b []byte) (int, error) {
	call := uint64(uint32(p.global(p.suspend().Calls).Get()))
	switch {
	case p.leaving || len(b) == 0:
		return 0, nil
	case p.coming:
		p.arrive()
	case call == p.served:
		// One read of several buffers: the first ones were filled.
		if p.used == len(p.input) {
			return 0, nil
		}
	case len(p.output) > 0 || p.used == len(p.input) && (!p.eof || p.told):
		p.leave(programWaits)
		return 0, nil
	}
	p.served = call
	if p.used == len(p.input) {
		p.told = true
		return 0, io.EOF
	}
	n := copy(b, p.input[p.used:])
	p.used += n
	return n, nil
}

// sleep is how the program sleeps.
func (p *program) sleep(ns int64) {
	switch {
	case p.leaving:
	case p.coming:
		p.arrive() // it was woken on time
	case ns < int64(shortSleep) && len(p.output) == 0:
		time.Sleep(time.Duration(ns))
	default:
		p.wake = p.clock() + ns
		p.leave(programSleeps)
	}
}

// yield commits what the program has done so far, in the middle of its work.
func (p *program) yield() {
	switch {
	case p.leaving:
	case p.coming:
		p.arrive()
	default:
		p.leave(programYields)
	}
}

// leave makes the program save its stack and return.
func (p *program) leave(why programStatus) {
	memory := p.in.store.Guest().Module().Memory()
	room := min(p.room, memory.Size())
	b, _ := memory.Read(0, room)
	p.aside = append(p.aside[:0], b...)
	p.set(0, room, 1)
	p.leaving, p.status = true, why
}

// left takes the saved stack, and puts back what was where it lay.
func (p *program) left() (frames []byte) {
	memory := p.in.store.Guest().Module().Memory()
	b, _ := memory.Read(0, uint32(p.global(p.suspend().SP).Get()))
	frames = bytes.Clone(b)
	memory.Write(0, p.aside)
	p.set(0, 0, 0)
	p.leaving = false
	return frames
}

// come puts a saved stack where the program takes it from.
func (p *program) come(frames []byte) error {
	memory := p.in.store.Guest().Module().Memory()
	b, ok := memory.Read(0, uint32(len(frames)))
	if !ok {
		return errs.Statef(ErrCorrupt, p.in.Dir(), "a saved stack of %d bytes, the memory has %d",
			len(frames), memory.Size())
	}
	p.aside = append(p.aside[:0], b...)
	memory.Write(0, frames)
	p.set(uint32(len(frames)), uint32(len(frames)), 1)
	p.coming = true
	return nil
}

// arrive is called where the program waits, when it has come back to there.
func (p *program) arrive() {
	if sp := uint32(p.global(p.suspend().SP).Get()); sp != 0 {
		panic(fmt.Errorf("the saved stack does not go with the program: %d bytes are left", sp))
	}
	p.in.store.Guest().Module().Memory().Write(0, p.aside)
	p.set(0, 0, 0)
	p.coming = false
}

// programRun is one call of Run.
type programRun struct {
	*program
	c       ProgramConfig
	frames  []byte
	tail    []byte
	pending []byte // output that is committed and not known to be out
	out     uint64 // bytes of standard output that are

	reader *programReader
	traps  int
	last   []byte // input that trapped
}

// load reads what the last commit says of the program.
func (r *programRun) load(ctx context.Context) error {
	return r.in.View(ctx, func(tx *Tx) error {
		kept := func(id section.ID) []byte { return bytes.Clone(r.in.store.Kept(id)) }
		if b := kept(section.PendingOutput); len(b) >= 8 {
			r.out, r.pending = binary.LittleEndian.Uint64(b), b[8:]
		}
		if b := kept(section.ProgramInput); len(b) >= 9 {
			r.eof, r.taken, r.input = b[0] == 1, binary.LittleEndian.Uint64(b[1:]), b[9:]
		}
		b := kept(section.Frames)
		if r.status = programNew; len(b) == 0 {
			return nil
		}
		const head = 14
		if len(b) < head || b[0] != framesVersion || b[1] > byte(programYields) {
			return errs.Statef(ErrCorrupt, r.in.Dir(), "malformed frames of a program")
		}
		r.status = programStatus(b[1])
		r.wake = int64(binary.LittleEndian.Uint64(b[6:]))
		n, used := binary.Uvarint(b[head:])
		if used <= 0 || n > uint64(len(b)-head-used) {
			return errs.Statef(ErrCorrupt, r.in.Dir(), "malformed frames of a program")
		}
		rest := b[head+used:]
		r.tail, r.frames = rest[:n], rest[n:]
		return nil
	})
}

// exitCode is that of a program that has ended.
func (r *programRun) exitCode() uint32 {
	return binary.LittleEndian.Uint32(r.in.store.Kept(section.Frames)[2:])
}

// keep adds to an event what it makes of the program.
func (r *programRun) keep(tx *Tx, status programStatus, code uint32, frames, pending []byte) {
	b := []byte{framesVersion, byte(status)}
	b = binary.LittleEndian.AppendUint32(b, code)
	b = binary.LittleEndian.AppendUint64(b, uint64(r.wake))
	tail := tailOf(r.tail, pending)
	b = append(binary.AppendUvarint(b, uint64(len(tail))), tail...)
	tx.keep(engine.Change{ID: section.Frames, Bytes: append(b, frames...)})
	r.keepOutput(tx, r.out, pending)
	r.keepInput(tx, r.input[r.used:], r.taken, r.eof && !r.told)
	tx.OnCommit(func() {
		r.status, r.frames, r.tail, r.pending = status, frames, tail, pending
		r.input, r.used, r.eof, r.told = r.input[r.used:], 0, r.eof && !r.told, false
	})
}

func (r *programRun) keepOutput(tx *Tx, out uint64, pending []byte) {
	b := append(binary.LittleEndian.AppendUint64(nil, out), pending...)
	tx.keep(engine.Change{ID: section.PendingOutput, Bytes: b})
}

func (r *programRun) keepInput(tx *Tx, input []byte, taken uint64, eof bool) {
	b := []byte{0}
	if eof {
		b[0] = 1
	}
	b = binary.LittleEndian.AppendUint64(b, taken)
	tx.keep(engine.Change{ID: section.ProgramInput, Bytes: append(b, input...)})
}

// tailOf is what of the standard output stands behind its last newline.
func tailOf(tail, pending []byte) []byte {
	tail = bytes.Clone(tail)
	_ = eachPiece(pending, func(stream byte, b []byte) error {
		if i := bytes.LastIndexByte(b, '\n'); i >= 0 {
			tail, b = nil, b[i+1:]
		}
		if tail = append(tail, b...); len(tail) > mostTail {
			tail = tail[len(tail)-mostTail:]
		}
		return nil
	})
	return tail
}

// eachPiece splits output into what was printed at once.
func eachPiece(b []byte, fn func(stream byte, b []byte) error) error {
	for len(b) > 0 {
		stream := b[0]
		n, used := binary.Uvarint(b[1:])
		if used <= 0 || n > uint64(len(b)-1-used) {
			return errors.New("malformed pending output")
		}
		end := 1 + used + int(n)
		if err := fn(stream, b[1+used:end]); err != nil {
			return err
		}
		b = b[end:]
	}
	return nil
}

// loop lets output out, waits, and goes on, until there is nothing to go on with.
func (r *programRun) loop(ctx context.Context) (end ProgramEnd, err error) {
	for {
		if err := r.release(ctx); err != nil {
			return end, err
		}
		if r.status == programEnded {
			return ProgramEnd{Ended: true, ExitCode: r.exitCode()}, nil
		}
		if more, err := r.wait(ctx); err != nil || !more {
			return end, err
		}
		if err := r.stretch(ctx); err != nil {
			return end, err
		}
	}
}

// release writes out what has been committed, and says so in a commit of its own.
func (r *programRun) release(ctx context.Context) error {
	if len(r.pending) == 0 {
		return nil
	}
	out := r.out
	err := eachPiece(r.pending, func(stream byte, b []byte) (err error) {
		switch {
		case stream == 2:
			_, err = r.c.Stderr.Write(b)
		case r.c.Out != nil:
			_, err = r.c.Out.WriteAt(b, int64(out))
			out += uint64(len(b))
		default:
			_, err = r.c.Stdout.Write(b)
			out += uint64(len(b))
		}
		return err
	})
	if err == nil && r.c.Out != nil {
		err = r.c.Out.Sync() // the state is about to say that it is there
	}
	if err != nil {
		return fmt.Errorf("state %s: what the program printed could not be written, and will be "+
			"when it goes "+
			"on: %w", r.in.Dir(), err)
	}
	return r.in.Update(context.WithoutCancel(ctx), func(tx *Tx) error {
		r.keepOutput(tx, out, nil)
		tx.OnCommit(func() { r.out, r.pending = out, nil })
		return nil
	})
}

// wait waits for what the program waits for; more is false if it goes on waiting.
func (r *programRun) wait(ctx context.Context) (more bool, err error) {
	switch {
	case ctx.Err() != nil:
		return false, nil
	case r.status == programSleeps:
		timer := time.NewTimer(max(0, time.Duration(r.wake-r.clock())))
		defer timer.Stop()
		select {
		case <-timer.C:
			return true, nil
		case <-ctx.Done():
			return false, nil
		}
	case r.status != programWaits || len(r.input) > 0 || r.eof:
		return true, nil
	}
	if r.reader == nil {
		from := r.c.Stdin
		if r.c.Whole && from != nil {
			if _, err := io.CopyN(io.Discard, from, int64(r.taken)); err != nil {
				return false, fmt.Errorf("state %s: the program has been given %d bytes of the "+
					"input, which are "+
					"not there: %w", r.in.Dir(), r.taken, err)
			}
		}
		r.reader = newProgramReader(from)
	}
	input, err := r.reader.next(ctx)
	switch {
	case len(input) > 0: // it is nowhere else any more
	case ctx.Err() != nil:
		return false, nil
	case errors.Is(err, io.EOF):
		if !r.c.EOF && !r.c.Terminal {
			return false, nil
		}
	case err != nil:
		return false, err
	}
	eof := errors.Is(err, io.EOF)
	// Once this is committed, a kill repeats what the program makes of it.
	taken := r.taken + uint64(len(input))
	err = r.in.Update(context.WithoutCancel(ctx), func(tx *Tx) error {
		r.keepInput(tx, input, taken, eof)
		return nil
	})
	if err == nil {
		r.taken, r.input, r.used, r.eof, r.told = taken, input, 0, eof, false
	}
	return err == nil, err
}

// stretch runs the program until it waits again, or ends.
func (r *programRun) stretch(ctx context.Context) error {
	r.output, r.full, r.coming, r.leaving, r.used, r.told = nil, false, false, false, 0, false
	r.served = 1<<32 | 1 // no call's number
	was := r.program.status
	var exit *sys.ExitError
	err := r.in.Update(context.WithoutCancel(ctx), func(tx *Tx) error {
		if was != programNew {
			if err := r.come(r.frames); err != nil {
				return err
			}
		}
		start := r.in.store.Guest().Module().ExportedFunction(StartName)
		if start == nil {
			return noFunction(StartName)
		}
		err := start.CallWithStack(r.in.eventContext(ctx), nil)
		switch {
		case r.full:
			return &EventError{Function: StartName, Err: errs.As(ErrEffectTooLarge,
				errTooMuchOutput)}
		case err != nil:
			return &EventError{Function: StartName, Err: err}
		case r.leaving:
			frames := r.left()
			r.keep(tx, r.program.status, 0, frames, r.output)
		default:
			r.keep(tx, programEnded, 0, nil, r.output)
		}
		return nil
	})
	switch {
	case err == nil:
		r.traps = 0
		return nil
	case errors.As(err, &exit) && ctx.Err() == nil:
		// It has ended itself: what it has printed and its exit code are all that is left of it.
		return r.in.Update(context.WithoutCancel(ctx), func(tx *Tx) error {
			r.keep(tx, programEnded, exit.ExitCode(), nil, r.output)
			return nil
		})
	case r.leaving && r.room < mostRoom:
		r.room *= 2 // the stack had no room
		r.program.status = was
		return nil
	case r.leaving:
		return errs.As(ErrUnsupported,
			fmt.Errorf("state %s: the program waits with a stack of more than %d "+
				"bytes", r.in.Dir(), mostRoom))
	}
	r.program.status = was
	return r.trapped(ctx, err)
}

// trapped is called when the program is back where it waited.
func (r *programRun) trapped(ctx context.Context, err error) error {
	var failed *EventError
	if !errors.As(err, &failed) || errors.Is(err, ErrPoisoned) || len(r.input) == 0 {
		return err
	}
	if r.traps++; !bytes.Equal(r.input, r.last) {
		r.traps = 1
	}
	const most = 3
	if r.last = r.input; r.traps == most {
		return fmt.Errorf("the same input has failed %d times: %q: %w", most, r.last, err)
	}
	if r.c.Trapped != nil {
		r.c.Trapped(r.input, err)
	}
	return r.in.Update(context.WithoutCancel(ctx), func(tx *Tx) error {
		r.keepInput(tx, nil, r.taken, false)
		tx.OnCommit(func() { r.input, r.used, r.eof, r.told = nil, 0, false, false })
		return nil
	})
}

// programReader reads in the background, so that waiting for input can be given up.
type programReader struct {
	asked  chan struct{}
	pieces chan programPiece
	busy   bool // a read is under way
}

type programPiece struct {
	b   []byte
	err error
}

func newProgramReader(from io.Reader) *programReader {
	r := &programReader{asked: make(chan struct{}), pieces: make(chan programPiece, 1)}
	if from == nil {
		from = bytes.NewReader(nil)
	}
	go func() {
		buf := make([]byte, 64<<10)
		for range r.asked {
			n, err := from.Read(buf)
			r.pieces <- programPiece{bytes.Clone(buf[:n]), err}
		}
	}()
	return r
}

// next gives what is there next. The error io.EOF may come with some input, behind which there is
// none.
func (r *programReader) next(ctx context.Context) ([]byte, error) {
	if !r.busy {
		select {
		case r.asked <- struct{}{}:
			r.busy = true
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	select {
	case p := <-r.pieces:
		r.busy = false
		return p.b, p.err
	case <-ctx.Done():
	}
	select {
	case p := <-r.pieces: // both at once
		r.busy = false
		return p.b, p.err
	default:
		return nil, ctx.Err()
	}
}

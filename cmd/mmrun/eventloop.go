package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/internal/values"
)

// eventLoop runs the events of an input, one after the other.
type eventLoop struct {
	*session
	stop   *stopper
	frame  frame
	handle bool // events go to the guest's handler; otherwise each names a function

	failed int // events of the handler
}

// errEventsFailed is the end of a loop of handlers in which some events were refused or failed.
type errEventsFailed int

func (e errEventsFailed) Error() string {
	if e == 1 {
		return "1 event was refused or failed; nothing of it is in the state"
	}
	return fmt.Sprintf("%d events were refused or failed; nothing of them is in the state", int(e))
}

// stream answers events on standard output until the input ends or a signal comes. Each answer is
// written out before the next event begins.
func (l *eventLoop) stream(ctx context.Context, pieces <-chan piece, end <-chan error) error {
	fs := functions(l.in.Functions())
	garbage := newCollector()
	defer garbage.restore()
	for {
		garbage.betweenEvents()
		var p piece
		more := false
		select {
		case <-l.stop.stopped:
			return l.ended()
		case p, more = <-pieces:
		}
		if !more {
			if err := <-end; err != nil {
				return fmt.Errorf("standard input: %w", err)
			}
			return l.ended()
		}
		if l.skipped(p) {
			continue
		}
		if !l.stop.begin() {
			return l.ended()
		}
		answer, err := l.event(ctx, fs, p)
		l.stop.end()
		if errAnswer := l.answer(answer, err); errAnswer != nil {
			return errAnswer
		}
		if errors.Is(err, mmrun.ErrPoisoned) {
			return err
		}
	}
}

func (l *eventLoop) ended() error {
	if l.failed > 0 {
		return errEventsFailed(l.failed)
	}
	return nil
}

// skipped tells whether a piece of the input is no event, and is meant to be none.
func (l *eventLoop) skipped(p piece) bool {
	if l.handle || p.err != nil {
		return false
	}
	text := strings.TrimSpace(string(p.data))
	return text == "" || strings.HasPrefix(text, "#")
}

// event runs one event and gives what is to be written out for it. What failed inside the guest is
// told in full on standard error.
func (l *eventLoop) event(ctx context.Context, fs functions, p piece) (answer []byte, err error) {
	if l.handle {
		answer, err = l.handler(ctx, p, nil)
		l.tell(err)
		return answer, err
	}
	fields := strings.Fields(string(p.data))
	if p.err != nil {
		return nil, p.err
	}
	stack, err := fs.arguments(fields[0], fields[1:])
	if err != nil {
		return nil, err
	}
	results, err := l.call(ctx, fields[0], fs[fields[0]], stack)
	l.tell(err)
	return l.line(results, err), err
}

// tell says on standard error what has failed.
func (l *eventLoop) tell(err error) {
	if err != nil {
		l.app.message("%v\n%s", err, l.aftermath(err))
	}
}

// handler gives an event to the guest's handler; with is done in the same event, with what is to be
// written out.
func (l *eventLoop) handler(ctx context.Context, p piece,
	with func(tx *mmrun.Tx, answer []byte) error) (
	answer []byte, err error) {
	if p.err != nil {
		return nil, p.err
	}
	ctx, cancel := l.timeout(ctx)
	defer cancel()
	err = l.in.Update(ctx, func(tx *mmrun.Tx) error {
		effect, err := tx.Handle(ctx, p.data)
		if err == nil {
			answer, err = l.effect(tx.Seq(), effect)
		}
		if err == nil && with != nil {
			err = with(tx, answer)
		}
		return err
	})
	if err != nil {
		return nil, l.session.failed(ctx, err)
	}
	return answer, nil
}

// effect is an effect as it is written out.
func (l *eventLoop) effect(seq uint64, effect []byte) ([]byte, error) {
	if !l.app.json {
		return l.frame.effect(effect)
	}
	a := answer{Seq: seq}
	if text := string(effect); utf8.Valid(effect) {
		a.Effect = &text
	} else {
		a.EffectBase64 = effect
	}
	return jsonLine(a), nil
}

// line is the answer to an event that named a function.
func (l *eventLoop) line(results []values.Value, failed error) []byte {
	switch {
	case failed == nil:
		return l.lineAt(l.in.Seq(), results)
	case l.app.json:
		return jsonLine(answer{Seq: l.in.Seq(), Error: firstLine(failed), Kind: kindOf(failed)})
	}
	return fmt.Appendf(nil, "! %s\n", escapeName(firstLine(failed)))
}

// lineAt is the answer to an event that became that commit.
func (l *eventLoop) lineAt(seq uint64, results []values.Value) []byte {
	if l.app.json {
		return jsonLine(answer{Seq: seq, Results: results})
	}
	texts := make([]string, len(results))
	for i, v := range results {
		texts[i] = v.String()
	}
	return append([]byte(strings.Join(texts, " ")), '\n')
}

func jsonLine(a answer) []byte {
	b, err := json.Marshal(a)
	if err != nil {
		panic(err) // it holds nothing that could not be written
	}
	return append(b, '\n')
}

// answer writes the answer of one event. An error is that of an answer that could not be written.
func (l *eventLoop) answer(text []byte, failed error) error {
	a, seq := l.app, l.in.Seq()
	l.answered = 0
	switch {
	case failed == nil:
		l.answered = seq
	case l.handle:
		l.failed++
		if a.json {
			text = l.line(nil, failed)
		}
	default:
		text = l.line(nil, failed)
	}
	var err error
	if len(text) > 0 {
		_, err = a.out.Write(text)
	}
	if err == nil && l.unseen == nil {
		return nil
	}
	if failed == nil {
		a.done("commit %d was made", seq)
	}
	if err != nil {
		err = a.lostAnswer(err)
	} else {
		err = a.lostPrint(l.unseen)
	}
	return eventError{failed == nil, seq, err}
}

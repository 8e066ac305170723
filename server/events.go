package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"

	"github.com/tetratelabs/wazero/api"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/internal/values"
)

// call is POST /v1/instances/{name}/call/{func}.
func (s *Server) call(w http.ResponseWriter, r *http.Request) {
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil ||
		t != "application/json" {
		fail(w, problem{Status: http.StatusUnsupportedMediaType, Kind: "content-type",
			Detail: "a call is application/json"})
		return
	}
	body, ok := s.body(w, r)
	if !ok {
		return
	}
	args, err := readArgs(body)
	if err != nil {
		fail(w, problem{Status: http.StatusBadRequest, Kind: "usage", Detail: err.Error()})
		return
	}
	name := r.PathValue("func")
	s.run(w, r, job{
		function: name, body: body, content: "application/json",
		do: func(ctx context.Context, tx *mmrun.Tx) ([]byte, error) {
			return callFunction(ctx, tx, name, args)
		},
	})
}

// event is POST /v1/instances/{name}/events.
func (s *Server) event(w http.ResponseWriter, r *http.Request) {
	body, ok := s.body(w, r)
	if !ok {
		return
	}
	s.run(w, r, job{
		function: mmrun.HandlerName, body: body, content: "application/octet-stream",
		do: func(ctx context.Context, tx *mmrun.Tx) ([]byte, error) { return tx.Handle(ctx, body) },
	})
}

// query is GET /v1/instances/{name}/query/{func}.
func (s *Server) query(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("func")
	var answer []byte
	var seq uint64
	start := time.Now()
	q := &queued{Context: r.Context()}
	err := s.registry.UseExisting(q, r.PathValue("name"), func(in *mmrun.Instance) error {
		seq = in.Seq()
		return in.View(q, func(tx *mmrun.Tx) (err error) {
			ctx, cancel := q.begin(s.opts.Timeout)
			defer cancel()
			seq = tx.Seq() - 1
			answer, err = callFunction(ctx, tx, name, r.URL.Query()["arg"])
			return timedOut(ctx, err)
		})
	})
	s.metrics.event("query", err, time.Since(start))
	if err != nil {
		s.failed(w, r, err, nil)
		return
	}
	answerJSON(w, fmt.Appendf(nil, `{"results":%s,"seq":%d}`+"\n", answer, seq))
}

// callFunction calls a function with arguments as text, and gives its results as a JSON list.
func callFunction(ctx context.Context, tx *mmrun.Tx, name string, args []string) ([]byte, error) {
	f := tx.Function(name)
	if f == nil {
		return nil, noFunction(name)
	}
	def := f.Definition()
	stack, err := values.ParseArgs(name, def, args)
	if err != nil {
		return nil, usage{err}
	}
	results, err := tx.Call(ctx, name, stack...)
	if err != nil {
		return nil, err
	}
	return plainList(def.ResultTypes(), results), nil
}

func plainList(types []api.ValueType, results []uint64) []byte {
	list := []byte{'['}
	for i, v := range values.Unstack(types, results) {
		if i > 0 {
			list = append(list, ',')
		}
		list = append(list, v.Plain()...)
	}
	return append(list, ']')
}

// usage is an error of whoever has asked.
type usage struct{ error }

func noFunction(name string) error {
	return fmt.Errorf("function %q: %w", name, mmrun.ErrNoFunction)
}

// readArgs reads {"args":[...]}: numbers as they are written, and strings.
func readArgs(body []byte) ([]string, error) {
	var call struct {
		Args []json.RawMessage `json:"args"`
	}
	if len(bytes.TrimSpace(body)) == 0 {
		return nil, nil
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&call); err != nil {
		return nil, fmt.Errorf(`the body is not {"args":[...]}: %w`, err)
	}
	if d.More() {
		return nil, errors.New("there is something behind the JSON object")
	}
	args := make([]string, len(call.Args))
	for i, raw := range call.Args {
		text := string(raw)
		if strings.HasPrefix(text, `"`) {
			if err := json.Unmarshal(raw, &text); err != nil {
				return nil, err
			}
		}
		args[i] = text
	}
	return args, nil
}

// body reads the body of a request, or says that it is too long.
func (s *Server) body(w http.ResponseWriter, r *http.Request) (body []byte, ok bool) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, s.opts.MaxBody))
	var long *http.MaxBytesError
	switch {
	case err == nil:
		return body, true
	case errors.As(err, &long):
		fail(w, problem{Status: http.StatusRequestEntityTooLarge, Kind: "body-too-large",
			Detail: fmt.Sprintf("the body is longer than %d bytes", s.opts.MaxBody)})
	default:
		fail(w, problem{Status: http.StatusBadRequest, Kind: "body",
			Detail: "the body could not be read"})
	}
	return nil, false
}

// job is one event that a request asks for.
type job struct {
	function string
	body     []byte
	content  string // type of the answer
	do       func(ctx context.Context, tx *mmrun.Tx) (effect []byte, err error)
}

// run makes an event of a request.
func (s *Server) run(w http.ResponseWriter, r *http.Request, j job) {
	name, key := r.PathValue("name"), r.Header.Get("Idempotency-Key")
	if key == "" && r.Header["Idempotency-Key"] != nil || len(key) > 256 {
		fail(w, problem{Status: http.StatusBadRequest, Kind: "usage",
			Detail: "an Idempotency-Key has 1 to 256 bytes"})
		return
	}
	var out mmrun.Outcome
	var committed *uint64
	start, guestTook := time.Now(), time.Duration(0)
	q := &queued{Context: r.Context()}
	event := func(tx *mmrun.Tx) (effect []byte, err error) {
		ctx, cancel := q.begin(s.opts.Timeout)
		defer cancel()
		begun := time.Now()
		effect, err = j.do(ctx, tx)
		guestTook = time.Since(begun)
		if err == nil {
			out.Seq = tx.Seq()
		}
		return effect, timedOut(ctx, err)
	}
	module := r.URL.Query().Get("module")
	err := s.registry.CreateAndUse(q, name, module, func(in *mmrun.Instance) (err error) {
		before := s.watchers.before(name, in)
		defer func() { s.watchers.after(name, in, before, j.function, time.Since(start), err) }()
		if key != "" {
			out, err = in.Once(q, mmrun.Request{Key: key, Function: j.function, Body: j.body},
				event)
			return err
		}
		err = in.Update(q, func(tx *mmrun.Tx) (err error) {
			out.Effect, err = event(tx)
			return err
		})
		if errors.Is(err, mmrun.ErrPoisoned) && out.Seq != 0 && in.Seq() >= out.Seq {
			committed = &out.Seq // in the log, and not known to be on the disk
		}
		return err
	})
	kind := "call"
	if j.function == mmrun.HandlerName {
		kind = "event"
	}
	s.metrics.event(kind, err, time.Since(start))
	s.metrics.committed(time.Since(start)-guestTook, err)
	if err != nil {
		s.failed(w, r, err, committed)
		return
	}
	if rec, ok := w.(*recorder); ok {
		rec.seq = out.Seq
	}
	w.Header().Set("Mmrun-Seq", fmt.Sprint(out.Seq))
	if out.Repeated {
		w.Header().Set("Idempotent-Replayed", "true")
	}
	if kind == "call" {
		answerJSON(w, fmt.Appendf(nil, `{"results":%s,"seq":%d}`+"\n", out.Effect, out.Seq))
		return
	}
	w.Header().Set("Content-Type", j.content)
	// A page elsewhere that makes somebody look at an effect must not have it run here.
	w.Header().Set("Content-Security-Policy", "sandbox; default-src 'none'")
	_, _ = w.Write(out.Effect)
}

// timedOut makes an error that the end of the event's time has caused one that says so.
func timedOut(ctx context.Context, err error) error {
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return errors.Join(context.DeadlineExceeded, err)
	}
	return err
}

func answerJSON(w http.ResponseWriter, body []byte) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(body)
}

package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"syscall"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/registry"
)

// problem is an error as RFC 9457 writes it.
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Kind   string `json:"kind"` // for programs; the kinds do not change
	// Seq is the commit that the event became all the same, null if it was not committed.
	Seq *uint64 `json:"seq"`
}

func fail(w http.ResponseWriter, p problem) {
	p.Type, p.Title = "about:blank", http.StatusText(p.Status)
	b, err := json.Marshal(p)
	if err != nil {
		panic(err) // it holds nothing that could not be written
	}
	w.Header().Set("Content-Type", "application/problem+json")
	if p.Status == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", "1")
	}
	w.WriteHeader(p.Status)
	_, _ = w.Write(append(b, '\n'))
}

// statusGone is what others answer to a client that is not there any more.
const statusGone = 499

// kinds are the errors that have a status of their own, the first that fits.
var kinds = []struct {
	err    error
	status int
	kind   string
}{
	{context.DeadlineExceeded, http.StatusGatewayTimeout, "timeout"},
	{errGone, statusGone, "gone"},
	{registry.ErrBusy, http.StatusTooManyRequests, "busy"},
	{registry.ErrTooMany, http.StatusInsufficientStorage, "too-many-instances"},
	{registry.ErrExists, http.StatusConflict, "exists"},
	{registry.ErrClosed, http.StatusServiceUnavailable, "draining"},
	{registry.ErrNoModule, http.StatusNotFound, "no-module"},
	{registry.ErrName, http.StatusBadRequest, "name"},
	{syscall.ENOSPC, http.StatusInsufficientStorage, "disk-full"},
	{mmrun.ErrKeyReused, http.StatusUnprocessableEntity, "key-reused"},
	{mmrun.ErrEffectTooLarge, http.StatusRequestEntityTooLarge, "effect-too-large"},
	{mmrun.ErrNoFunction, http.StatusNotFound, "no-function"},
	{mmrun.ErrRefused, http.StatusUnprocessableEntity, "refused"},
	{mmrun.ErrRunsOnce, http.StatusConflict, "runs-once"},
	{mmrun.ErrPoisoned, http.StatusServiceUnavailable, "poisoned"},
	{mmrun.ErrLocked, http.StatusServiceUnavailable, "locked"},
	{mmrun.ErrNotExist, http.StatusNotFound, "no-instance"},
	{mmrun.ErrCorrupt, http.StatusInternalServerError, "corrupt"},
	{mmrun.ErrTorn, http.StatusInternalServerError, "torn"},
	{mmrun.ErrUnsupported, http.StatusNotImplemented, "unsupported"},
}

// describe makes a problem of an error.
func describe(err error) problem {
	p := problem{Detail: firstLine(err)}
	var bad usage
	var event *mmrun.EventError
	if errors.As(err, &bad) {
		p.Status, p.Kind = http.StatusBadRequest, "usage"
		return p
	}
	for _, k := range kinds {
		if errors.Is(err, k.err) {
			p.Status, p.Kind = k.status, k.kind
			return p
		}
	}
	if p.Kind = "failed"; errors.As(err, &event) {
		p.Status, p.Kind = http.StatusUnprocessableEntity, "trap"
		return p
	}
	p.Status = http.StatusInternalServerError
	return p
}

// failed answers a request whose event failed.
func (s *Server) failed(w http.ResponseWriter, r *http.Request, err error, committed *uint64) {
	if r.Context().Err() != nil && errors.Is(err, context.Canceled) {
		err = errGone
	}
	p := describe(err)
	p.Seq = committed
	if p.Status >= http.StatusInternalServerError && p.Status != http.StatusGatewayTimeout {
		s.opts.Logger.Error("request failed", "id", w.Header().Get("X-Request-Id"), "error", err)
	}
	if p.Kind == "timeout" {
		p.Detail = fmt.Sprintf("the event took longer than %v and was rolled back", s.opts.Timeout)
	}
	fail(w, p)
}

// firstLine leaves stack traces to the log.
func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

package main

import (
	"bytes"
	"strings"
	"sync"
	"testing"
	"time"
)

// screen takes what is written and tells when something is.
type screen struct {
	mu    sync.Mutex
	text  bytes.Buffer
	moved chan struct{}
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case s.moved <- struct{}{}:
	default:
	}
	return s.text.Write(p)
}

func TestLongWorkMovesOnATerminal(t *testing.T) {
	s := &screen{moved: make(chan struct{}, 1)}
	finished := showWorking(s, "verifying a\x1b[2J.state", 0).finish
	<-s.moved
	<-s.moved // it goes on
	finished()
	shown := s.text.String()
	if !strings.Contains(shown, `verifying a\x1b[2J.state`) {
		t.Errorf("it does not say what is done: %q", shown)
	}
	if end := strings.LastIndex(shown, "\r"); end < 0 || strings.TrimSpace(shown[end:]) != "" {
		t.Errorf("the line is not cleared at the end: %q", shown)
	}
	finished = showWorking(s, "again", time.Hour).finish
	finished()
	if s.text.String() != shown {
		t.Errorf("work that was short is shown: %q", s.text.String()[len(shown):])
	}
}

func TestWorkThatSaysHowFarItIsShowsAPercentage(t *testing.T) {
	s := &screen{moved: make(chan struct{}, 1)}
	b := showWorking(s, "copying", time.Millisecond)
	b.update(250, 1000)
	for {
		<-s.moved
		s.mu.Lock()
		shown := s.text.String()
		s.mu.Unlock()
		if strings.Contains(shown, "25%") {
			break
		}
	}
	b.finish()
}

func TestNothingMovesInAFile(t *testing.T) {
	var file bytes.Buffer
	finished := (&app{errOut: &file}).working("verifying")
	finished()
	if file.Len() > 0 {
		t.Errorf("written: %q", file.String())
	}
}

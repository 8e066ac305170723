package server

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/internal/values"
)

const (
	allEvery = 500 * time.Millisecond // between two updates of the list
	oneEvery = 100 * time.Millisecond // of one instance

	mostListed  = 200  // instances, the busiest ones
	mostCells   = 4096 // of the picture of a memory
	mostRecent  = 40   // commits of one instance
	mostGlobals = 256
)

// watchers are those who look on. While nobody does, an event costs one load of a word.
type watchers struct {
	active  atomic.Int32
	stopped chan struct{}
	once    sync.Once

	mu      sync.Mutex
	all     int                 // who watch the list
	tallies map[string]*tally   // while somebody does
	ones    map[string]*watched // instances that are watched
}

// tally is what the events of an instance have cost since the last update.
type tally struct {
	events int
	took   time.Duration
}

// watched is an instance that somebody watches.
type watched struct {
	viewers int
	recent  []commit // the newest last
}

// commit is an event as it is shown.
type commit struct {
	Seq      uint64  `json:"seq"`
	Function string  `json:"function"`
	Bytes    uint64  `json:"bytes"` // to the log, about
	Micros   float64 `json:"us"`
	Error    string  `json:"error,omitempty"`
}

func (w *watchers) init() {
	w.stopped = make(chan struct{})
	w.tallies, w.ones = make(map[string]*tally), make(map[string]*watched)
}

func (w *watchers) stop() { w.once.Do(func() { close(w.stopped) }) }

// before is called before an event, after behind it.
func (w *watchers) before(name string, in *mmrun.Instance) (walBytes uint64) {
	if w.active.Load() == 0 {
		return 0
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ones[name] == nil {
		return 0
	}
	return in.Stats().WALBytes
}

func (w *watchers) after(name string, in *mmrun.Instance, walBytes uint64, function string,
	took time.Duration, err error) {
	if w.active.Load() == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.all > 0 {
		t := w.tallies[name]
		if t == nil {
			t = &tally{}
			w.tallies[name] = t
		}
		t.events++
		t.took += took
	}
	one := w.ones[name]
	if one == nil {
		return
	}
	c := commit{Seq: in.Seq(), Function: function, Bytes: in.Stats().WALBytes - walBytes,
		Micros: float64(took.Nanoseconds()) / 1000}
	if err != nil {
		c.Error, c.Bytes = describe(err).Kind, 0
	}
	if one.recent = append(one.recent, c); len(one.recent) > mostRecent {
		one.recent = slices.Delete(one.recent, 0, len(one.recent)-mostRecent)
	}
}

// watchAll is GET /v1/watch.
func (s *Server) watchAll(w http.ResponseWriter, r *http.Request) {
	sw := &s.watchers
	sw.mu.Lock()
	sw.all++
	sw.mu.Unlock()
	defer func() {
		sw.mu.Lock()
		defer sw.mu.Unlock()
		if sw.all--; sw.all == 0 {
			clear(sw.tallies)
		}
	}()
	s.events(w, r, allEvery, func(context.Context) any { return s.overview() })
}

// listed is an instance in the list.
type listed struct {
	Name    string  `json:"name"`
	Seq     uint64  `json:"seq"`
	PerSec  float64 `json:"eventsPerSecond"`
	Micros  float64 `json:"us"` // mean time of an event
	Memory  uint64  `json:"memoryBytes"`
	WALUsed int64   `json:"walUsed"`
	Tracker string  `json:"tracker"`
}

type overview struct {
	Open      int      `json:"open"`
	Waiting   int      `json:"waiting"`
	PerSec    float64  `json:"eventsPerSecond"`
	Instances []listed `json:"instances"`
}

func (s *Server) overview() overview {
	stats := s.registry.Stats()
	o := overview{Open: stats.Open, Waiting: stats.Waiting, Instances: []listed{}}
	w := &s.watchers
	w.mu.Lock()
	tallies := w.tallies
	// Several may watch: each update takes what has gathered since the one before, whoever asked.
	w.tallies = make(map[string]*tally, len(tallies))
	w.mu.Unlock()
	for _, name := range s.registry.OpenNames() {
		st, open := s.registry.IsOpen(name)
		if !open {
			continue
		}
		l := listed{Name: name, Seq: st.Seq, Memory: st.MemoryBytes, WALUsed: st.WALUsed,
			Tracker: st.Tracker}
		if t := tallies[name]; t != nil {
			l.PerSec = float64(t.events) / allEvery.Seconds()
			l.Micros = float64(t.took.Nanoseconds()) / 1000 / float64(t.events)
			o.PerSec += l.PerSec
		}
		o.Instances = append(o.Instances, l)
	}
	slices.SortStableFunc(o.Instances, func(a, b listed) int {
		return cmp.Compare(b.PerSec,
			a.PerSec)
	})
	o.Instances = o.Instances[:min(len(o.Instances), mostListed)]
	return o
}

// watchOne is GET /v1/instances/{name}/watch.
func (s *Server) watchOne(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	sw := &s.watchers
	sw.mu.Lock()
	one := sw.ones[name]
	if one == nil {
		one = &watched{}
		sw.ones[name] = one
	}
	one.viewers++
	sw.mu.Unlock()
	defer func() {
		sw.mu.Lock()
		defer sw.mu.Unlock()
		if one.viewers--; one.viewers == 0 {
			delete(sw.ones, name)
		}
	}()
	since := uint64(0)
	s.events(w, r, oneEvery, func(ctx context.Context) any {
		v := s.look(ctx, name, since)
		if since == 0 { // at first nothing glows
			v = s.look(ctx, name, v.Seq)
		}
		since = v.Seq
		return v
	})
}

// view is one instance as it is shown.
type view struct {
	Open      bool   `json:"open"`
	Problem   string `json:"problem,omitempty"`
	Seq       uint64 `json:"seq"`
	Memory    uint64 `json:"memoryBytes"`
	PagesEach uint32 `json:"pagesEach"`
	// a digit each: 0 untouched, 1 clean, 2 dirty, 3 just written
	Cells   string      `json:"cells"`
	Globals []shown     `json:"globals"`
	Commits []commit    `json:"commits"`
	Stats   mmrun.Stats `json:"stats"`
}

type shown struct {
	Name  string `json:"name"`
	Type  string `json:"type"`
	Value string `json:"value"`
}

func (s *Server) look(ctx context.Context, name string, since uint64) (v view) {
	v.Globals, v.Commits = []shown{}, []commit{}
	open, err := s.registry.Peek(name, func(in *mmrun.Instance) error {
		p, err := in.Picture(ctx, mostCells, since)
		if err != nil {
			return err
		}
		v.Seq, v.Memory, v.PagesEach, v.Stats = p.Seq, p.MemoryBytes, p.PagesEach, in.Stats()
		cells := make([]byte, len(p.Cells))
		for i, c := range p.Cells {
			cells[i] = '0' + byte(c)
		}
		v.Cells = string(cells)
		for i, g := range p.Globals[:min(len(p.Globals), mostGlobals)] {
			x := shown{Name: g.Name, Type: values.TypeName(g.Type),
				Value: values.Value{Type: g.Type, Lo: g.Lo, Hi: g.Hi}.String()}
			if x.Name == "" {
				x.Name = fmt.Sprint("global ", i)
			}
			if g.Type == values.FuncRef {
				x.Value = fmt.Sprint("function ", int32(g.Lo))
			}
			v.Globals = append(v.Globals, x)
		}
		return nil
	})
	if v.Open = open; err != nil {
		v.Problem = firstLine(err)
	}
	s.watchers.mu.Lock()
	defer s.watchers.mu.Unlock()
	if one := s.watchers.ones[name]; one != nil {
		v.Commits = slices.Clone(one.recent)
	}
	return v
}

// events sends updates as server-sent events until the client goes away or the server drains. What
// is the same as before is not sent again.
func (s *Server) events(w http.ResponseWriter, r *http.Request, every time.Duration,
	update func(context.Context) any) {
	s.watchers.active.Add(1)
	defer s.watchers.active.Add(-1)
	rc := http.NewResponseController(w)
	_ = rc.SetWriteDeadline(time.Time{}) // it lasts as long as somebody looks
	w.Header().Set("Content-Type", "text/event-stream")
	tick := time.NewTicker(every)
	defer tick.Stop()
	var last []byte
	for quiet := 0; ; quiet++ {
		b, err := json.Marshal(update(r.Context()))
		if err != nil {
			panic(err) // of types of this package
		}
		const heartbeat = 100 // updates
		switch {
		case string(b) != string(last):
			_, err = fmt.Fprintf(w, "data: %s\n\n", b)
			last, quiet = b, 0
		case quiet%heartbeat == heartbeat-1:
			_, err = fmt.Fprint(w, ":\n\n")
		}
		if err == nil {
			err = rc.Flush()
		}
		if err != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-s.watchers.stopped:
			return
		case <-tick.C:
		}
	}
}

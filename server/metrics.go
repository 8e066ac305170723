package server

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/mmrun/mmrun"
)

// metrics are what is told of the server as a whole; no instance has a label of its own.
type metrics struct {
	all     *prometheus.Registry
	events  *prometheus.CounterVec
	seconds *prometheus.HistogramVec
	commit  prometheus.Histogram
}

// buckets are seconds: an event takes a microsecond, a sync a tenth of a millisecond or more.
var buckets = []float64{1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1, 3, 10, 30}

func newMetrics(s *Server) *metrics {
	m := &metrics{
		all: prometheus.NewRegistry(),
		events: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "mmrun_events_total",
			Help: "Calls, handler events and queries by what became of them."},
			[]string{"type", "result"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "mmrun_event_seconds",
			Help: "Time from a request's arrival to its answer, waiting " +
				"included.", Buckets: buckets},
			[]string{"type"}),
		commit: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "mmrun_commit_seconds",
			Help: "Time of events outside of the guest: waiting, commit and " +
				"sync.", Buckets: buckets}),
	}
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value)
	}
	m.all.MustRegister(m.events, m.seconds, m.commit,
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		gauge("mmrun_instances_open", "Instances that are open.",
			func() float64 { return float64(s.registry.Stats().Open) }),
		gauge("mmrun_instances_in_use", "Instances of which an event runs or waits.",
			func() float64 { return float64(s.registry.Stats().InUse) }),
		gauge("mmrun_events_waiting", "Events that run or wait.",
			func() float64 { return float64(s.registry.Stats().Waiting) }),
		gauge("mmrun_wal_used_bytes", "What a recovery of all open instances would replay.",
			func() float64 {
				return sum(s, func(st *mmrun.Stats) uint64 { return uint64(max(0, st.WALUsed)) })
			}),
		gauge("mmrun_memory_bytes", "Linear memory of all open instances.",
			func() float64 {
				return sum(s,
					func(st *mmrun.Stats) uint64 { return st.MemoryBytes })
			}),
		gauge("mmrun_checkpoint_failures", "Checkpoints of open instances that have failed.",
			func() float64 {
				return sum(s,
					func(st *mmrun.Stats) uint64 { return st.CheckpointFailures })
			}),
	)
	return m
}

// sum adds a number of all open instances.
func sum(s *Server, of func(*mmrun.Stats) uint64) (total float64) {
	for _, name := range s.registry.OpenNames() {
		if st, open := s.registry.IsOpen(name); open {
			total += float64(of(&st))
		}
	}
	return total
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.all, promhttp.HandlerOpts{})
}

func (m *metrics) event(kind string, err error, took time.Duration) {
	result := "committed"
	switch {
	case err != nil:
		result = describe(err).Kind
	case kind == "query":
		result = "answered"
	}
	m.events.WithLabelValues(kind, result).Inc()
	m.seconds.WithLabelValues(kind).Observe(took.Seconds())
}

func (m *metrics) committed(took time.Duration, err error) {
	if err == nil {
		m.commit.Observe(took.Seconds())
	}
}

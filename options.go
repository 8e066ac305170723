package mmrun

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/tetratelabs/wazero"

	"github.com/mmrun/mmrun/globalsfile"
	"github.com/mmrun/mmrun/internal/engine"
	"github.com/mmrun/mmrun/internal/history"
)

// Mode says what a crash can cost.
type Mode = globalsfile.Mode

const (
	// Atomic is the mode of a new state unless WithMode says otherwise: whatever instant the
	// process dies at, the state that comes back is that of the last completed event.
	Atomic = globalsfile.Atomic
	// Continuous keeps each store of the guest at once, without any copy. A process that dies
	// between two events loses nothing; one that dies inside an event leaves a torn state,
	// which Open detects and refuses.
	Continuous = globalsfile.Continuous
)

// ParseMode is the inverse of Mode.String.
func ParseMode(s string) (Mode, error) {
	for _, m := range []Mode{Atomic, Continuous} {
		if s == m.String() {
			return m, nil
		}
	}
	return 0, fmt.Errorf("mode %q: want atomic or continuous", s)
}

// SyncPolicy says when commits are made to survive power loss. A killed process loses no commit
// under any of them. It is SyncAlways, SyncNever or a value of SyncEvery.
type SyncPolicy time.Duration

const (
	// SyncNever leaves syncing to checkpoints and to calls of Sync.
	SyncNever SyncPolicy = 0
	// SyncAlways syncs each commit before its effect is released. Other events run meanwhile; one
	// sync serves all that wait for it.
	SyncAlways SyncPolicy = -1
)

// SyncEvery syncs in the background, d after the first commit that is not synced yet. A failure
// to do so poisons the instance. d must be positive: WithSync refuses any other.
func SyncEvery(d time.Duration) SyncPolicy {
	if d <= 0 {
		return badSync
	}
	return SyncPolicy(d)
}

// badSync is what SyncEvery makes of a duration that is none.
const badSync SyncPolicy = -2

// ParseSync reads "always", "never" or a positive duration such as "1s".
func ParseSync(s string) (SyncPolicy, error) {
	switch s {
	case "always":
		return SyncAlways, nil
	case "never":
		return SyncNever, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		return 0, fmt.Errorf(
			"sync policy %q: want always, never or a positive duration such as 1s", s)
	}
	return SyncEvery(d), nil
}

func (p SyncPolicy) String() string {
	switch {
	case p == SyncAlways:
		return "always"
	case p == SyncNever:
		return "never"
	case p > 0:
		return time.Duration(p).String()
	}
	return fmt.Sprintf("SyncPolicy(%d)", int64(p))
}

const (
	// DefaultWALSize is the most that the log's two segments take together: 16 MiB.
	DefaultWALSize = engine.DefaultWALSize
	// MinWALSize is the least that WithWALSize accepts: 128 KiB.
	MinWALSize = engine.MinWALSize
	// MaxWALSize is the most that WithWALSize accepts: 32 GiB.
	MaxWALSize = engine.MaxWALSize
)

// Option is an argument of Open. What it refuses, Open refuses before it touches anything.
type Option func(*engine.Options) error

func newOptions(opts []Option) (*engine.Options, error) {
	o := engine.DefaultOptions()
	for i, opt := range opts {
		if opt == nil {
			return nil, fmt.Errorf("option %d is nil", i)
		}
		if err := opt(o); err != nil {
			return nil, err
		}
	}
	return o, nil
}

// WithMode chooses the mode. Without it, or with 0, a state keeps the one it has, and a new one is
// Atomic.
// A state that was closed cleanly is converted to the mode given; another one is refused.
func WithMode(m Mode) Option {
	return func(o *engine.Options) error {
		if m != 0 && m != Atomic && m != Continuous {
			return fmt.Errorf("mode %v: want Atomic or Continuous", m)
		}
		o.Mode = m
		return nil
	}
}

// WithSync chooses the sync policy; the default is SyncNever. In Continuous mode a policy other
// than SyncNever syncs the whole memory, at the end of events.
func WithSync(p SyncPolicy) Option {
	return func(o *engine.Options) error {
		if p < SyncAlways {
			return fmt.Errorf("sync policy %v: want SyncAlways, SyncNever or SyncEvery of a "+
				"positive duration", p)
		}
		o.SyncAlways, o.SyncEvery = p == SyncAlways, max(0, time.Duration(p))
		return nil
	}
}

// WithModuleConfig sets what the guest sees of the outside: arguments, environment, clocks,
// randomness, directories. Its name and its start functions are ignored: instances have no name,
// and mmrun runs the module's own start function once in the life of a state. Unless it says
// otherwise clocks stand still and randomness repeats; see wazero's documentation.
func WithModuleConfig(c wazero.ModuleConfig) Option {
	return func(o *engine.Options) error {
		if c == nil {
			return errors.New("WithModuleConfig: the configuration is nil")
		}
		o.Config = c
		return nil
	}
}

// WithWALSize sets the most that the log's two segments take together, in bytes, for a state
// that is created. They begin small and grow by need. An existing state keeps the size it has.
func WithWALSize(n int64) Option {
	return func(o *engine.Options) error {
		if n < MinWALSize || n > MaxWALSize {
			return fmt.Errorf("wal size %d: want %d to %d bytes", n, MinWALSize, int64(MaxWALSize))
		}
		o.WALSize = n
		return nil
	}
}

// Downtime says what a guest's monotonic clock makes of the time in which its state was not open.
type Downtime int

const (
	// CountDowntime: it has passed, by the wall clock, up to a year.
	CountDowntime Downtime = iota
	// SkipDowntime: the clock stood still.
	SkipDowntime
)

// WithClock gives the guest a monotonic clock of this machine that goes on where the last commit
// has left it, also after a reboot, on another machine and from a snapshot: it never runs back. The
// one of WithModuleConfig is not used. An event that reads the clock costs some bytes of log more.
func WithClock(d Downtime) Option {
	return func(o *engine.Options) error {
		if d != CountDowntime && d != SkipDowntime {
			return fmt.Errorf("downtime %d: want CountDowntime or SkipDowntime", d)
		}
		o.Clock, o.SkipDowntime = true, d == SkipDowntime
		return nil
	}
}

// WithHistory keeps the commits of the state in its directory, so that any of them can be asked and
// forked (package archive): "all" of them, those of a time such as "7d" or "36h", or as many as fit
// into a size such as "10GiB". Given once it is remembered by the state. Events cost a note of some
// 20 bytes more (0.27 µs); the rest is done by checkpoints, in the background. What is too old or
// too much is taken away up to a commit of which there is a snapshot. Atomic mode only.
func WithHistory(keep string) Option {
	return func(o *engine.Options) error {
		if _, err := history.ParseKeep(keep); err != nil {
			return err
		}
		o.KeepHistory = keep
		return nil
	}
}

// WithEventNotes has each commit say when it was made, how long it took, and which function it
// called first: archive.Log shows that. WithHistory does so, too.
func WithEventNotes() Option {
	return func(o *engine.Options) error {
		o.Notes = true
		return nil
	}
}

// WithModuleLink has link give a new state its module as another name (a hard link) of a file that
// holds the same bytes durably, so that many states share one copy. If link fails, the module is
// written.
func WithModuleLink(link func(path string) error) Option {
	return func(o *engine.Options) error {
		o.LinkModule = link
		return nil
	}
}

// WithLogger receives what happens in the background: recoveries, checkpoints, failures.
func WithLogger(l *slog.Logger) Option {
	return func(o *engine.Options) error {
		if l == nil {
			return errors.New("WithLogger: the logger is nil")
		}
		o.Logger = l
		return nil
	}
}

// Tracker is how the pages that an event has changed are found, in Atomic mode. Each gives the same
// commits, and a state can be opened with either.
type Tracker int

const (
	// Auto takes the one of which less is to be expected, from what the state's events have cost so
	// far: Kernel at first, then, from the next opening after the first thousand events on, what is
	// estimated or has been seen to be cheaper. Stats and inspect say what was chosen, and why.
	Auto Tracker = iota
	// Kernel lets the operating system tell, by page faults, or compares where it does not. It
	// costs the guest's code nothing. An event that writes to pages that were not written lately
	// costs page faults and a scan of the memory, and so does one during which anybody in the
	// process has faulted.
	Kernel
	// Barrier lets the guest tell: its code is compiled with a check before each store, which makes
	// it slower and an event cheaper, whatever the size of the memory. What functions of WASI write
	// is known; other host functions tell by MarkWritten, and after an event in which one was
	// called that does not, all of the memory is compared. It costs 8 bytes for each page of the
	// memory.
	Barrier
)

func (t Tracker) String() string {
	switch t {
	case Auto:
		return "auto"
	case Kernel:
		return "kernel"
	case Barrier:
		return "barrier"
	}
	return fmt.Sprintf("Tracker(%d)", int(t))
}

// ParseTracker reads a tracker as String writes it.
func ParseTracker(s string) (Tracker, error) {
	for _, t := range []Tracker{Auto, Kernel, Barrier} {
		if s == t.String() {
			return t, nil
		}
	}
	return 0, fmt.Errorf("tracker %q: want auto, kernel or barrier", s)
}

// WithTracker chooses how changed pages are found. In Continuous mode nobody has to find any.
func WithTracker(t Tracker) Option {
	return func(o *engine.Options) error {
		if t < Auto || t > Barrier {
			return fmt.Errorf("tracker %v: want Auto, Kernel or Barrier", t)
		}
		o.Tracker = engine.Tracker(t)
		return nil
	}
}

// WithAcceptTorn opens a torn state as it is, instead of refusing it with ErrTorn. Its memory
// is what the interrupted event left of it.
func WithAcceptTorn() Option {
	return func(o *engine.Options) error {
		o.AcceptTorn = true
		return nil
	}
}

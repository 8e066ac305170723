package mmrun

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/tetratelabs/wazero"

	"github.com/mmrun/mmrun/internal/statedir"
	"github.com/mmrun/mmrun/vfs"
)

// Mode says what a crash can cost.
type Mode int

const (
	// Atomic is the mode of a new state unless WithMode says otherwise: whatever instant the
	// process dies at, the state that comes back is that of the last completed event.
	Atomic Mode = iota + 1
	// Continuous keeps each store of the guest at once, without any copy. A process that dies
	// between two events loses nothing; one that dies inside an event leaves a torn state,
	// which Open detects and refuses.
	Continuous
)

func (m Mode) String() string {
	switch m {
	case Atomic:
		return "atomic"
	case Continuous:
		return "continuous"
	}
	return fmt.Sprintf("Mode(%d)", int(m))
}

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
// under any of them. The zero value is SyncNever.
type SyncPolicy struct {
	always bool
	every  time.Duration
}

// SyncAlways syncs each commit before its effect is released.
var SyncAlways = SyncPolicy{always: true}

// SyncNever leaves syncing to checkpoints and to calls of Sync.
var SyncNever = SyncPolicy{}

// SyncEvery syncs in the background, d after the first commit that is not synced yet. A failure
// to do so poisons the instance. d must be positive.
func SyncEvery(d time.Duration) SyncPolicy { return SyncPolicy{every: d} }

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
		return SyncPolicy{}, fmt.Errorf("sync policy %q: want always, never or a positive duration such as 1s", s)
	}
	return SyncEvery(d), nil
}

func (p SyncPolicy) String() string {
	switch {
	case p.always:
		return "always"
	case p.every > 0:
		return p.every.String()
	}
	return "never"
}

const (
	// DefaultWALSize is the size of a wal's two segments together: 16 MiB.
	DefaultWALSize = 16 << 20
	// MinWALSize is the least that WithWALSize accepts: 128 KiB.
	MinWALSize = 128 << 10
)

// Option is an argument of Open.
type Option func(*options)

type options struct {
	mode       Mode // 0: the state's, or Atomic
	sync       SyncPolicy
	config     wazero.ModuleConfig
	walSize    int64
	logger     *slog.Logger
	acceptTorn bool
	fs         vfs.FS
	bootID     func() [16]byte
}

func newOptions(opts []Option) (*options, error) {
	o := &options{
		config:  wazero.NewModuleConfig(),
		walSize: DefaultWALSize,
		logger:  slog.New(slog.DiscardHandler),
		fs:      vfs.OS,
		bootID:  statedir.Boot,
	}
	for _, opt := range opts {
		opt(o)
	}
	if o.walSize < MinWALSize {
		return nil, fmt.Errorf("wal size %d: the least is %d bytes", o.walSize, MinWALSize)
	}
	return o, nil
}

// WithMode chooses the mode. Without it a state keeps the one it has, and a new one is Atomic.
// A state that was closed cleanly is converted to the mode given; another one is refused.
func WithMode(m Mode) Option { return func(o *options) { o.mode = m } }

// WithSync chooses the sync policy; the default is SyncNever. In Continuous mode a policy other
// than SyncNever syncs the whole memory, at the end of events.
func WithSync(p SyncPolicy) Option { return func(o *options) { o.sync = p } }

// WithModuleConfig sets what the guest sees of the outside: arguments, environment, clocks,
// randomness, directories. Its name and its start functions are ignored: instances have no name,
// and mmrun runs the module's own start function once in the life of a state. Unless it says otherwise clocks stand still and randomness repeats; see
// wazero's documentation.
func WithModuleConfig(c wazero.ModuleConfig) Option { return func(o *options) { o.config = c } }

// WithWALSize sets the size of the wal's two segments together, in bytes, for a state
// that is created. An existing state keeps the size it has.
func WithWALSize(n int64) Option { return func(o *options) { o.walSize = n } }

// WithLogger receives what happens in the background: recoveries, checkpoints, failures.
func WithLogger(l *slog.Logger) Option { return func(o *options) { o.logger = l } }

// WithAcceptTorn opens a torn state as it is, instead of refusing it with ErrTorn. Its memory
// is what the interrupted event left of it.
func WithAcceptTorn() Option { return func(o *options) { o.acceptTorn = true } }

// withFS replaces the file operations, for fault injection.
func withFS(fs vfs.FS) Option { return func(o *options) { o.fs = fs } }

// withBootID replaces the identity of the machine's boot, for tests of power loss.
func withBootID(id [16]byte) Option {
	return func(o *options) { o.bootID = func() [16]byte { return id } }
}

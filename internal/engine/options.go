package engine

import (
	"log/slog"
	"time"

	"github.com/tetratelabs/wazero"

	"github.com/mmrun/mmrun/globalsfile"
	"github.com/mmrun/mmrun/internal/statedir"
	"github.com/mmrun/mmrun/vfs"
	"github.com/mmrun/mmrun/wal"
)

// Modes of a state; the words are explained in the root package.
const (
	Atomic     = globalsfile.Atomic
	Continuous = globalsfile.Continuous
)

const (
	// DefaultWALSize is the most that the log's two segments take together: 16 MiB.
	DefaultWALSize = 16 << 20
	// MinWALSize is the least that can be chosen for that: 128 KiB.
	MinWALSize = 128 << 10
	// MaxWALSize is the most: 32 GiB, half of it a segment.
	MaxWALSize = 32 << 30
)

// History keeps the commits of a state. It is called by whoever makes checkpoints, one at a time.
type History interface {
	// Add is told of each record in order; some may come twice.
	Add(r wal.Record)
	// Flush makes durable what was added. An error is the history's own: the state goes on.
	Flush() error
	Close() error
}

// Options is how a state is opened.
type Options struct {
	Mode       globalsfile.Mode // 0: the state's, or Atomic
	SyncAlways bool             // each commit, before its effect is released
	SyncEvery  time.Duration    // if positive: this long after the first commit that is not synced
	Config     wazero.ModuleConfig
	WALSize    int64 // bytes, both segments together
	Logger     *slog.Logger
	AcceptTorn bool
	Tracker    Tracker // in Atomic mode

	// KeepHistory and Notes are the root's: what history is kept, and whether commits say what for.
	KeepHistory string
	Notes       bool
	// History, if not nil, opens what is told of each commit that checkpoints bring forward.
	History func() (History, error)
	// Program: the guest is a program that is left at its waits.
	Program bool
	// LinkModule, if not nil, puts the module of a new state at a path, as a name of a file that is
	// there already and durable. If it fails, the module is written.
	LinkModule func(path string) error
	// Clock: the guest has a monotonic clock that goes on; SkipDowntime: it stands still meanwhile.
	Clock, SkipDowntime bool
	// FirstKept, if not nil, gives what the host's side keeps after the first run of a module.
	FirstKept func() []Change
	// Handler is the root's: the guest's standard input and output, if they belong to events.
	Handler any

	FS     vfs.FS
	BootID func() [16]byte
	Now    func() time.Duration // a monotonic clock
	// Opened, if not nil, is told of the store of an instance that has been opened. It is for tests
	// that look behind the instance.
	Opened func(*Store)
}

// DefaultOptions are those of a state that is opened without any.
func DefaultOptions() *Options {
	return &Options{
		Config:  wazero.NewModuleConfig(),
		WALSize: DefaultWALSize,
		Logger:  slog.New(slog.DiscardHandler),
		FS:      vfs.OS,
		BootID:  statedir.Boot,
		Now:     monotonic,
	}
}

package realguests

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"os"

	"github.com/tetratelabs/wazero"
)

// world is what a guest sees of the outside: clocks, randomness, standard output. All of it is a
// function of the event's number, so that an event which runs again after a kill sees the same.
type world struct {
	event  uint64
	random *rand.ChaCha8
	out    bytes.Buffer
	dieAt  uint64 // event in which the process kills itself; 0 is never
}

func newWorld() *world {
	w := &world{}
	w.begin(0)
	return w
}

// begin starts an event. Event 0 is the module's first run.
func (w *world) begin(event uint64) {
	var seed [32]byte
	binary.LittleEndian.PutUint64(seed[:], event)
	w.event, w.random = event, rand.NewChaCha8(seed)
	w.out.Reset()
}

// touch is called by each host function that a guest calls: if the process is to die in this event,
// it dies here, with the guest's frames on the stack.
func (w *world) touch() {
	if w.dieAt != 0 && w.event == w.dieAt {
		die()
	}
}

// die is kill -9.
func die() {
	p, err := os.FindProcess(os.Getpid())
	if err == nil {
		err = p.Kill()
	}
	if err != nil {
		panic(err)
	}
	select {} // the signal is on its way
}

func (w *world) printed() string { return w.out.String() }

// unixMilli is the time: one second an event.
func (w *world) unixMilli() int64 { return 1_700_000_000_000 + int64(w.event)*1000 }

func (w *world) config() wazero.ModuleConfig {
	return wazero.NewModuleConfig().WithName("").
		WithRandSource(randomSource{w}).
		WithWalltime(func() (int64, int32) { w.touch(); return w.unixMilli() / 1000, 0 }, 1000).
		WithNanotime(func() int64 { w.touch(); return int64(w.event+1) * 1e9 }, 1000).
		WithNanosleep(func(int64) {}).
		WithStdout(printer{w}).WithStderr(printer{w}).
		WithEnv("LANG", "C").WithArgs("guest")
}

type randomSource struct{ w *world }

func (r randomSource) Read(p []byte) (int, error) {
	r.w.touch()
	return r.w.random.Read(p)
}

type printer struct{ w *world }

func (p printer) Write(b []byte) (int, error) {
	p.w.touch()
	return p.w.out.Write(b)
}

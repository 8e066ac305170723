package crash

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"
)

// Plan is when a child is killed: Delay after its report number Count of that phase, or after its
// start if the phase is 0. If that does not come within Limit, it is killed then.
type Plan struct {
	After Phase
	Count int
	Delay time.Duration
	Limit time.Duration
}

// Outcome is what is known of a child that was killed.
type Outcome struct {
	Reports []Report
	// how long the phases took that it came out of, each the last time
	Took map[Phase]time.Duration
}

// Last is the phase in which the child was killed, 0 if it had not said anything.
func (o Outcome) Last() Phase {
	if len(o.Reports) == 0 {
		return 0
	}
	return o.Reports[len(o.Reports)-1].Phase
}

// hung is how long a child may take for what was planned. It is no part of any test's timing.
const hung = 2 * time.Minute

// Kill starts c in a process of its own, which must be one of a program that calls RunChild, kills
// it with SIGKILL as planned, and returns what it had reported until then. An error means that the
// child ended by itself, or hangs.
func (c Child) Kill(p Plan) (Outcome, error) {
	out := Outcome{Took: map[Phase]time.Duration{}}
	config, err := json.Marshal(c)
	if err != nil {
		return out, err
	}
	read, write, err := os.Pipe()
	if err != nil {
		return out, err
	}
	defer read.Close()
	var stderr bytes.Buffer
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+string(config))
	cmd.Stderr = &stderr
	cmd.ExtraFiles = []*os.File{write} // becomes reportsFD
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return out, err
	}
	defer stdin.Close()
	err = cmd.Start()
	write.Close()
	if err != nil {
		return out, err
	}

	reached := make(chan struct{})
	ended := make(chan error, 1)
	go func() { ended <- out.listen(read, p, reached) }()
	if p.After == 0 {
		close(reached)
	}
	limit := p.Limit
	if limit == 0 {
		limit = hung
	}
	var planned error
	select {
	case <-reached:
		pause(p.Delay)
	case <-time.After(limit):
		if p.Limit == 0 {
			planned = fmt.Errorf("the child hangs: no %v within %v", p.After, limit)
		}
	case err := <-ended:
		ended <- err
	}
	if err := cmd.Process.Kill(); err != nil && planned == nil {
		planned = err // it has ended by itself
	}
	listened := <-ended
	err = cmd.Wait()
	switch {
	case planned != nil:
	case listened != nil:
		planned = listened
	case err == nil || err.Error() != "signal: killed":
		planned = fmt.Errorf("the child ended with %v instead of being killed", err)
	}
	if planned != nil {
		return out, fmt.Errorf("%w (it was %v)\n%s", planned, out.Last(), stderr.Bytes())
	}
	return out, nil
}

// listen reads reports until the child is gone, and closes reached when the plan's has come.
func (o *Outcome) listen(pipe io.Reader, p Plan, reached chan<- struct{}) error {
	var b [reportSize]byte
	last := time.Now()
	for count := 0; ; {
		_, err := io.ReadFull(pipe, b[:])
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("report: %w", err)
		}
		r := decodeReport(b[:])
		if r.Phase == p.After {
			if count++; count == max(p.Count, 1) {
				close(reached)
			}
		}
		now := time.Now()
		o.Took[o.Last()] = now.Sub(last)
		last = now
		o.Reports = append(o.Reports, r)
	}
}

// pause waits for d. The point is to kill at an arbitrary instant: nothing else depends on it.
func pause(d time.Duration) {
	const coarse = 200 * time.Microsecond // what a sleep may be late
	start := time.Now()
	if d > coarse {
		time.Sleep(d - coarse)
	}
	for time.Since(start) < d {
	}
}

//go:build linux

package work

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/mmrun/mmrun/bench/peers"
)

// begun is when this process began to run its own code.
var begun = time.Now()

// job is what a child does with a store:
//
//	nothing say "ok": what a process takes by itself
//	load    fill it, then say "ok"
//	update  put n values, the last one of key 0 in version n, then say "ok"
//	answer  open it and say the version of key 0 and the microseconds since the process began
//	count   increment for ever, and say each acknowledged number as 8 bytes
//	written n increments or puts, then say the bytes that have been written
//
// After what it says it waits to be killed.
type job struct {
	what, peer, dir string
	keys, n         uint32
}

func (j job) args() []string {
	return []string{"child", j.what, j.peer, j.dir, fmt.Sprint(j.keys), fmt.Sprint(j.n)}
}

// Child does the job that the arguments behind "child" name. It does not return but for an error.
func Child(args []string) error {
	if len(args) != 5 {
		return errors.New("child: not to be called by hand")
	}
	keys, err := strconv.ParseUint(args[3], 10, 32)
	if err != nil {
		return err
	}
	n, err := strconv.ParseUint(args[4], 10, 32)
	if err != nil {
		return err
	}
	j := job{args[0], args[1], args[2], uint32(keys), uint32(n)}
	if j.what == "nothing" {
		_, err := fmt.Println("ok")
		return err
	}
	p, err := peers.ByName(j.peer)
	if err != nil {
		return err
	}
	store, err := p.Open(peers.Options{Dir: j.dir, Keys: j.keys,
		CacheDir: filepath.Join(filepath.Dir(j.dir), "cache")})
	if err != nil {
		return err
	}
	if err := j.do(store, os.Stdout); err != nil {
		return fmt.Errorf("%s: %s: %w", j.peer, j.what, err)
	}
	select {}
}

func (j job) do(store peers.Store, out io.Writer) error {
	switch j.what {
	case "load":
		if err := store.Load(j.keys); err != nil {
			return err
		}
	case "update":
		if err := j.update(store); err != nil {
			return err
		}
	case "answer":
		key := peers.KeyOf(0)
		var v peers.Value
		if err := store.Get(&key, &v); err != nil {
			return err
		}
		_, err := fmt.Fprintf(out, "%d %d\n", v.Version(), time.Since(begun).Microseconds())
		return err
	case "count":
		for {
			if err := store.Increment(0); err != nil {
				return err
			}
			n, err := store.Count(0)
			if err != nil {
				return err
			}
			if _, err := out.Write(binary.LittleEndian.AppendUint64(nil, n)); err != nil {
				return err
			}
		}
	case "written":
		return j.written(store, out)
	default:
		return errors.New("no such job")
	}
	_, err := fmt.Fprintln(out, "ok")
	return err
}

// update writes evenly over the keys. Those that copy everything save the last one only: the point
// is what is found after it.
func (j job) update(store peers.Store) error {
	pause, _ := store.(interface{ Pause(bool) })
	if pause != nil {
		pause.Pause(true)
	}
	for i := range j.n {
		key, version := 1+(i*7919)%max(j.keys-1, 1), i+1
		if i == j.n-1 {
			key = 0
			if pause != nil {
				pause.Pause(false)
			}
		}
		if err := store.Put(&peers.Entry{Key: peers.KeyOf(key),
			Value: peers.ValueOf(key, version)}); err != nil {
			return err
		}
	}
	return nil
}

// written says bytes that this process and its children have had written to the disk, from
// /proc/PID/io, from before the first operation until all is synced.
func (j job) written(store peers.Store, out io.Writer) error {
	pids := []int{os.Getpid()}
	if s, ok := store.(interface{ PID() int }); ok {
		pids = append(pids, s.PID())
	}
	if j.keys > 0 {
		if err := store.Load(j.keys); err != nil {
			return err
		}
	}
	syscall.Sync()
	before, err := writeBytes(pids)
	if err != nil {
		return err
	}
	for i := range j.n {
		if j.keys == 0 {
			err = store.Increment(0)
		} else {
			key := (i * 7919) % j.keys
			err = store.Put(&peers.Entry{Key: peers.KeyOf(key), Value: peers.ValueOf(key, i)})
		}
		if err != nil {
			return err
		}
	}
	syscall.Sync()
	after, err := writeBytes(pids)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, after-before)
	return err
}

func writeBytes(pids []int) (total int64, err error) {
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
		if err != nil {
			return 0, err
		}
		_, rest, _ := strings.Cut(string(text), "\nwrite_bytes:")
		var n int64
		if _, err := fmt.Sscan(rest, &n); err != nil {
			return 0, fmt.Errorf("/proc/%d/io: %w", pid, err)
		}
		total += n
	}
	return total, nil
}

// child is a process that runs a job.
type child struct {
	cmd     *exec.Cmd
	out     *bufio.Reader
	started time.Time
	log     strings.Builder
}

func (r *Run) start(j job) (*child, error) {
	c := &child{cmd: exec.Command(r.Executable, j.args()...)}
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	c.cmd.Stderr = &c.log
	pipe, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c.out = bufio.NewReader(pipe)
	c.started = time.Now()
	return c, c.cmd.Start()
}

// says waits for a line, and tells when it came, since the start.
func (c *child) says() (string, time.Duration, error) {
	line, err := c.out.ReadString('\n')
	took := time.Since(c.started)
	if err != nil {
		return "", 0, errors.Join(fmt.Errorf("%s: %w", strings.TrimSpace(c.log.String()), err),
			c.kill())
	}
	return strings.TrimSpace(line), took, nil
}

// kill is kill -9.
func (c *child) kill() error {
	err := c.cmd.Process.Kill()
	if e := c.cmd.Wait(); e != nil && !errors.As(e, new(*exec.ExitError)) {
		err = errors.Join(err, e)
	}
	return err
}

// once runs a job until it has said its line, and kills it.
func (r *Run) once(j job) (string, time.Duration, error) {
	c, err := r.start(j)
	if err != nil {
		return "", 0, err
	}
	line, took, err := c.says()
	if err != nil {
		return "", 0, fmt.Errorf("%s: %s: %w", j.peer, j.what, err)
	}
	return line, took, c.kill()
}

// number reads one that a counting child says.
func (c *child) number() (uint64, error) {
	var b [8]byte
	if _, err := io.ReadFull(c.out, b[:]); err != nil {
		return 0, fmt.Errorf("%s: %w", strings.TrimSpace(c.log.String()), err)
	}
	return binary.LittleEndian.Uint64(b[:]), nil
}

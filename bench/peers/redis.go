package peers

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/gomodule/redigo/redis"
)

func redisPeers() []Peer {
	peer := func(policy string, safety Safety) Peer {
		return Peer{Name: "Redis " + policy, Safety: safety,
			Settings: "a server of its own on a Unix socket, one connection, appendonly yes, " +
				"appendfsync " + policy + ", no RDB files",
			Open: func(o Options) (Store, error) { return openRedis(o, policy) },
			Missing: func() error {
				_, err := exec.LookPath("redis-server")
				return err
			}}
	}
	return []Peer{peer("everysec", Kill), peer("always", Power)}
}

// redisStore is a server and a connection to it.
type redisStore struct {
	server *exec.Cmd
	redis.Conn
}

func openRedis(o Options, policy string) (Store, error) {
	socket := filepath.Join(o.Dir, "socket")
	server := exec.Command("redis-server", "--port", "0", "--unixsocket", socket, "--dir", o.Dir,
		"--appendonly", "yes", "--appendfsync", policy, "--save", "", "--daemonize", "no",
		"--logfile", filepath.Join(o.Dir, "log"))
	endWithParent(server)
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if err := server.Start(); err != nil {
		return nil, err
	}
	s := &redisStore{server: server}
	// It answers LOADING until it has read its file.
	var err error
	for range 6000 {
		if s.Conn, err = redis.Dial("unix", socket); err == nil {
			if _, err = s.Do("PING"); err == nil {
				return s, nil
			}
			s.Conn.Close()
		}
		time.Sleep(5 * time.Millisecond)
	}
	return nil, errors.Join(fmt.Errorf("redis-server does not answer: %w", err),
		server.Process.Kill(), server.Wait())
}

func (s *redisStore) Increment(counter uint32) error {
	_, err := s.Do("INCR", counterKey(counter))
	return err
}

func (s *redisStore) Count(counter uint32) (uint64, error) {
	n, err := redis.Uint64(s.Do("GET", counterKey(counter)))
	if errors.Is(err, redis.ErrNil) {
		return 0, nil
	}
	return n, err
}

func (s *redisStore) Load(n uint32) error {
	return inBatches(n, func(batch []Entry) error {
		for i := range batch {
			if err := s.Send("SET", batch[i].Key[:], batch[i].Value[:]); err != nil {
				return err
			}
		}
		_, err := s.Do("") // flushes, and reads all answers
		return err
	})
}

func (s *redisStore) Put(e *Entry) error {
	_, err := s.Do("SET", e.Key[:], e.Value[:])
	return err
}

func (s *redisStore) PutAll(batch []Entry) error {
	args := make([]any, 0, 2*len(batch))
	for i := range batch {
		args = append(args, batch[i].Key[:], batch[i].Value[:])
	}
	_, err := s.Do("MSET", args...)
	return err
}

func (s *redisStore) Get(k *Key, v *Value) error {
	value, err := redis.Bytes(s.Do("GET", k[:]))
	if errors.Is(err, redis.ErrNil) {
		return ErrNoKey
	}
	copy(v[:], value)
	return err
}

// CPU is the processor time of the server's threads, from /proc.
func (s *redisStore) CPU() (d time.Duration) {
	tasks := fmt.Sprintf("/proc/%d/task", s.server.Process.Pid)
	entries, _ := os.ReadDir(tasks)
	for _, e := range entries {
		line, _ := os.ReadFile(filepath.Join(tasks, e.Name(), "schedstat"))
		if fields := strings.Fields(string(line)); len(fields) > 0 {
			ns, _ := strconv.ParseInt(fields[0], 10, 64)
			d += time.Duration(ns)
		}
	}
	return d
}

// Kill ends the server as a crash does.
func (s *redisStore) Kill() error {
	return errors.Join(s.server.Process.Kill(), ignoreExit(s.server.Wait()))
}

func (s *redisStore) Close() error {
	return errors.Join(s.Conn.Close(), s.server.Process.Signal(syscall.SIGTERM),
		ignoreExit(s.server.Wait()))
}

// ignoreExit drops the error that a process has not ended with 0.
func ignoreExit(err error) error {
	if e := new(exec.ExitError); errors.As(err, &e) {
		return nil
	}
	return err
}

// PID is the server's process.
func (s *redisStore) PID() int { return s.server.Process.Pid }

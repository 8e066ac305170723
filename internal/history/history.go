// Package history keeps the commits of a state, so that any of them can be opened: snapshots now
// and then, and the log's records behind them, compressed.
package history

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/mmrun/mmrun/vfs"
	"github.com/mmrun/mmrun/wal"
)

/*
The directory history of a state:

	keep.json    what is kept: {"keep":"all"}, {"keep":"168h0m0s"} or {"keep":"10737418240"} bytes
	SEQ.base     a snapshot of that commit (internal/snapshot)
	SEQ.log      frames of records, of which the first one is that commit or a later one

SEQ has 20 digits. A frame:

	 0      4  magic "mmH1"
	 4      4  CRC-32C of bytes 8 to 47
	 8      8  sequence number of the first record
	16      8  of the last one
	24      8  when the frame was written, nanoseconds since 1970
	32      4  length of the content
	36      4  length as it is here: one frame of Zstandard
	40      4  CRC-32C of what is here
	44      4  zero
	48         the content, compressed: records as they are outside of a segment (package wal)

A frame that is not whole ends a file. Records follow each other by their numbers; where some are
missing, a base comes before the next ones.
*/
const (
	frameMagic = "mmH1"
	frameHead  = 48

	// DirName is the directory in that of a state.
	DirName   = "history"
	keepName  = "keep.json"
	baseEnd   = ".base"
	logEnd    = ".log"
	nameWidth = 20

	// fileSize is when a log goes on in another file, in bytes.
	fileSize = 16 << 20
	// mostFrame bounds the content of a frame.
	mostFrame = 1 << 30
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	le         = binary.LittleEndian
)

// ErrMissing: a commit is not in the history, or no way leads to it.
var ErrMissing = errors.New("not in the history")

// Keep says what is kept. The zero value is nothing, All is everything.
type Keep struct {
	Age   time.Duration // of the newest commits
	Bytes int64         // of the files
	All   bool
}

// ParseKeep reads "all", a duration such as 36h or 7d, or a size such as 10GiB.
func ParseKeep(s string) (k Keep, err error) {
	if s == "all" {
		return Keep{All: true}, nil
	}
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil && n > 0 {
			return Keep{Age: time.Duration(n) * 24 * time.Hour}, nil
		}
	}
	if d, err := time.ParseDuration(s); err == nil && d > 0 {
		return Keep{Age: d}, nil
	}
	for _, u := range []struct {
		name  string
		bytes int64
	}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"", 1}} {
		if text, ok := strings.CutSuffix(s, u.name); ok {
			if n, err := strconv.ParseInt(text, 10, 40); err == nil && n > 0 {
				return Keep{Bytes: n * u.bytes}, nil
			}
			break
		}
	}
	return k, fmt.Errorf("history %q: want all, a time such as 7d or 36h, or a size such as 10GiB",
		s)
}

func (k Keep) String() string {
	switch {
	case k.All:
		return "all"
	case k.Age > 0:
		return k.Age.String()
	}
	return strconv.FormatInt(k.Bytes, 10)
}

// Dir is the history of a state.
func Dir(state string) string { return filepath.Join(state, DirName) }

// Remembered is what a state was told to keep; ok is false if it keeps no history.
func Remembered(state string) (k Keep, ok bool, err error) {
	b, err := os.ReadFile(filepath.Join(Dir(state), keepName))
	if errors.Is(err, fs.ErrNotExist) {
		return k, false, nil
	}
	var said struct{ Keep string }
	if err == nil {
		err = json.Unmarshal(b, &said)
	}
	if err == nil {
		k, err = ParseKeep(said.Keep)
	}
	return k, err == nil, err
}

// Remember has a state remember what to keep.
func Remember(state string, k Keep) error {
	if err := os.MkdirAll(Dir(state), 0o777); err != nil {
		return err
	}
	b, err := json.Marshal(struct {
		Keep string `json:"keep"`
	}{k.String()})
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(Dir(state), keepName), b)
}

// Writer adds to a history. Its methods may be called at the same time; Add and Flush are for
// whoever makes checkpoints.
type Writer struct {
	dir  string
	keep Keep
	// Flushed, if not nil, is called at the end of each Flush, and must not wait. To be set before
	// the first one.
	Flushed func()

	mu    sync.Mutex
	z     *zstd.Encoder
	file  *os.File
	size  int64
	first uint64 // in buf
	last  uint64 // record that was added; 0: none is known
	buf   []byte
	gap   uint64 // record before which some are missing: a base is needed; 0: none
	// broken is why the history has no more room or the like: the state goes on without.
	broken error
}

// Open opens or begins the history of a state, and has it remembered what is to be kept.
func Open(state string, k Keep) (*Writer, error) {
	if err := Remember(state, k); err != nil {
		return nil, err
	}
	w := &Writer{dir: Dir(state), keep: k}
	var err error
	if w.z, err = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest),
		zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false)); err != nil {
		return nil, err
	}
	err = frames(w.dir, 0, func(f frame) error {
		w.last = f.last
		return nil
	})
	return w, err
}

func writeFile(path string, b []byte) error {
	tmp := path + ".tmp"
	f, err := os.Create(tmp)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return err
	}
	return vfs.OS.SyncDir(filepath.Dir(path))
}

// Add adds a record behind those before; one that is there already is left out.
func (w *Writer) Add(r wal.Record) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if r.Seq <= w.last || w.broken != nil {
		return
	}
	if w.last != 0 && r.Seq != w.last+1 {
		w.gap = r.Seq
	}
	if len(w.buf) == 0 {
		w.first = r.Seq
	}
	w.buf = wal.EncodeRecord(w.buf, r)
	w.last = r.Seq
	if len(w.buf) > 64<<20 {
		w.broken = w.write()
	}
}

// Flush makes durable what was added. An error leaves the history with a gap; the state is not
// touched by it.
func (w *Writer) Flush() error {
	w.mu.Lock()
	if w.broken == nil {
		w.broken = w.write()
	}
	err := w.broken
	w.mu.Unlock()
	if err == nil && w.Flushed != nil {
		w.Flushed()
	}
	return err
}

func (w *Writer) write() error {
	if len(w.buf) == 0 {
		return nil
	}
	if w.file != nil && w.size >= fileSize {
		if err := w.file.Close(); err != nil {
			return err
		}
		w.file = nil
	}
	if w.file == nil {
		// Never one that is there: its end may be torn.
		path := filepath.Join(w.dir, name(w.first, logEnd))
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
		if err != nil {
			return err
		}
		w.file, w.size = f, 0
		if err := vfs.OS.SyncDir(w.dir); err != nil {
			return err
		}
	}
	body := w.z.EncodeAll(w.buf, nil)
	head := make([]byte, frameHead)
	copy(head, frameMagic)
	le.PutUint64(head[8:], w.first)
	le.PutUint64(head[16:], w.last)
	le.PutUint64(head[24:], uint64(time.Now().UnixNano()))
	le.PutUint32(head[32:], uint32(len(w.buf)))
	le.PutUint32(head[36:], uint32(len(body)))
	le.PutUint32(head[40:], crc32.Checksum(body, castagnoli))
	le.PutUint32(head[4:], crc32.Checksum(head[8:], castagnoli))
	n, err := w.file.Write(append(head, body...))
	w.size += int64(n)
	if err == nil {
		err = w.file.Sync()
	}
	w.buf = w.buf[:0]
	return err
}

// Close closes the files.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.close()
}

func (w *Writer) close() error {
	if w.file == nil {
		return nil
	}
	return w.file.Close()
}

func name(seq uint64, end string) string { return fmt.Sprintf("%0*d%s", nameWidth, seq, end) }

// BasePath is where a base of a commit is to be.
func BasePath(state string, seq uint64) string {
	return filepath.Join(Dir(state), name(seq, baseEnd))
}

// list gives the numbers of the files of a kind, ascending.
func list(dir, end string) ([]uint64, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var numbers []uint64
	for _, e := range entries {
		digits, ok := strings.CutSuffix(e.Name(), end)
		if n, err := strconv.ParseUint(digits, 10, 64); ok && err == nil &&
			len(digits) == nameWidth {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	return numbers, nil
}

// WriteBase has a base written, which gets its name when it is whole and durable. write tells of
// which commit it is.
func WriteBase(state string, write func(w io.Writer) (seq uint64, err error)) error {
	f, err := os.CreateTemp(Dir(state), "base-*.tmp")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // if it has not got its name
	seq, err := write(f)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), BasePath(state, seq))
	}
	if err != nil {
		return err
	}
	return vfs.OS.SyncDir(Dir(state))
}

// Bases are the commits of which there is a base, ascending.
func Bases(state string) ([]uint64, error) { return list(Dir(state), baseEnd) }

// frame is one that was found.
type frame struct {
	first, last uint64
	body        []byte
	length      uint32
}

// frames gives those that have records behind a commit, in order. Damage ends a file.
func frames(dir string, after uint64, fn func(f frame) error) error {
	logs, err := list(dir, logEnd)
	if err != nil {
		return err
	}
	for i, n := range logs {
		if i+1 < len(logs) && logs[i+1] <= after+1 {
			continue // all of it comes before
		}
		if err := framesOf(filepath.Join(dir, name(n, logEnd)), after, fn); err != nil {
			return err
		}
	}
	return nil
}

func framesOf(path string, after uint64, fn func(f frame) error) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	head := make([]byte, frameHead)
	for at := int64(0); at+frameHead <= info.Size(); {
		if _, err := file.ReadAt(head, at); err != nil {
			return err
		}
		if string(head[:4]) != frameMagic || le.Uint32(head[4:]) != crc32.Checksum(head[8:],
			castagnoli) {
			return nil
		}
		f := frame{first: le.Uint64(head[8:]), last: le.Uint64(head[16:]),
			length: le.Uint32(head[32:])}
		body := int64(le.Uint32(head[36:]))
		if body > info.Size()-at-frameHead || f.length > mostFrame {
			return nil
		}
		if f.last > after {
			f.body = make([]byte, body)
			if _, err := file.ReadAt(f.body, at+frameHead); err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			if crc32.Checksum(f.body, castagnoli) != le.Uint32(head[40:]) {
				return nil
			}
		}
		if err := fn(f); err != nil {
			return err
		}
		at += frameHead + body
	}
	return nil
}

// errEnough ends a walk.
var errEnough = errors.New("enough")

// Records calls fn for the records behind a commit, in order and without a gap, up to the end or
// until fn tells that there is enough. It tells up to which commit they go.
func Records(state string, after uint64, fn func(r wal.Record) (more bool, err error)) (
	last uint64, err error) {
	z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1),
		zstd.WithDecoderMaxMemory(mostFrame))
	if err != nil {
		return 0, err
	}
	defer z.Close()
	last = after
	err = frames(Dir(state), after, func(f frame) error {
		if f.last <= last {
			return nil
		}
		if f.first > last+1 {
			return errEnough // what comes between is missing
		}
		b, err := z.DecodeAll(f.body, nil)
		if err != nil || uint32(len(b)) != f.length {
			return errEnough
		}
		for len(b) > 0 {
			r, rest, err := wal.Decode(b)
			if err != nil {
				return errEnough
			}
			if b = rest; r.Seq <= last {
				continue
			}
			if r.Seq != last+1 {
				return errEnough
			}
			more, err := fn(r)
			if err != nil {
				return err
			}
			if last = r.Seq; !more {
				return errEnough
			}
		}
		return nil
	})
	if errors.Is(err, errEnough) || errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return last, err
}

// NeedsBase tells whether a base of the commit seq, at which the state is opened, is needed so that
// those that follow can be opened, or worth it ([Writer.Grown]).
func (w *Writer) NeedsBase(state string, seq uint64) (bool, error) {
	bases, err := Bases(state)
	if err != nil || len(bases) == 0 {
		return true, err
	}
	w.mu.Lock()
	missing := max(w.last, bases[len(bases)-1]) < seq
	w.mu.Unlock()
	if missing {
		return true, nil
	}
	return w.Grown(state)
}

// Grown tells whether another base is due: records are missing behind the newest one, or replaying
// from it would take long.
func (w *Writer) Grown(state string) (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	bases, err := Bases(state)
	if err != nil || len(bases) == 0 || w.gap > 0 {
		return true, err
	}
	newest := bases[len(bases)-1]
	info, err := os.Stat(BasePath(state, newest))
	if err != nil {
		return true, nil
	}
	behind := int64(0)
	logs, err := list(w.dir, logEnd)
	for _, n := range logs {
		if i, err := os.Stat(filepath.Join(w.dir, name(n, logEnd))); err == nil && n > newest {
			behind += i.Size()
		}
	}
	least := int64(64 << 20)
	if w.keep.Bytes > 0 {
		least = min(least, w.keep.Bytes/4)
	}
	return behind > max(least, 4*info.Size()), err
}

// Based says that there is a base of the commit seq now. The log goes on in another file, so that
// what comes before can be taken away.
func (w *Writer) Based(seq uint64) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if seq+1 >= w.gap {
		w.gap = 0
	}
	err := w.close()
	w.file = nil
	return err
}

// Prune takes away what is not to be kept: all before the newest base that is old enough, so that
// whatever is promised can still be opened.
func (w *Writer) Prune(state string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	k := w.keep
	bases, err := Bases(state)
	if err != nil || k.All || len(bases) < 2 {
		return err
	}
	from := 0
	for i := 1; i < len(bases); i++ {
		info, err := os.Stat(BasePath(state, bases[i]))
		if err != nil {
			return err
		}
		tooOld := k.Age > 0 && time.Since(info.ModTime()) > k.Age
		tooMuch := k.Bytes > 0 && w.bytesFrom(state, bases[i-1]) > k.Bytes
		if tooOld || tooMuch {
			from = i
		}
	}
	if from == 0 {
		return nil
	}
	// The bases before it go first: what lies between would lead nowhere without them.
	for _, b := range bases[:from] {
		if err := os.Remove(BasePath(state, b)); err != nil {
			return err
		}
	}
	logs, err := list(w.dir, logEnd)
	if err != nil {
		return err
	}
	for i, n := range logs {
		if i+1 < len(logs) && logs[i+1] <= bases[from]+1 {
			if err := os.Remove(filepath.Join(w.dir, name(n, logEnd))); err != nil {
				return err
			}
		}
	}
	return vfs.OS.SyncDir(w.dir)
}

// bytesFrom is how much the history takes from a base on.
func (w *Writer) bytesFrom(state string, base uint64) (n int64) {
	for _, end := range []string{baseEnd, logEnd} {
		numbers, _ := list(w.dir, end)
		for _, s := range numbers {
			if info, err := os.Stat(filepath.Join(w.dir, name(s, end))); err == nil && s >= base {
				n += info.Size()
			}
		}
	}
	return n
}

// Last is the last record that was added, 0 if none is known.
func (w *Writer) Last() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last
}

// Cut takes away all frames that have records behind a commit: those were lost to the state, and
// others will have their numbers.
func (w *Writer) Cut(seq uint64) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.close(); err != nil {
		return err
	}
	w.file, w.buf = nil, w.buf[:0]
	logs, err := list(w.dir, logEnd)
	if err != nil {
		return err
	}
	w.last, w.gap = 0, seq+1
	for _, n := range logs {
		path := filepath.Join(w.dir, name(n, logEnd))
		size := int64(0)
		err := framesOf(path, 0, func(f frame) error {
			if f.last > seq {
				return errEnough
			}
			size += frameHead + int64(len(f.body))
			w.last = f.last
			return nil
		})
		if err != nil && !errors.Is(err, errEnough) {
			return err
		}
		if size == 0 {
			err = os.Remove(path)
		} else {
			err = os.Truncate(path, size)
		}
		if err != nil {
			return err
		}
	}
	bases, err := list(w.dir, baseEnd)
	for _, n := range bases {
		if n > seq {
			err = errors.Join(err, os.Remove(filepath.Join(w.dir, name(n, baseEnd))))
		}
	}
	return errors.Join(err, vfs.OS.SyncDir(w.dir))
}

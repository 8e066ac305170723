package peers

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/klauspost/compress/zstd"
)

// copyPeers save the guest by copying it. Each keeps the whole memory in memory.bin and the globals
// in globals.json, but for the incremental one, which appends what has changed to a file.
func copyPeers() []Peer {
	peer := func(name string, safety Safety, settings string, newSaver func() saver) Peer {
		return Peer{Name: name, Safety: safety, Settings: settings, Slow: true, CopyBased: true,
			Guest: true,
			Open:  func(o Options) (Store, error) { return openCopy(o, newSaver()) }}
	}
	files := func(c copyFiles) func() saver { return func() saver { return c } }
	return []Peer{
		peer("copy, write", Nothing,
			"both files are written over: a kill in the middle leaves a mix", files(copyFiles{})),
		peer("copy, rename", Kill, "written under another name, then renamed",
			files(copyFiles{rename: true})),
		peer("copy, fsync", Power, "the same, with fsync of the files and of the directory",
			files(copyFiles{rename: true, sync: true})),
		peer("copy, zstd", Kill, "the memory compressed (fastest level), renamed",
			files(copyFiles{rename: true, zstd: true})),
		peer("copy, changed pages", Kill,
			"the memory is compared with a copy of the last commit; the pages of 4 KiB that "+
				"differ "+
				"are appended to a log with a checksum, in one write",
			func() saver { return new(changedPages) }),
	}
}

// saver is a way to keep a copy.
type saver interface {
	save(dir string, g *Guest) error
	// restore finds nothing (fs.ErrNotExist) in a new directory.
	restore(dir string, g *Guest) error
}

// copyStore saves after each commit.
type copyStore struct {
	*plainStore
	dir    string
	saver  saver
	paused bool // while it loads
}

func openCopy(o Options, how saver) (Store, error) {
	p, err := openPlain(o)
	if err != nil {
		return nil, err
	}
	s := &copyStore{plainStore: p, dir: o.Dir, saver: how}
	err = how.restore(o.Dir, p.Guest)
	if errors.Is(err, fs.ErrNotExist) {
		err = how.save(o.Dir, p.Guest)
	}
	if err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return s, nil
}

func (s *copyStore) kept(err error) error {
	if err != nil || s.paused {
		return err
	}
	return s.saver.save(s.dir, s.Guest)
}

func (s *copyStore) Increment(n uint32) error   { return s.kept(s.plainStore.Increment(n)) }
func (s *copyStore) Put(e *Entry) error         { return s.kept(s.plainStore.Put(e)) }
func (s *copyStore) PutAll(batch []Entry) error { return s.kept(s.plainStore.PutAll(batch)) }
func (s *copyStore) Load(n uint32) error        { return s.kept(s.plainStore.Load(n)) }

// Pause ends or resumes saving, so that a workload can be brought forward without its cost.
func (s *copyStore) Pause(p bool) { s.paused = p }

// copyFiles writes memory.bin and globals.json. A pair of files that are renamed one after the
// other can be of two commits; this is how it is usually done all the same.
type copyFiles struct{ rename, sync, zstd bool }

func (c copyFiles) save(dir string, g *Guest) error {
	globals, err := json.Marshal(g.values())
	if err != nil {
		return err
	}
	err = c.write(filepath.Join(dir, "memory.bin"), func(w io.Writer) error {
		if !c.zstd {
			_, err := w.Write(g.image())
			return err
		}
		z, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedFastest))
		if err != nil {
			return err
		}
		_, err = z.Write(g.image())
		return errors.Join(err, z.Close())
	})
	if err != nil {
		return err
	}
	err = c.write(filepath.Join(dir, "globals.json"), func(w io.Writer) error {
		_, err := w.Write(globals)
		return err
	})
	if err != nil || !c.sync {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (c copyFiles) write(path string, content func(io.Writer) error) error {
	name := path
	if c.rename {
		name += ".tmp"
	}
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	err = content(f)
	if err == nil && c.sync {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil || !c.rename {
		return err
	}
	return os.Rename(name, path)
}

func (c copyFiles) restore(dir string, g *Guest) error {
	content, err := os.ReadFile(filepath.Join(dir, "globals.json"))
	if err != nil {
		return err
	}
	var globals []uint64
	if err := json.Unmarshal(content, &globals); err != nil {
		return err
	}
	f, err := os.Open(filepath.Join(dir, "memory.bin"))
	if err != nil {
		return err
	}
	defer f.Close()
	if c.zstd {
		z, err := zstd.NewReader(f)
		if err != nil {
			return err
		}
		defer z.Close()
		var image bytes.Buffer
		if _, err := image.ReadFrom(z); err != nil {
			return err
		}
		memory, err := g.set(int64(image.Len()), globals)
		if err != nil {
			return err
		}
		copy(memory, image.Bytes())
		return nil
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	memory, err := g.set(info.Size(), globals)
	if err != nil {
		return err
	}
	_, err = io.ReadFull(f, memory)
	return err
}

// changedPages appends records to the file log:
//
//	u32 CRC-32C of the rest | u32 pages n | u64 bytes of memory | u32 globals m | m u64 |
//	n times: u32 page, 4096 bytes
//
// The log is never shortened: a run is short, and what that would cost is not counted.
type changedPages struct {
	last   []byte // the memory as of the last commit
	log    *os.File
	record []byte
}

const pageSize = 4096

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (c *changedPages) open(dir string) (err error) {
	if c.log == nil {
		c.log, err = os.OpenFile(filepath.Join(dir, "log"), os.O_CREATE|os.O_RDWR|os.O_APPEND,
			0o600)
	}
	return err
}

func (c *changedPages) save(dir string, g *Guest) error {
	if err := c.open(dir); err != nil {
		return err
	}
	image := g.image()
	if grown := len(image) - len(c.last); grown > 0 {
		c.last = append(c.last, make([]byte, grown)...)
	}
	r := append(c.record[:0], make([]byte, 8)...)
	r = binary.LittleEndian.AppendUint64(r, uint64(len(image)))
	values := g.values()
	r = binary.LittleEndian.AppendUint32(r, uint32(len(values)))
	for _, v := range values {
		r = binary.LittleEndian.AppendUint64(r, v)
	}
	pages := 0
	for at := 0; at < len(image); at += pageSize {
		page := image[at : at+pageSize]
		if bytes.Equal(page, c.last[at:at+pageSize]) {
			continue
		}
		r = binary.LittleEndian.AppendUint32(r, uint32(at/pageSize))
		r = append(r, page...)
		copy(c.last[at:], page)
		pages++
	}
	binary.LittleEndian.PutUint32(r[4:], uint32(pages))
	binary.LittleEndian.PutUint32(r, crc32.Checksum(r[4:], castagnoli))
	c.record = r
	_, err := c.log.Write(r)
	return err
}

func (c *changedPages) restore(dir string, g *Guest) error {
	if _, err := os.Stat(filepath.Join(dir, "log")); err != nil {
		return err
	}
	if err := c.open(dir); err != nil {
		return err
	}
	in := bufio.NewReaderSize(c.log, 1<<20)
	for {
		ok, err := c.replay(in, g)
		if err != nil || !ok {
			return err
		}
	}
}

// replay applies one record. What breaks off is the end of the log.
func (c *changedPages) replay(in *bufio.Reader, g *Guest) (bool, error) {
	var head [20]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return false, nil
	}
	pages, size := binary.LittleEndian.Uint32(head[4:]), binary.LittleEndian.Uint64(head[8:])
	globals := make([]byte, 8*binary.LittleEndian.Uint32(head[16:]))
	body := make([]byte, int(pages)*(4+pageSize))
	if _, err := io.ReadFull(in, globals); err != nil {
		return false, nil
	}
	if _, err := io.ReadFull(in, body); err != nil {
		return false, nil
	}
	sum := crc32.Checksum(head[4:], castagnoli)
	sum = crc32.Update(crc32.Update(sum, castagnoli, globals), castagnoli, body)
	if sum != binary.LittleEndian.Uint32(head[:]) {
		return false, nil
	}
	values := make([]uint64, len(globals)/8)
	for i := range values {
		values[i] = binary.LittleEndian.Uint64(globals[8*i:])
	}
	memory, err := g.set(int64(size), values)
	if err != nil {
		return false, err
	}
	if grown := len(memory) - len(c.last); grown > 0 {
		c.last = append(c.last, make([]byte, grown)...)
	}
	for ; len(body) > 0; body = body[4+pageSize:] {
		at := int(binary.LittleEndian.Uint32(body)) * pageSize
		if at+pageSize > len(memory) {
			return false, fmt.Errorf("page at %d behind a memory of %d bytes", at, len(memory))
		}
		copy(memory[at:], body[4:4+pageSize])
		copy(c.last[at:], body[4:4+pageSize])
	}
	return true, nil
}

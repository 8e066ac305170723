package snapshot

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"

	"github.com/mmrun/mmrun/globalsfile"
	"github.com/mmrun/mmrun/internal/engine"
	"github.com/mmrun/mmrun/mmapmem"
)

// ReadManifest reads what a snapshot is of, from its end.
func ReadManifest(r io.ReaderAt, size int64) (*Manifest, error) {
	if size < headLength+footLength {
		return nil, malformed("%d bytes are too few", size)
	}
	head := make([]byte, headLength)
	if _, err := r.ReadAt(head, 0); err != nil {
		return nil, err
	}
	if _, err := checkHead(head); err != nil {
		return nil, err
	}
	foot := make([]byte, footLength)
	if _, err := r.ReadAt(foot, size-footLength); err != nil {
		return nil, err
	}
	at := le.Uint64(foot)
	if string(foot[12:]) != footMagic || checksum(foot[:8]) != le.Uint32(foot[8:]) ||
		at > uint64(size-footLength) {
		return nil, malformed("it has no end: it was cut, or is still being written")
	}
	d, err := newReader(io.NewSectionReader(r, int64(at), size-footLength-int64(at)))
	if err != nil {
		return nil, err
	}
	defer d.z.Close()
	h, content, err := d.frame()
	if err != nil {
		return nil, err
	}
	if h.kind != kindManifest {
		return nil, malformed("there is no manifest where the foot says")
	}
	return decodeManifest(content)
}

func decodeManifest(b []byte) (*Manifest, error) {
	var m Manifest
	if len(b) > maxManifest {
		return nil, malformed("a manifest of %d bytes", len(b))
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, malformed("manifest: %w", err)
	}
	return &m, nil
}

func checkHead(head []byte) (mode globalsfile.Mode, err error) {
	if string(head[:8]) != headMagic {
		return 0, fmt.Errorf("%w: it does not begin with %q: no snapshot", ErrMalformed, headMagic)
	}
	if v := le.Uint32(head[8:]); v != version {
		return 0, fmt.Errorf("%w: it has version %d, this program knows version %d", ErrVersion, v,
			version)
	}
	if checksum(head[:16]) != le.Uint32(head[16:]) {
		return 0, malformed("checksum mismatch in the head")
	}
	mode = globalsfile.Mode(le.Uint32(head[12:]))
	if mode != globalsfile.Atomic && mode != globalsfile.Continuous {
		return 0, malformed("mode %d", mode)
	}
	return mode, nil
}

// reader reads frames, one after the other.
type reader struct {
	from    io.Reader
	z       *zstd.Decoder
	body    bytes.Buffer
	content []byte
}

func newReader(r io.Reader) (*reader, error) {
	z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1),
		zstd.WithDecoderMaxMemory(maxContent))
	return &reader{from: r, z: z}, err
}

// frame reads one frame. The content is valid until the next call.
func (d *reader) frame() (h frameHead, content []byte, err error) {
	var head [frameHeadLength]byte
	if _, err := io.ReadFull(d.from, head[:]); err != nil {
		return h, nil, cut(err)
	}
	if h, err = decodeFrameHead(head[:]); err != nil {
		return h, nil, err
	}
	// The buffer grows by what comes, whatever the head claims.
	d.body.Reset()
	if _, err := io.CopyN(&d.body, d.from, int64(h.compressed)); err != nil {
		return h, nil, cut(err)
	}
	if checksum(d.body.Bytes()) != h.sum {
		return h, nil, malformed("checksum mismatch in a frame")
	}
	d.content, err = d.z.DecodeAll(d.body.Bytes(), d.content[:0])
	if err != nil || len(d.content) != int(h.length) || checksum(d.content) != h.contentSum {
		return h, nil, malformed("a frame does not have the content that it claims: %w",
			errors.Join(err, fmt.Errorf("%d bytes of %d", len(d.content), h.length)))
	}
	return h, d.content, nil
}

func cut(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return malformed("it ends too early: it was cut, or is still being written")
	}
	return err
}

// Read gives the image in a snapshot, which is read once from begin to end, and checked as it is
// read: an image whose pages have been read without an error is whole. progress may be nil.
func Read(r io.Reader) (*engine.Image, error) {
	head := make([]byte, headLength)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, cut(err)
	}
	mode, err := checkHead(head)
	if err != nil {
		return nil, err
	}
	d, err := newReader(r)
	if err != nil {
		return nil, err
	}
	im, err := d.image(mode)
	if err != nil {
		d.z.Close()
		return nil, err
	}
	return im, nil
}

func (d *reader) image(mode globalsfile.Mode) (*engine.Image, error) {
	im := &engine.Image{Mode: mode}
	h, content, err := d.frame()
	for err == nil && h.kind == kindModule && h.offset == uint64(len(im.Module)) &&
		len(im.Module) < 1<<30 {
		im.Module = append(im.Module, content...)
		h, content, err = d.frame()
	}
	switch {
	case err != nil:
		return nil, err
	case h.kind != kindSmall || len(im.Module) == 0:
		return nil, malformed("module and small state are not where they should be")
	}
	if im.State, err = globalsfile.Decode(content); err != nil {
		return nil, malformed("small state: %w", err)
	}
	im.Hash = sha256.Sum256(im.Module)
	im.Size = uint64(im.State.MemoryPages) * mmapmem.WasmPageSize
	p := &pages{d: d, im: im}
	engine.SetPages(im, p.next, func() error { d.z.Close(); return nil })
	return im, nil
}

// pages gives the memory of a snapshot.
type pages struct {
	d       *reader
	im      *engine.Image
	offset  uint64 // of content
	content []byte // what has not been given out
	end     uint64 // of the memory given out
	done    bool
}

// advance reads the next frame. Behind the manifest the snapshot has been read to its end.
func (p *pages) advance() error {
	h, content, err := p.d.frame()
	if err != nil {
		return err
	}
	const page = mmapmem.PageSize
	switch {
	case h.kind == kindManifest:
		return p.finish(content)
	case h.kind != kindMemory || h.length == 0 || h.length%page != 0 || h.offset%page != 0 ||
		h.offset < p.end || h.offset > p.im.Size || uint64(h.length) > p.im.Size-h.offset:
		return malformed("a frame of kind %d with %d bytes at %#x", h.kind, h.length, h.offset)
	}
	p.offset, p.content = h.offset, content
	return nil
}

// finish holds the manifest against what was read.
func (p *pages) finish(content []byte) error {
	m, err := decodeManifest(content)
	if err != nil {
		return err
	}
	if m.Module != p.im.Hash || m.Seq != p.im.State.Seq || m.MemoryBytes != p.im.Size {
		return malformed("the manifest is of another snapshot")
	}
	var foot [footLength]byte
	if _, err := io.ReadFull(p.d.from, foot[:]); err != nil {
		return cut(err)
	}
	if string(foot[12:]) != footMagic || checksum(foot[:8]) != le.Uint32(foot[8:]) {
		return malformed("it has no end")
	}
	p.done = true
	return nil
}

func (p *pages) next(b []byte) (offset uint64, n int, err error) {
	for len(p.content) == 0 && !p.done {
		if err := p.advance(); err != nil {
			return 0, 0, err
		}
	}
	if p.done {
		return 0, 0, nil
	}
	offset = p.offset
	n = copy(b, p.content)
	p.content = p.content[n:]
	p.offset += uint64(n)
	p.end = p.offset
	return offset, n, nil
}

package snapshot

import (
	"bytes"
	"fmt"
	"io"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/mmrun/mmrun/globalsfile"
	"github.com/mmrun/mmrun/internal/engine"
)

// Write writes an image, and says what it has written. progress, if not nil, is told how far the
// memory has been read.
func Write(w io.Writer, im *engine.Image, at time.Time, progress func(done, total uint64)) (
	*Manifest, error) {
	// One goroutine: whoever takes snapshots has others to do events.
	z, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest),
		zstd.WithEncoderConcurrency(1),
		zstd.WithEncoderCRC(false))
	if err != nil {
		return nil, err
	}
	defer z.Close()
	s := &writer{to: w, z: z, m: &Manifest{Format: version, Seq: im.State.Seq,
		Time: at.UTC().Format(time.RFC3339Nano), Mode: im.Mode.String(), Module: im.Hash,
		ModuleBytes: uint64(len(im.Module)), MemoryBytes: im.Size}}
	if err := s.write(im, progress); err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	return s.m, nil
}

type writer struct {
	to  io.Writer
	z   *zstd.Encoder
	at  uint64
	m   *Manifest
	out []byte
}

func (s *writer) write(im *engine.Image, progress func(done, total uint64)) error {
	head := le.AppendUint32(le.AppendUint32([]byte(headMagic), version), uint32(im.Mode))
	if err := s.bytes(le.AppendUint32(head, checksum(head))); err != nil {
		return err
	}
	for at := 0; at < len(im.Module); at += engine.ImageChunk {
		part := im.Module[at:min(at+engine.ImageChunk, len(im.Module))]
		if err := s.frame(kindModule, uint64(at), part); err != nil {
			return err
		}
	}
	small, err := globalsfile.Encode(im.State)
	if err == nil {
		err = s.frame(kindSmall, 0, small)
	}
	if err != nil {
		return err
	}
	err = im.Pages(func(offset uint64, data []byte) error {
		if progress != nil {
			progress(offset, im.Size)
		}
		// Zeros at either end of the run are left out.
		const page = 4096
		for len(data) > 0 && allZero(data[:page]) {
			data, offset = data[page:], offset+page
		}
		for len(data) > 0 && allZero(data[len(data)-page:]) {
			data = data[:len(data)-page]
		}
		if len(data) == 0 {
			return nil
		}
		s.m.DataBytes += uint64(len(data))
		return s.frame(kindMemory, offset, data)
	})
	if err != nil {
		return err
	}
	manifestAt := s.at
	manifest, err := s.m.encode()
	if err == nil {
		err = s.frame(kindManifest, 0, manifest)
	}
	if err != nil {
		return err
	}
	foot := le.AppendUint64(nil, manifestAt)
	foot = append(le.AppendUint32(foot, checksum(foot)), footMagic...)
	return s.bytes(foot)
}

var zeros [4096]byte

func allZero(page []byte) bool { return bytes.Equal(page, zeros[:]) }

func (s *writer) frame(k kind, offset uint64, content []byte) error {
	if k != kindManifest {
		s.m.Frames = append(s.m.Frames, [4]uint64{uint64(k), offset, uint64(len(content)), s.at})
	}
	body := s.z.EncodeAll(content, s.out[:0])
	s.out = body
	head := frameHead{kind: k, length: uint32(len(content)), compressed: uint32(len(body)),
		contentSum: checksum(content), sum: checksum(body), offset: offset}
	if err := s.bytes(head.append(nil)); err != nil {
		return err
	}
	return s.bytes(body)
}

func (s *writer) bytes(b []byte) error {
	n, err := s.to.Write(b)
	s.at += uint64(n)
	return err
}

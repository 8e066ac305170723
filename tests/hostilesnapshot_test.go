package tests

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/mmrun/mmrun/archive"
	"github.com/mmrun/mmrun/fsck"
	"github.com/mmrun/mmrun/internal/testkit/guests"
)

var crcTable = crc32.MakeTable(crc32.Castagnoli)

func crc(b []byte) uint32 { return crc32.Checksum(b, crcTable) }

// snapshotFrame is a frame of a snapshot, as docs/format.md draws it.
type snapshotFrame struct {
	kind    uint32
	offset  uint64
	content []byte
}

// framesOf takes a good snapshot apart.
func framesOf(t *testing.T, b []byte) (mode uint32, frames []snapshotFrame) {
	t.Helper()
	z, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	le := binary.LittleEndian
	mode = le.Uint32(b[12:])
	for b = b[20:]; len(b) > 20; {
		n := le.Uint32(b[8:])
		content, err := z.DecodeAll(b[32:32+n], nil)
		if err != nil {
			t.Fatal(err)
		}
		frames = append(frames, snapshotFrame{le.Uint32(b), le.Uint64(b[16:]), content})
		b = b[32+n:]
	}
	return mode, frames
}

// joined makes a snapshot of frames, with all checksums right.
func joined(z *zstd.Encoder, mode uint32, frames []snapshotFrame) []byte {
	le := binary.LittleEndian
	b := le.AppendUint32(le.AppendUint32([]byte("mmrunSNP"), 1), mode)
	b = le.AppendUint32(b, crc(b))
	manifest := 0
	for _, f := range frames {
		if f.kind == 4 {
			manifest = len(b)
		}
		body := z.EncodeAll(f.content, nil)
		start := len(b)
		b = le.AppendUint32(b, f.kind)
		b = le.AppendUint32(b, uint32(len(f.content)))
		b = le.AppendUint32(b, uint32(len(body)))
		b = le.AppendUint32(b, crc(f.content))
		b = le.AppendUint64(b, f.offset)
		b = le.AppendUint32(b, crc(b[start:]))
		b = append(le.AppendUint32(b, crc(body)), body...)
	}
	foot := le.AppendUint64(nil, uint64(manifest))
	return append(le.AppendUint32(append(b, foot...), crc(foot)), "mmrunEND"...)
}

// Snapshots that somebody has made up, with checksums that are right: what is restored of one is
// sound and opens, or nothing is made.
func TestHostileSnapshots(t *testing.T) {
	rounds := 1500
	if testing.Short() {
		rounds = 150
	}
	rt, root := newRuntime(t), t.TempDir()
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(seed(t), 14))
	restored, refused := 0, 0
	for _, name := range []string{"stores", "swap", "counter"} {
		dir := filepath.Join(root, name)
		in := open(t, rt, dir, guests.Load(t, name))
		if name == "stores" {
			for page := range uint64(12) {
				call(t, in, "one", page*4096, page)
			}
		}
		closeInstance(t, in)
		var good bytes.Buffer
		if _, err := archive.Snapshot(ctx, dir, &good); err != nil {
			t.Fatal(err)
		}
		mode, frames := framesOf(t, good.Bytes())
		if !bytes.Equal(joined(z, mode, frames)[:20], good.Bytes()[:20]) {
			t.Fatal("the head is another one")
		}
		for round := range rounds {
			made := slices.Clone(frames)
			m := mode
			for range min(round, 1+r.IntN(2)) {
				m, made = spoilt(r, m, made)
			}
			to := filepath.Join(root, "made")
			_, err := archive.Restore(ctx, bytes.NewReader(joined(z, m, made)), to)
			if round == 0 && err != nil {
				t.Fatal(err)
			}
			if err != nil {
				refused++
				if _, there := os.Stat(to); !errors.Is(there, os.ErrNotExist) {
					t.Fatalf("%v, and something was made", err)
				}
				continue
			}
			restored++
			v, err := fsck.Verify(to)
			if err != nil || !v.Sound {
				t.Fatalf("what was restored is not sound: %v %+v", err, v)
			}
			closeInstance(t, open(t, rt, to, nil))
			if err := os.RemoveAll(to); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Logf("%d restored, %d refused", restored, refused)
	if restored == 0 || refused == 0 {
		t.Error("all were the same")
	}
}

// spoilt changes something of a snapshot.
func spoilt(r *rand.Rand, mode uint32, frames []snapshotFrame) (uint32, []snapshotFrame) {
	if len(frames) == 0 {
		return mode, frames
	}
	i := r.IntN(len(frames))
	f := frames[i]
	switch r.IntN(9) {
	case 0:
		return r.Uint32N(4), frames
	case 1:
		f.kind = r.Uint32N(6)
	case 2:
		f.offset = []uint64{0, 1, 4096, 1 << 16, 1 << 32, 1<<64 - 4096, r.Uint64()}[r.IntN(7)]
	case 3:
		return mode, slices.Delete(slices.Clone(frames), i, i+1)
	case 4:
		return mode, slices.Insert(slices.Clone(frames), r.IntN(len(frames)+1), f)
	case 5:
		f.content = f.content[:r.IntN(len(f.content)+1)]
	case 6:
		f.content = append(bytes.Clone(f.content), make([]byte, r.IntN(3*4096))...)
	default: // most of all what is in it
		f.content = bytes.Clone(f.content)
		for range 1 + r.IntN(4) {
			if len(f.content) > 0 {
				f.content[r.IntN(len(f.content))] = byte(r.IntN(256))
			}
		}
	}
	frames = slices.Clone(frames)
	frames[i] = f
	return mode, frames
}

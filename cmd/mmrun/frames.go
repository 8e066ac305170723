package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// frame is how events lie in an input, and effects in an output.
type frame string

const (
	frameLines  frame = "lines"  // an event is a line without its newline, effects are as they are
	frameJSON   frame = "json"   // an event is a value on a line, and so is an effect
	frameLength frame = "length" // each has its length in bytes before it, 4 bytes, little endian
)

func parseFrame(s string) (frame, error) {
	switch f := frame(s); f {
	case frameLines, frameJSON, frameLength:
		return f, nil
	}
	return "", usagef("--frame %s: want lines, json or length", s)
}

const (
	maxLine  = 1 << 20 // length of the longest line, in bytes
	maxFrame = 1 << 26 // of the longest event with a length before it
)

var errLongLine = fmt.Errorf("the line is longer than %d bytes", maxLine)

// piece is an event of an input, as it lies there.
type piece struct {
	data []byte
	size int64 // bytes of the input that it takes
	err  error // why it is no event
}

// errPartial: the input ends inside of an event.
var errPartial = errors.New("the input ends inside of an event")

// read gives the next event, io.EOF at the end, and errPartial, with what there is, if the end lies
// inside of an event.
func (f frame) read(in *bufio.Reader) (p piece, err error) {
	if f == frameLength {
		return readLength(in)
	}
	p, err = readLine(in)
	if f == frameJSON && p.err == nil && !json.Valid(p.data) && err == nil {
		p.err = errors.New("the line is not one JSON value")
	}
	return p, err
}

func readLine(in *bufio.Reader) (p piece, err error) {
	text, err := in.ReadSlice('\n')
	p.size = int64(len(text))
	p.data = bytes.Clone(text)
	for errors.Is(err, bufio.ErrBufferFull) {
		p.data, p.err = nil, errLongLine
		text, err = in.ReadSlice('\n')
		p.size += int64(len(text))
	}
	if err == nil {
		p.data = bytes.TrimSuffix(p.data, []byte("\n"))
	} else if errors.Is(err, io.EOF) && p.size > 0 {
		err = errPartial
	}
	return p, err
}

func readLength(in *bufio.Reader) (p piece, err error) {
	var head [4]byte
	n, err := io.ReadFull(in, head[:])
	p.size = int64(n)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return p, errPartial
	}
	if err != nil {
		return p, err
	}
	length := binary.LittleEndian.Uint32(head[:])
	if length > maxFrame {
		return p, fmt.Errorf("an event of %d bytes, the longest has %d", length, maxFrame)
	}
	var b bytes.Buffer // grows by what comes, whatever the length claims
	got, err := io.CopyN(&b, in, int64(length))
	p.size += got
	p.data = b.Bytes()
	if errors.Is(err, io.EOF) {
		return p, errPartial
	}
	return p, err
}

// effect is an effect as it is written out.
func (f frame) effect(b []byte) ([]byte, error) {
	switch f {
	case frameLength:
		return append(binary.LittleEndian.AppendUint32(nil, uint32(len(b))), b...), nil
	case frameJSON:
		if len(bytes.TrimSpace(b)) == 0 {
			return nil, nil
		}
		var line bytes.Buffer
		if err := json.Compact(&line, b); err != nil {
			return nil, fmt.Errorf("the effect is not one JSON value: %w", err)
		}
		line.WriteByte('\n')
		return line.Bytes(), nil
	}
	return b, nil
}

package protocol

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net"
	"reflect"
	"testing"

	"github.com/v6d-go/v6d/internal/wirejson"
)

// FuzzFrames feeds bytes to a server's connection in pieces. It must hand out
// the frames that are in them, whatever the pieces, and must not hold more
// memory than what came.
func FuzzFrames(f *testing.F) {
	frame := func(body string) []byte {
		return EndFrame(append(BeginFrame(nil), body...), 0)
	}
	f.Add([]byte{}, uint16(1), false)
	f.Add(frame(""), uint16(3), true)
	f.Add(bytes.Join([][]byte{frame("{}"), frame(`{"type":"exit_request"}`), frame("x")}, nil), uint16(7), false)
	f.Add(frame("{}")[:9], uint16(100), true)
	f.Add(binary.LittleEndian.AppendUint64(nil, MaxRequest+1), uint16(8), false)
	f.Add(append(binary.LittleEndian.AppendUint64(nil, MaxRequest), "short"...), uint16(2), false)
	f.Add(append(binary.LittleEndian.AppendUint64(nil, MaxRequest), make([]byte, 5000)...), uint16(6000), false)
	f.Add(bytes.Repeat(frame(string(make([]byte, 5000))), 3), uint16(4096), false)
	f.Add(bytes.Repeat(frame(string(make([]byte, 3000))), 5), uint16(4096), true)
	for i, text := range recorded(f, "c2s") {
		if i%40 == 0 {
			f.Add(frame(string(text)), uint16(i), i%80 == 0)
		}
	}
	f.Fuzz(func(t *testing.T, in []byte, piece uint16, ahead bool) {
		if len(in) > 1<<16 {
			return
		}
		ours, theirs := net.Pipe()
		go func() {
			defer theirs.Close()
			step := max(int(piece)%8192, 1)
			if len(in)/step > 4096 {
				step = len(in)/4096 + 1
			}
			for rest := in; len(rest) > 0; {
				n := min(step, len(rest))
				if _, err := theirs.Write(rest[:n]); err != nil {
					return
				}
				rest = rest[n:]
			}
		}()
		defer ours.Close()
		c := newConn(ours, MaxRequest, ahead)
		rest := in
		for {
			got, err := c.ReadFrame()
			if limit := 2*len(in) + readAhead; len(c.buf) > limit {
				t.Fatalf("%d bytes came, %d are held", len(in), len(c.buf))
			}
			want, werr := firstFrame(rest)
			if !errors.Is(err, werr) || (err == nil) != (werr == nil) || !bytes.Equal(got, want) {
				t.Fatalf("got %q, %v; want %q, %v", got, err, want, werr)
			}
			if err != nil {
				return
			}
			if !ahead && c.Buffered() > 0 {
				t.Fatalf("%d bytes were read past the frame, where a descriptor may follow", c.Buffered())
			}
			rest = rest[headerSize+len(want):]
		}
	})
}

// firstFrame is what a connection makes of input that ends after b.
func firstFrame(b []byte) ([]byte, error) {
	if len(b) == 0 {
		return nil, io.EOF
	}
	if len(b) < headerSize {
		return nil, io.ErrUnexpectedEOF
	}
	n := binary.LittleEndian.Uint64(b)
	switch {
	case n > MaxRequest:
		return nil, ErrFrameTooLong
	case uint64(len(b)-headerSize) < n:
		return nil, io.ErrUnexpectedEOF
	}
	return b[headerSize : headerSize+n], nil
}

// FuzzMessages decodes any JSON as any message: what is accepted must be
// written in a form that reads back as the same message.
func FuzzMessages(f *testing.F) {
	index := map[string]int{}
	for i, m := range Messages() {
		index[m.Request], index[m.Reply] = i, i
		for _, p := range []*plan{m.request, m.reply} {
			v := reflect.New(p.typ)
			(&filler{}).fill(v.Elem())
			f.Add(uint8(i), p.append(nil, "x", v.UnsafePointer()))
		}
	}
	f.Add(uint8(index[MoveBuffers.Request]), []byte(`{"session_id":1,"pid_to_id":{"007":5,"7":6,"":7},"id_to_id":[[1,2]]}`))
	for _, dir := range []string{"c2s", "s2c"} {
		for _, text := range recorded(f, dir) {
			if i, ok := index[typeOf(text)]; ok && len(text) < 4096 {
				f.Add(uint8(i), []byte(text))
			}
		}
	}
	f.Fuzz(func(t *testing.T, i uint8, text []byte) {
		if len(text) > 1<<16 {
			return
		}
		m := Messages()[int(i)%len(Messages())]
		members, err := wirejson.ParseObject(text, nil)
		if err != nil {
			return
		}
		for _, p := range []*plan{m.request, m.reply} {
			first := reflect.New(p.typ)
			if p.decode(members, first.UnsafePointer()) != nil {
				continue
			}
			out := p.append(nil, m.Request, first.UnsafePointer())
			if !json.Valid(out) {
				t.Fatalf("%s: %q is written as %q", p.typ, text, out)
			}
			again, err := wirejson.ParseObject(out, nil)
			if err != nil {
				t.Fatalf("%s: %q is written as %q: %v", p.typ, text, out, err)
			}
			second := reflect.New(p.typ)
			if err := p.decode(again, second.UnsafePointer()); err != nil {
				t.Fatalf("%s: %q is written as %q: %v", p.typ, text, out, err)
			}
			if a, b := normal(first.Elem()), normal(second.Elem()); !reflect.DeepEqual(a, b) {
				t.Fatalf("%s: %q\nreads as %v\nthen as  %v", p.typ, text, a, b)
			}
		}
	})
}

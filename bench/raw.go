package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"syscall"
	"unsafe"
)

// raw is the least client that there can be: a blocking socket, requests that
// are ready-made text, and no parsing of replies beyond what the next request
// needs. What it measures is the daemon and the kernel.
type raw struct {
	fd    int
	buf   []byte
	files map[int64][]byte // mappings by store_fd
}

const rawRegister = `{"type":"register_request","version":"0.24.2","store_type":"Normal","session_id":0,"username":"","password":"","support_rpc_compression":false}`

func dialRaw(socket string) (*raw, error) {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	c := &raw{fd: fd, buf: make([]byte, 64<<10), files: map[int64][]byte{}}
	if err := syscall.Connect(fd, &syscall.SockaddrUnix{Name: socket}); err != nil {
		return nil, errors.Join(err, syscall.Close(fd))
	}
	if _, err := c.call(frame(rawRegister)); err != nil {
		return nil, errors.Join(err, syscall.Close(fd))
	}
	return c, nil
}

func (c *raw) close() error {
	err := c.unmap()
	return errors.Join(err, syscall.Close(c.fd))
}

// unmap forgets the mappings: the next use of a blob is a new reader's.
func (c *raw) unmap() error {
	var err error
	for n, m := range c.files {
		err = errors.Join(err, syscall.Munmap(m))
		delete(c.files, n)
	}
	return err
}

// frame makes the bytes of a request.
func frame(format string, args ...any) []byte {
	body := fmt.Appendf(nil, format, args...)
	return append(binary.LittleEndian.AppendUint64(nil, uint64(len(body))), body...)
}

// call sends a request and returns the reply's body, valid until the next call.
// No descriptor may follow the reply.
func (c *raw) call(request []byte) ([]byte, error) { return c.exchange(request, len(c.buf)) }

// exchange sends a request and reads the reply; the first read asks for at most
// first bytes: reading past a reply loses the descriptor behind it.
func (c *raw) exchange(request []byte, first int) ([]byte, error) {
	for sent := 0; sent < len(request); {
		n, err := syscall.Write(c.fd, request[sent:])
		if err != nil && err != syscall.EINTR {
			return nil, err
		}
		sent += max(n, 0)
	}
	got := 0
	want := 8
	for got < want {
		n, err := syscall.Read(c.fd, c.buf[got:max(want, first)])
		switch {
		case err == syscall.EINTR:
			continue
		case err != nil:
			return nil, err
		case n == 0:
			return nil, errors.New("the daemon hung up")
		}
		if got += n; got >= 8 {
			want = 8 + int(binary.LittleEndian.Uint64(c.buf))
			if want > len(c.buf) {
				c.buf = append(c.buf, make([]byte, want-len(c.buf)+64<<10)...)
			}
			if first > 8 {
				first = len(c.buf)
			}
		}
	}
	body := c.buf[8:got]
	if bytes.HasPrefix(body, []byte(`{"code":`)) && !bytes.HasPrefix(body, []byte(`{"code":0`)) {
		return nil, fmt.Errorf("the daemon answers %s", body)
	}
	return body, nil
}

// number returns the unsigned number that follows a text in a reply.
func number(body []byte, after string) uint64 {
	i := bytes.Index(body, []byte(after))
	if i < 0 {
		return 0
	}
	var n uint64
	for _, ch := range body[i+len(after):] {
		if ch < '0' || ch > '9' {
			break
		}
		n = n*10 + uint64(ch-'0')
	}
	return n
}

// payload is where a blob lies.
type payload struct {
	ObjectID   uint64 `json:"object_id"`
	StoreFD    int64  `json:"store_fd"`
	DataOffset int64  `json:"data_offset"`
	DataSize   int64  `json:"data_size"`
	MapSize    int64  `json:"map_size"`
}

// create makes an unsealed blob and receives the descriptor that may follow.
func (c *raw) create(size int64) (payload, error) {
	body, err := c.exchange(frame(`{"type":"create_buffer_request","size":%d}`, size), 8)
	if err != nil {
		return payload{}, err
	}
	var reply struct {
		FD      int64   `json:"fd"`
		Created payload `json:"created"`
	}
	if err := json.Unmarshal(body, &reply); err != nil {
		return payload{}, err
	}
	if reply.FD >= 0 {
		err = c.receive(reply.FD, reply.Created.MapSize)
	}
	return reply.Created, err
}

// get locates a blob.
func (c *raw) get(id uint64) (payload, error) {
	body, err := c.exchange(getFrame(id), 8)
	if err != nil {
		return payload{}, err
	}
	var reply struct {
		FDs      []int64   `json:"fds"`
		First    payload   `json:"0"`
		Payloads []payload `json:"payloads"`
	}
	if err := json.Unmarshal(body, &reply); err != nil {
		return payload{}, err
	}
	if len(reply.Payloads) > 0 {
		reply.First = reply.Payloads[0]
	}
	if len(reply.FDs) > 0 {
		err = c.receive(reply.FDs[0], reply.First.MapSize)
	}
	return reply.First, err
}

func getFrame(id uint64) []byte {
	return frame(`{"type":"get_buffers_request","ids":[%d],"num":1,"0":%d,"unsafe":false}`, id, id)
}

func sealFrame(id uint64) []byte { return frame(`{"type":"seal_request","object_id":%d}`, id) }
func dropFrame(id uint64) []byte { return frame(`{"type":"drop_buffer_request","id":%d}`, id) }

func existsFrame(id uint64) []byte { return frame(`{"type":"exists_request","id":%d}`, id) }

// receive takes a descriptor and maps the file, as clients do once.
func (c *raw) receive(number, mapSize int64) error {
	oob := make([]byte, 64)
	one := make([]byte, 1)
	_, n, _, _, err := syscall.Recvmsg(c.fd, one, oob, 0)
	if err != nil {
		return err
	}
	msgs, err := syscall.ParseSocketControlMessage(oob[:n])
	if err != nil || len(msgs) == 0 {
		return fmt.Errorf("no descriptor followed: %w", err)
	}
	fds, err := syscall.ParseUnixRights(&msgs[0])
	if err != nil {
		return err
	}
	m, err := syscall.Mmap(fds[0], 0, int(mapSize-8), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	c.files[number] = m
	return errors.Join(err, syscall.Close(fds[0]))
}

// bytes returns a blob's bytes.
func (c *raw) bytes(p payload) ([]byte, error) {
	m := c.files[p.StoreFD]
	if m == nil {
		return nil, fmt.Errorf("file %d is not mapped", p.StoreFD)
	}
	return m[p.DataOffset : p.DataOffset+p.DataSize], nil
}

// touch reads one byte of every page.
func touch(data []byte) (sum int) {
	for i := 0; i < len(data); i += 4096 {
		sum += int(*(*byte)(unsafe.Pointer(&data[i])))
	}
	return sum
}

// put makes a sealed blob, written with a pattern.
func (c *raw) put(size int64, fill bool) (uint64, error) {
	p, err := c.create(size)
	if err != nil {
		return 0, err
	}
	if fill {
		data, err := c.bytes(p)
		if err != nil {
			return 0, err
		}
		for i := range data {
			data[i] = 1
		}
	}
	_, err = c.call(sealFrame(p.ObjectID))
	return p.ObjectID, err
}

func (c *raw) drop(id uint64) error {
	_, err := c.call(dropFrame(id))
	return err
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}

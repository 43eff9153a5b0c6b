package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// limits measures what no daemon can beat: a round trip through a UNIX socket,
// memcpy into pages that are there and pages that are not, TCP on loopback.
func (b *bench) limits() error {
	pair, err := pingPong()
	if err != nil {
		return err
	}
	defer pair.close()
	ping := side{"blocking sockets", func() ([]float64, error) { return each(2000, func(int) error { return pair.ping() }) }}
	if err := b.compare("UNIX socket ping-pong, 64 bytes", micros, []side{ping}); err != nil {
		return err
	}
	for _, n := range []int{8} {
		rate := side{"blocking sockets", func() ([]float64, error) { return pingPongs(n, 300*time.Millisecond) }}
		if err := b.compare(fmt.Sprintf("UNIX socket ping-pong, %d clients", n), perSec, []side{rate}, rounds(5)); err != nil {
			return err
		}
	}
	const size = 256 << 20
	source := make([]byte, size)
	for i := range source {
		source[i] = byte(i)
	}
	var cold, warm []float64
	for range 4 {
		m, remove, err := b.sharedFile(size)
		if err != nil {
			return err
		}
		for i := range 2 {
			start := time.Now()
			copy(m, source)
			rate := size / time.Since(start).Seconds()
			if i == 0 {
				cold = append(cold, rate)
			} else {
				warm = append(warm, rate)
			}
		}
		if err := remove(); err != nil {
			return err
		}
	}
	for name, list := range map[string][]float64{"cold, plain pages": cold, "warm": warm} {
		i := -1
		next := func() ([]float64, error) { i++; return list[i%len(list) : i%len(list)+1], nil }
		if err := b.compare("memcpy into shared memory, "+name, gbps, []side{{"one thread", next}}, rounds(3)); err != nil {
			return err
		}
	}
	return b.compare("TCP on loopback, 256 MiB", gbps, []side{{"write and read", func() ([]float64, error) { return loopback(source) }}}, rounds(3))
}

func (b *bench) sharedFile(size int) (m []byte, remove func() error, err error) {
	f, err := os.Create(filepath.Join(b.dir, "memcpy"))
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	if err := f.Truncate(int64(size)); err != nil {
		return nil, nil, err
	}
	m, err = syscall.Mmap(int(f.Fd()), 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	return m, func() error { return errors.Join(syscall.Munmap(m), os.Remove(f.Name())) }, err
}

// pinger is a pair of sockets with somebody who answers.
type pinger struct{ fds [2]int }

func pingPong() (*pinger, error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		return nil, err
	}
	go func() {
		runtime.LockOSThread()
		buf := make([]byte, 64)
		for {
			n, err := syscall.Read(fds[1], buf)
			if err != nil && err != syscall.EINTR || n == 0 {
				return
			}
			if _, err := syscall.Write(fds[1], buf); err != nil {
				return
			}
		}
	}()
	return &pinger{fds}, nil
}

func (p *pinger) ping() error {
	buf := make([]byte, 64)
	if _, err := syscall.Write(p.fds[0], buf); err != nil {
		return err
	}
	for {
		if _, err := syscall.Read(p.fds[0], buf); err != syscall.EINTR {
			return err
		}
	}
}

func (p *pinger) close() {
	_ = syscall.Shutdown(p.fds[0], syscall.SHUT_RDWR)
	_ = syscall.Close(p.fds[0])
}

// pingPongs counts round trips a second of several pairs together.
func pingPongs(n int, d time.Duration) ([]float64, error) {
	var all []func() error
	for range n {
		p, err := pingPong()
		if err != nil {
			return nil, err
		}
		defer p.close()
		all = append(all, p.ping)
	}
	rate, _, err := together(all, d)
	return []float64{rate}, err
}

// together calls functions in threads of their own for a while: calls a second
// of all, and the time of each call.
func together(all []func() error, d time.Duration) (rate float64, samples []float64, err error) {
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		errs []error
	)
	start := time.Now()
	for _, fn := range all {
		wg.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			var mine []float64
			var err error
			for err == nil && time.Since(start) < d {
				t := time.Now()
				err = fn()
				mine = append(mine, time.Since(t).Seconds())
			}
			mu.Lock()
			defer mu.Unlock()
			samples = append(samples, mine...)
			errs = append(errs, err)
		})
	}
	wg.Wait()
	return float64(len(samples)) / time.Since(start).Seconds(), samples, errors.Join(errs...)
}

func loopback(data []byte) ([]float64, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer l.Close()
	done := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			defer c.Close()
			_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{c}, make([]byte, 1<<20))
		}
		done <- err
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return nil, err
	}
	start := time.Now()
	_, err = c.Write(data)
	err = errors.Join(err, c.Close(), <-done)
	return []float64{float64(len(data)) / time.Since(start).Seconds()}, err
}

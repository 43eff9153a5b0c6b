package main

import (
	"errors"
	"fmt"
	"log"
	"testing"

	"github.com/v6d-go/v6d/internal/testserver"
)

// hosts makes network namespaces that play n hosts, and one for what is no part of
// a cluster; end removes them. It takes root.
func hosts(n int) (network *testserver.Net, end func(), err error) {
	end, err = scoped(func(s *scope) { network = testserver.Hosts(s, n) })
	return network, end, err
}

// scoped calls what needs a test; end does what that would do in its end.
func scoped(f func(*scope)) (end func(), err error) {
	s := &scope{}
	defer func() {
		switch r := recover().(type) {
		case nil:
		case unfit:
			s.end()
			end, err = nil, r.error
		default:
			panic(r)
		}
	}()
	f(s)
	return s.end, nil
}

// scope is the part of a test that package testserver needs of one.
type scope struct {
	testing.TB
	cleanups []func()
}

// unfit is what a scope panics with where a test would be skipped, or fail.
type unfit struct{ error }

func (s *scope) Helper()                        {}
func (s *scope) Cleanup(f func())               { s.cleanups = append(s.cleanups, f) }
func (s *scope) Errorf(format string, a ...any) { log.Printf("bench: "+format, a...) } // of cleanups
func (s *scope) Skip(a ...any)                  { panic(unfit{errors.New(fmt.Sprint(a...))}) }
func (s *scope) Skipf(format string, a ...any)  { panic(unfit{fmt.Errorf(format, a...)}) }
func (s *scope) Fatalf(format string, a ...any) { panic(unfit{fmt.Errorf(format, a...)}) }

func (s *scope) end() {
	for i := len(s.cleanups) - 1; i >= 0; i-- {
		s.cleanups[i]()
	}
	s.cleanups = nil
}

// address is where a host is reached: nil is the machine itself.
func address(h *testserver.Host) string {
	if h == nil {
		return "127.0.0.1"
	}
	return h.Addr
}

// at calls f in a host's network: see testserver.Host.Do.
func at(h *testserver.Host, f func() error) error {
	if h == nil {
		return f()
	}
	return h.Do(f)
}

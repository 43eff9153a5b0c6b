package sys

import "errors"

// ErrUnsupported is returned where the system has no such call.
var ErrUnsupported = errors.ErrUnsupported

// WriteError is what the file said that bytes of a connection were to go into. They
// are lost: the connection is of no use any more.
type WriteError struct{ Err error }

func (e *WriteError) Error() string { return e.Err.Error() }

func (e *WriteError) Unwrap() error { return e.Err }

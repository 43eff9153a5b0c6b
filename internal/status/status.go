// Package status holds the one table of outcomes that v6d knows.
//
// A Code is the number that travels on the wire in an error reply (the
// vocabulary is Vineyard 0.24's, see docs/protocol.md); each has a name, an
// exit code for the command line and a line of documentation. An Error is a
// Code with a subject, a cause and, where there is one, a hint that says what
// to do. docs/exit-codes.md is generated from this table.
package status

import (
	"errors"
	"fmt"
)

// Code is a status code of the wire protocol. It is also an error, so that
// errors.Is(err, status.ObjectNotExists) works on any wrapped Error.
type Code uint8

// The codes of the 0.24 protocol. The numbers are fixed by the wire.
const (
	OK                       Code = 0
	Invalid                  Code = 1
	KeyError                 Code = 2
	TypeError                Code = 3
	IOError                  Code = 4
	EndOfFile                Code = 5
	NotImplemented           Code = 6
	AssertionFailed          Code = 7
	UserInputError           Code = 8
	ObjectExists             Code = 11
	ObjectNotExists          Code = 12
	ObjectSealed             Code = 13
	ObjectNotSealed          Code = 14
	ObjectIsBlob             Code = 15
	ObjectTypeError          Code = 16
	ObjectSpilled            Code = 17
	ObjectNotSpilled         Code = 18
	MetaTreeInvalid          Code = 21
	MetaTreeTypeInvalid      Code = 22
	MetaTreeTypeNotExists    Code = 23
	MetaTreeNameInvalid      Code = 24
	MetaTreeNameNotExists    Code = 25
	MetaTreeLinkInvalid      Code = 26
	MetaTreeSubtreeNotExists Code = 27
	ServerNotReady           Code = 31
	ArrowError               Code = 32
	ConnectionFailed         Code = 33
	ConnectionError          Code = 34
	EtcdError                Code = 35
	AlreadyStopped           Code = 36
	RedisError               Code = 37
	NotEnoughMemory          Code = 41
	StreamDrained            Code = 42
	StreamFailed             Code = 43
	InvalidStreamState       Code = 44
	StreamOpened             Code = 45
	GlobalObjectInvalid      Code = 51
	UnknownError             Code = 255
)

// Exit codes of the command line, the same for every command.
const (
	ExitOK           = 0   // success
	ExitFailure      = 1   // general failure; "no" of a question such as exists
	ExitUsage        = 2   // wrong flag or argument, ambiguous id
	ExitNotFound     = 3   // object, name, stream or context not found
	ExitDenied       = 4   // authentication or permission
	ExitUnavailable  = 5   // daemon or metadata service cannot be reached
	ExitNoSpace      = 6   // out of memory, quota or disk full
	ExitConflict     = 7   // exists already, sealed already, locked
	ExitPartial      = 8   // some items failed, the others were done
	ExitIncompatible = 9   // the daemon does not support this
	ExitIntegrity    = 10  // checksum or structure of data is wrong
	ExitTimeout      = 124 // --timeout or wait ran out
	ExitInterrupted  = 130 // SIGINT
	ExitPipe         = 141 // SIGPIPE
	ExitTerminated   = 143 // SIGTERM
)

// Row is one line of the table: what a code is called, how a command that
// meets it exits, and when it is used.
type Row struct {
	Code Code
	Name string
	Exit int
	Doc  string
}

var rows = []Row{
	{OK, "OK", ExitOK, "success; never sent as an error"},
	{Invalid, "Invalid", ExitFailure, "malformed or unknown request, wrong field type, unregistered connection, semantic misuse"},
	{KeyError, "KeyError", ExitNotFound, "release on a connection that tracks no blob; remote blobs that cannot be read"},
	{TypeError, "TypeError", ExitFailure, "a value of the wrong type"},
	{IOError, "IOError", ExitFailure, "reading or writing a peer, a file or the pool failed"},
	{EndOfFile, "EndOfFile", ExitFailure, "input ended early"},
	{NotImplemented, "NotImplemented", ExitIncompatible, "this daemon cannot do that"},
	{AssertionFailed, "AssertionFailed", ExitFailure, "a precondition does not hold, such as persisting a blob"},
	{UserInputError, "UserInputError", ExitUsage, "arena offsets and sizes do not match"},
	{ObjectExists, "ObjectExists", ExitConflict, "the object or stream exists already"},
	{ObjectNotExists, "ObjectNotExists", ExitNotFound, "no such blob, object, name or stream"},
	{ObjectSealed, "ObjectSealed", ExitConflict, "the blob is sealed and cannot change"},
	{ObjectNotSealed, "ObjectNotSealed", ExitConflict, "the blob is still being written"},
	{ObjectIsBlob, "ObjectIsBlob", ExitFailure, "the id is a blob's where an object's is needed"},
	{ObjectTypeError, "ObjectTypeError", ExitFailure, "the object is of another type"},
	{ObjectSpilled, "ObjectSpilled", ExitConflict, "the blob is spilled already"},
	{ObjectNotSpilled, "ObjectNotSpilled", ExitConflict, "the blob is not spilled"},
	{MetaTreeInvalid, "MetaTreeInvalid", ExitFailure, "metadata without a typename, or with a field that it cannot have"},
	{MetaTreeTypeInvalid, "MetaTreeTypeInvalid", ExitIntegrity, "a stored metadata value cannot be decoded"},
	{MetaTreeTypeNotExists, "MetaTreeTypeNotExists", ExitFailure, "a member without a typename"},
	{MetaTreeNameInvalid, "MetaTreeNameInvalid", ExitFailure, "an id text that contains a slash"},
	{MetaTreeNameNotExists, "MetaTreeNameNotExists", ExitFailure, "a member without an id"},
	{MetaTreeLinkInvalid, "MetaTreeLinkInvalid", ExitIntegrity, "a corrupt link between objects"},
	{MetaTreeSubtreeNotExists, "MetaTreeSubtreeNotExists", ExitNotFound, "the object is not known here"},
	{ServerNotReady, "VineyardServerNotReady", ExitUnavailable, "the daemon is still starting"},
	{ArrowError, "ArrowError", ExitFailure, "an Arrow buffer or schema is wrong"},
	{ConnectionFailed, "ConnectionFailed", ExitUnavailable, "no connection could be made"},
	{ConnectionError, "ConnectionError", ExitDenied, "authentication failed"},
	{EtcdError, "EtcdError", ExitUnavailable, "the metadata service failed"},
	{AlreadyStopped, "AlreadyStopped", ExitUnavailable, "the daemon is shutting down"},
	{RedisError, "RedisError", ExitUnavailable, "the Redis metadata service failed"},
	{NotEnoughMemory, "NotEnoughMemory", ExitNoSpace, "the pool, its file system or the memory group is full"},
	{StreamDrained, "StreamDrained", ExitOK, "the stream has ended"},
	{StreamFailed, "StreamFailed", ExitFailure, "the producer of the stream failed"},
	{InvalidStreamState, "InvalidStreamState", ExitConflict, "the stream does not allow that now"},
	{StreamOpened, "StreamOpened", ExitConflict, "the stream is open in that mode already"},
	{GlobalObjectInvalid, "GlobalObjectInvalid", ExitFailure, "a local object with a remote member, or a global object inside a global one"},
	{UnknownError, "UnknownError", ExitFailure, "anything else"},
}

var table = func() [256]*Row {
	var t [256]*Row
	for i := range rows {
		t[rows[i].Code] = &rows[i]
	}
	return t
}()

// Rows returns the whole table in wire order. The caller must not change it.
func Rows() []Row { return rows }

// String returns the code's name, such as "ObjectNotExists".
func (c Code) String() string {
	if r := table[c]; r != nil {
		return r.Name
	}
	return fmt.Sprintf("Code(%d)", uint8(c))
}

// Error makes a bare Code usable as a sentinel error.
func (c Code) Error() string { return c.String() }

// Exit returns the exit code of a command that ends with this status.
func (c Code) Exit() int {
	if r := table[c]; r != nil {
		return r.Exit
	}
	return ExitFailure
}

// Error is a status with its circumstances. Msg says what happened in lower
// case; Hint, if set, says what the user can do about it; Err is the cause.
type Error struct {
	Code Code
	Msg  string
	Hint string
	Err  error
}

// Error joins message and cause; the hint is printed apart by the command line.
func (e *Error) Error() string {
	switch {
	case e.Err == nil && e.Msg == "":
		return e.Code.String()
	case e.Err == nil:
		return e.Msg
	case e.Msg == "":
		return e.Err.Error()
	}
	return e.Msg + ": " + e.Err.Error()
}

// Is reports whether target is this error's Code.
func (e *Error) Is(target error) bool {
	c, ok := target.(Code)
	return ok && c == e.Code
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Errorf returns an Error of the given code; a %w verb sets the cause.
func Errorf(c Code, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	if errors.Unwrap(err) == nil {
		return &Error{Code: c, Msg: err.Error()}
	}
	return &Error{Code: c, Err: err}
}

// WithHint returns a copy of e that tells the user what to do.
func (e *Error) WithHint(hint string) *Error {
	c := *e
	c.Hint = hint
	return &c
}

// Of returns the wire code of err: the code of the outermost Error or Code in
// its chain, OK for nil, UnknownError for anything else.
func Of(err error) Code {
	if err == nil {
		return OK
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	if c, ok := errors.AsType[Code](err); ok {
		return c
	}
	return UnknownError
}

// HintOf returns the first hint among err and the errors that it wraps.
func HintOf(err error) string {
	if e, ok := err.(*Error); ok && e.Hint != "" { //nolint:errorlint // it walks the tree itself
		return e.Hint
	}
	switch w := err.(type) { //nolint:errorlint // it walks the tree itself
	case interface{ Unwrap() error }:
		return HintOf(w.Unwrap())
	case interface{ Unwrap() []error }:
		for _, e := range w.Unwrap() {
			if hint := HintOf(e); hint != "" {
				return hint
			}
		}
	}
	return ""
}

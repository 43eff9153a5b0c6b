// Package arrowipc is the codec between Arrow IPC data and tables: files (also
// called Feather version 2) and streams, by the Arrow project's library.
//
// A file ends with a footer that says where its record batches are; a stream is
// the same batches one after the other. Buffers of a file that lies in memory
// are not copied.
package arrowipc

import (
	"bytes"
	"errors"
	"io"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/v6d-go/v6d/internal/status"
	"github.com/v6d-go/v6d/typed"
)

// Magic is how a file begins and ends.
const Magic = "ARROW1"

// maxMetadata bounds the metadata of a message, in bytes.
const maxMetadata = 256 << 20

// Read reads a file, or a stream if it is none. The table's memory is b's where
// that is a file, and mem's where data is compressed or in a stream; it bounds
// what data can claim to need.
func Read(b []byte, mem memory.Allocator) (t *typed.Table, err error) {
	defer func() {
		if r := recover(); r != nil {
			t, err = nil, typed.Recovered(r, "the Arrow data is damaged")
		}
	}()
	limits := []ipc.Option{ipc.WithMetadataSizeLimit(maxMetadata), ipc.WithBodySizeLimit(max(int64(len(b)), 1)), ipc.WithAllocator(mem)}
	if bytes.HasPrefix(b, []byte("FEA1")) {
		return nil, status.Errorf(status.NotImplemented, "it is a Feather file of version 1").
			WithHint("write it with pyarrow.feather.write_feather(..., version=2)")
	}
	isFile := bytes.HasPrefix(b, []byte(Magic))
	dictionaries, err := typed.CheckSchema(b)
	switch {
	case err != nil && isFile:
		return nil, status.Errorf(status.Invalid, "it is no Arrow file that can be read: %w", err)
	case err != nil:
		return nil, status.Errorf(status.Invalid, "it is no Arrow IPC data: %w", err)
	case !isFile:
		return readStream(b, limits)
	}
	var f *ipc.FileReader
	if dictionaries { // which the reader of mapped files of the library's version 18.8 cannot hold
		f, err = ipc.NewFileReader(bytes.NewReader(b), limits...)
	} else {
		f, err = ipc.NewMappedFileReader(b, limits...)
	}
	if err != nil {
		return nil, status.Errorf(status.Invalid, "it is no Arrow file that can be read, or a truncated one: %w", err)
	}
	defer func() { _ = f.Close() }() // of memory
	t = typed.NewTable(f.Schema())
	for i := range f.NumRecords() {
		batch, err := f.RecordBatchAt(i)
		if err != nil {
			return nil, status.Errorf(status.Invalid, "record batch %d: %w", i, err)
		}
		if t.Batches, err = add(t.Batches, batch); err != nil {
			return nil, status.Errorf(status.Invalid, "record batch %d: %w", i, err)
		}
	}
	return t, nil
}

func readStream(b []byte, limits []ipc.Option) (*typed.Table, error) {
	r, err := ipc.NewReader(bytes.NewReader(b), limits...)
	if err != nil {
		return nil, status.Errorf(status.Invalid, "it is no Arrow IPC data: %w", err)
	}
	defer r.Release()
	t := typed.NewTable(r.Schema())
	for r.Next() {
		batch := r.RecordBatch()
		batch.Retain()
		if t.Batches, err = add(t.Batches, batch); err != nil {
			return nil, status.Errorf(status.Invalid, "record batch %d: %w", len(t.Batches), err)
		}
	}
	if err := r.Err(); err != nil && !errors.Is(err, io.EOF) {
		return nil, status.Errorf(status.Invalid, "record batch %d: %w", len(t.Batches), err)
	}
	return t, nil
}

// add checks a batch: its offsets are from the file.
func add(list []arrow.RecordBatch, b arrow.RecordBatch) ([]arrow.RecordBatch, error) {
	for _, a := range b.Columns() {
		if err := typed.Validate(a); err != nil {
			return nil, err
		}
	}
	return append(list, b), nil
}

// Write writes a table as a file.
func Write(w io.Writer, t *typed.Table) error {
	out, err := ipc.NewFileWriter(w, ipc.WithSchema(t.Schema), ipc.WithAllocator(memory.DefaultAllocator))
	if err != nil {
		return err
	}
	return write(out, t)
}

// WriteStream writes a table as a stream.
func WriteStream(w io.Writer, t *typed.Table) error {
	return write(ipc.NewWriter(w, ipc.WithSchema(t.Schema)), t)
}

// batchWriter is a writer of files or streams.
type batchWriter interface {
	Write(batch arrow.RecordBatch) error
	Close() error
}

func write(out batchWriter, t *typed.Table) error {
	for _, b := range t.Batches {
		if err := out.Write(array.NewRecordBatch(t.Schema, b.Columns(), b.NumRows())); err != nil {
			return errors.Join(err, out.Close())
		}
	}
	return out.Close()
}

// Package journal is a crash-safe list of records in memory that outlives the
// process.
//
// The file lies on the tmpfs of the pool, preallocated and mapped: appending a
// record is a copy, and the kernel keeps the pages when the daemon is killed,
// so nothing is ever synced. (A machine that loses power loses tmpfs as well.)
//
// Layout, all little-endian: records follow each other from offset 0, each
// aligned to 8 bytes:
//
//	u32 magic | u32 CRC-32C of what follows | u64 sequence | u32 length | payload
//
// The magic is written last. A record whose magic is there but whose checksum
// is wrong was torn or damaged; Replay reports it and looks for the next good
// one. Compaction writes a new file that holds a snapshot and renames it over
// the old one.
package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"sync"

	"github.com/v6d-go/v6d/internal/status"
	"github.com/v6d-go/v6d/internal/sys"
)

const (
	magic  = 0x76364a31 // "v6J1"
	header = 4 + 4 + 8 + 4
	grow   = 2 << 20   // preallocation step: one huge page
	spare  = 256 << 10 // kept for records that free something

	// MaxRecord bounds one record's payload.
	MaxRecord = 1 << 30
)

var table = crc32.MakeTable(crc32.Castagnoli)

// Journal appends records. A nil Journal is valid and keeps nothing: that is a
// daemon whose pool does not survive it.
type Journal struct {
	path string

	mu   sync.Mutex
	file *os.File // guarded by mu, as all below
	mem  []byte   // mapping of the preallocated file
	off  int      // where the next record goes
	seq  uint64
	base int // size right after the last compaction
	room func(int64) error

	short bool // it could not grow: compacting is worth while whatever it gains
}

// Report tells what Replay found wrong.
type Report struct {
	Records int
	Bytes   int   // good bytes
	Damaged []Gap // torn or corrupt places that were skipped
}

// Gap is a damaged part of a journal.
type Gap struct {
	Off, Size int
	Torn      bool // at the very end: the daemon died while writing it
}

// Create starts a new, empty journal beside path; it replaces path when Commit
// is called on the Snapshot.
func create(path string) (*os.File, []byte, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, nil, err
	}
	mem, err := extend(f, nil, grow)
	if err != nil {
		return nil, nil, errors.Join(err, f.Close(), os.Remove(path))
	}
	return f, mem, nil
}

// extend makes the file and its mapping at least size bytes long, on reserved
// memory.
func extend(f *os.File, old []byte, size int) ([]byte, error) {
	size = (size + grow - 1) / grow * grow
	if err := sys.Fallocate(f, int64(len(old)), int64(size-len(old))); err != nil {
		if sys.IsNoSpace(err) {
			return nil, status.Errorf(status.NotEnoughMemory, "no room for the journal: %w", err).
				WithHint("delete objects or give the pool's tmpfs more room")
		}
		return nil, err
	}
	if err := f.Truncate(int64(size)); err != nil {
		return nil, err
	}
	mem, err := sys.Map(f, size, true)
	if err != nil {
		return nil, err
	}
	if old != nil {
		if err := sys.Unmap(old); err != nil {
			return nil, err
		}
	}
	return mem, nil
}

// Replay reads the journal at path, if there is one, and hands every good
// record to apply in order. The payload is valid during the call only.
func Replay(path string, apply func(payload []byte) error) (Report, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return Report{}, nil
	}
	if err != nil {
		return Report{}, err
	}
	return replay(b, apply)
}

// replay is Replay of a journal's bytes.
func replay(b []byte, apply func(payload []byte) error) (Report, error) {
	var rep Report
	var last uint64
	for off := 0; off < len(b); {
		payload, seq, ok := decode(b[off:])
		if ok && (last == 0 || seq > last) {
			if err := apply(payload); err != nil {
				return rep, fmt.Errorf("journal record %d at byte %d: %w", seq, off, err)
			}
			last = seq
			n := aligned(header + len(payload))
			rep.Records++
			rep.Bytes += n
			off += n
			continue
		}
		if isZero(b[off:]) {
			return rep, nil // the end: what follows was only preallocated
		}
		next := findNext(b, off+8, last)
		end := next
		if next < 0 {
			end = len(b)
		}
		rep.Damaged = append(rep.Damaged, Gap{off, end - off, next < 0})
		if next < 0 {
			return rep, nil
		}
		off = next
	}
	return rep, nil
}

func decode(b []byte) (payload []byte, seq uint64, ok bool) {
	if len(b) < header || binary.LittleEndian.Uint32(b) != magic {
		return nil, 0, false
	}
	n := int(binary.LittleEndian.Uint32(b[16:]))
	if n > MaxRecord || header+n > len(b) {
		return nil, 0, false
	}
	if crc32.Checksum(b[8:header+n], table) != binary.LittleEndian.Uint32(b[4:]) {
		return nil, 0, false
	}
	return b[header : header+n], binary.LittleEndian.Uint64(b[8:]), true
}

// findNext returns the offset of the next good record, or -1.
func findNext(b []byte, off int, last uint64) int {
	for ; off+header <= len(b); off += 8 {
		if binary.LittleEndian.Uint32(b[off:]) != magic {
			continue
		}
		if _, seq, ok := decode(b[off:]); ok && seq > last {
			return off
		}
	}
	return -1
}

var zeros [4096]byte

func isZero(b []byte) bool {
	for len(b) > 0 {
		n := min(len(b), len(zeros))
		if !bytes.Equal(b[:n], zeros[:n]) {
			return false
		}
		b = b[n:]
	}
	return true
}

func aligned(n int) int { return (n + 7) &^ 7 }

// Snapshot is a journal that is being written from a dump of the whole state.
type Snapshot struct {
	path string
	j    Journal
}

// NewSnapshot starts a journal that will replace the one at path.
func NewSnapshot(path string) (*Snapshot, error) {
	tmp := path + ".new"
	f, mem, err := create(tmp)
	if err != nil {
		return nil, fmt.Errorf("start a journal: %w", err)
	}
	return &Snapshot{path: path, j: Journal{path: tmp, file: f, mem: mem}}, nil
}

// Append adds a record to the snapshot.
func (s *Snapshot) Append(payload []byte) error { return s.j.Append(payload) }

// Abort throws the snapshot away.
func (s *Snapshot) Abort() error {
	return errors.Join(s.j.Close(), os.Remove(s.j.path))
}

// Commit puts the snapshot in the place of the journal and returns it, open
// for appending.
func (s *Snapshot) Commit() (*Journal, error) {
	if err := os.Rename(s.j.path, s.path); err != nil {
		return nil, errors.Join(err, s.Abort())
	}
	return &Journal{path: s.path, file: s.j.file, mem: s.j.mem, off: s.j.off, seq: s.j.seq, base: s.j.off}, nil
}

// Adopt replaces the journal's contents by a snapshot of the same state. The
// caller holds whatever keeps others from appending meanwhile.
func (j *Journal) Adopt(s *Snapshot) error {
	n, err := s.Commit()
	if err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	old, oldFile := j.mem, j.file
	j.file, j.mem, j.off, j.seq, j.base, j.short = n.file, n.mem, n.off, n.seq, n.base, false
	return errors.Join(sys.Unmap(old), oldFile.Close())
}

// SetRoom makes the journal ask before it grows. room fails when so many more
// bytes cannot be had. The journal asks for what it grows by and for as much as
// it holds by then, so that there is always room to compact it.
func (j *Journal) SetRoom(room func(bytes int64) error) {
	if j == nil {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.room = room
}

// Append adds one record. When it returns nil the record survives the death of
// the process.
func (j *Journal) Append(payload []byte) error { return j.append(payload, false) }

// AppendFreeing is Append for a record that says that something is no longer
// there: it finds room where Append does not, since otherwise nothing could be
// deleted when there is none.
func (j *Journal) AppendFreeing(payload []byte) error { return j.append(payload, true) }

func (j *Journal) append(payload []byte, freeing bool) error {
	if j == nil {
		return nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.file == nil {
		return status.Errorf(status.AlreadyStopped, "the journal is closed")
	}
	if len(payload) > MaxRecord {
		return status.Errorf(status.Invalid, "a change of %d bytes is too large, at most %d", len(payload), MaxRecord)
	}
	n := aligned(header + len(payload))
	need := j.off + n
	if !freeing {
		need += spare
	}
	if need > len(j.mem) {
		size := max(need, len(j.mem)+grow)
		if j.room != nil && !freeing {
			if err := j.room(int64(2*size - len(j.mem))); err != nil {
				j.short = true
				return fmt.Errorf("no room for the journal: %w", err)
			}
		}
		mem, err := extend(j.file, j.mem, size)
		if err != nil {
			j.short = true
			return err
		}
		j.mem = mem
	}
	j.seq++
	b := j.mem[j.off : j.off+n]
	binary.LittleEndian.PutUint64(b[8:], j.seq)
	binary.LittleEndian.PutUint32(b[16:], uint32(len(payload)))
	copy(b[header:], payload)
	binary.LittleEndian.PutUint32(b[4:], crc32.Checksum(b[8:header+len(payload)], table))
	binary.LittleEndian.PutUint32(b, magic)
	j.off += n
	return nil
}

// Stats tells how full the journal is.
type Stats struct {
	Path    string `json:"path"`
	Bytes   int    `json:"bytes"`
	Records uint64 `json:"records"` // since the last compaction started it
}

// Stats returns the journal's size.
func (j *Journal) Stats() Stats {
	if j == nil {
		return Stats{}
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return Stats{filepath.Clean(j.path), j.off, j.seq}
}

// WantsCompaction reports whether most of the journal is history.
func (j *Journal) WantsCompaction() bool {
	if j == nil {
		return false
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.off > 2*j.base+4<<20 || j.short && j.off > j.base
}

// Close unmaps and closes the file; it stays where it is.
func (j *Journal) Close() error {
	if j == nil {
		return nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.file == nil {
		return nil
	}
	err := errors.Join(sys.Unmap(j.mem), j.file.Close())
	j.file, j.mem = nil, nil
	return err
}

package server

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/v6d-go/v6d/internal/object"
)

// timing counts one kind of request. Connections add to it without a lock.
type timing struct {
	errors  atomic.Uint64
	nanos   atomic.Uint64
	buckets [len(timeBounds) + 1]atomic.Uint64
}

// timeBounds are the upper bounds of the latency histogram. Requests that wait
// for others (watch, get_name with wait, streams, locks) count their waiting.
var timeBounds = [...]time.Duration{
	5 * time.Microsecond, 10 * time.Microsecond, 25 * time.Microsecond, 50 * time.Microsecond, 100 * time.Microsecond,
	250 * time.Microsecond, 500 * time.Microsecond, time.Millisecond, 5 * time.Millisecond, 25 * time.Millisecond,
	100 * time.Millisecond, 500 * time.Millisecond, 2500 * time.Millisecond, 10 * time.Second,
}

// newTimings returns a counter for each kind of request.
func newTimings() map[*handler]*timing {
	all := make(map[*handler]*timing, len(handlers))
	for _, h := range handlers {
		all[h] = &timing{}
	}
	return all
}

func (t *timing) add(d time.Duration, failed bool) {
	i := 0
	for i < len(timeBounds) && d > timeBounds[i] {
		i++
	}
	t.buckets[i].Add(1)
	t.nanos.Add(uint64(d))
	if failed {
		t.errors.Add(1)
	}
}

func (t *timing) histogram(desc *prometheus.Desc, kind string) prometheus.Metric {
	bounds := make(map[float64]uint64, len(timeBounds))
	var n uint64
	for i, b := range timeBounds {
		n += t.buckets[i].Load()
		bounds[b.Seconds()] = n
	}
	n += t.buckets[len(timeBounds)].Load()
	return prometheus.MustNewConstHistogram(desc, n, time.Duration(t.nanos.Load()).Seconds(), bounds, kind)
}

// collector reads the ledger and the counters whenever somebody scrapes.
type collector struct{ s *Server }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("v6d_"+name, help, labels, nil)
}

var (
	descInfo        = desc("info", "Always 1; the labels tell version and where the pool lies.", "version", "memory", "huge", "survives_crash")
	descLimit       = desc("pool_limit_bytes", "Bytes that live blobs may take together.")
	descUsage       = desc("pool_usage_bytes", "Bytes of live blobs that count against the limit.")
	descUnsealed    = desc("pool_unsealed_bytes", "Part of the usage that is not sealed yet.")
	descDeferred    = desc("pool_deferred_bytes", "Bytes of deleted blobs that a reader still holds.")
	descOverhead    = desc("pool_overhead_bytes", "Bytes lost to rounding and to shrunk blobs.")
	descFree        = desc("pool_free_bytes", "Free bytes in the pool files.")
	descReserved    = desc("pool_reserved_bytes", "Real memory behind the pool files.")
	descAhead       = desc("pool_reserve_ahead_bytes", "Part of the reserved memory that is free, in whole units.")
	descEarlier     = desc("pool_earlier_bytes", "Bytes of blobs in files of earlier daemons.")
	descUncounted   = desc("uncounted_bytes", "Bytes of disk and arena blobs, which are not part of the pool.")
	descBlobs       = desc("blobs", "Live blobs.")
	descZombies     = desc("zombies", "Deleted blobs that a reader still holds.")
	descFiles       = desc("pool_files", "Pool files, those of earlier daemons included.")
	descObjects     = desc("objects", "Objects.", "session")
	descByType      = desc("blob_bytes_by_type", "Bytes of live blobs by the typename of the object that owns them; empty: no object.", "typename")
	descByOwner     = desc("blob_bytes_by_owner", "Bytes of live blobs by the user that made them; -1: remote clients.", "uid")
	descReclaimed   = desc("reclaimed_blobs_total", "Deleted blobs whose memory was reused although a 0.24 client might read it.")
	descReclaimedB  = desc("reclaimed_bytes_total", "Their bytes.")
	descOrphans     = desc("orphaned_blobs_total", "Unsealed blobs of clients that died.")
	descOrphansB    = desc("orphaned_bytes_total", "Their bytes.")
	descOOM         = desc("out_of_memory_total", "Requests refused for want of memory.")
	descCached      = desc("pool_cached_bytes", "Part of the usage that is copies of other instances' blobs; they go first.")
	descEvicted     = desc("evicted_bytes_total", "Bytes of such copies that went for want of memory, or by memory_trim.")
	descMoving      = desc("transfers", "Transfers from other instances under way.")
	descMoved       = desc("transfers_total", "Transfers from other instances that ended.", "result")
	descReceived    = desc("received_bytes_total", "Bytes that transfers brought, by way: ipc is from a daemon on this host.", "way")
	descSent        = desc("sent_bytes_total", "Bytes sent to daemons, and others, that read ranges over TCP.")
	descReconnect   = desc("transfer_reconnections_total", "Connections that transfers lost, and went on over another one.")
	descConnections = desc("connections", "Open connections.", "session", "transport")
	descParked      = desc("parked_requests", "Requests that wait for other clients.", "session")
	descRequests    = desc("request_duration_seconds", "Time to answer, by kind of request.", "request")
	descErrors      = desc("request_errors_total", "Requests answered with an error, by kind.", "request")
	descJournal     = desc("journal_bytes", "Bytes in the journal.")
	descRecords     = desc("journal_records", "Records in the journal since it was last compacted.")
	descStreams     = desc("streams", "Streams.", "session")
)

// Describe implements prometheus.Collector: metrics are made when asked for.
func (*collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	count := func(d *prometheus.Desc, v uint64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	s := c.s
	place := s.report.Place
	gauge(descInfo, 1, s.version, place.Kind, strconv.FormatBool(place.Huge), strconv.FormatBool(place.Survives))
	a := s.store.Account()
	for _, m := range []struct {
		d *prometheus.Desc
		v int64
	}{
		{descLimit, a.Limit},
		{descUsage, a.Usage},
		{descUnsealed, a.Unsealed},
		{descDeferred, a.Deferred},
		{descOverhead, a.Overhead},
		{descFree, a.Free},
		{descReserved, a.Reserved},
		{descAhead, a.Ahead},
		{descEarlier, a.Earlier},
		{descUncounted, a.Uncounted},
		{descCached, a.Cached},
		{descBlobs, int64(a.Blobs)},
		{descZombies, int64(a.Zombies)},
		{descFiles, int64(a.Files)},
	} {
		gauge(m.d, float64(m.v))
	}
	count(descReclaimed, a.Reclaimed)
	count(descReclaimedB, a.ReclaimedBytes)
	count(descOrphans, a.Orphans)
	count(descOrphansB, a.OrphanBytes)
	count(descOOM, a.OutOfMemory)
	count(descEvicted, a.EvictedBytes)
	moved := s.mover.Counters()
	gauge(descMoving, float64(len(s.mover.Running())))
	count(descMoved, moved.Transfers, "ok")
	count(descMoved, moved.Failed, "failed")
	count(descReceived, moved.Received-moved.Local, "tcp")
	count(descReceived, moved.Local, "ipc")
	count(descSent, moved.Sent)
	count(descReconnect, moved.Reconnect)
	journal := s.journal.Stats()
	gauge(descJournal, float64(journal.Bytes))
	gauge(descRecords, float64(journal.Records))

	s.mu.Lock()
	sessions := slices.Collect(maps.Values(s.sessions))
	s.mu.Unlock()
	byType, byOwner := map[string]int64{}, map[int]int64{}
	for _, ss := range sessions {
		id := ss.id.String()
		gauge(descObjects, float64(ss.tree.Len()), id)
		gauge(descConnections, float64(ss.ipcConns.Load()), id, "ipc")
		gauge(descConnections, float64(ss.rpcConns.Load()), id, "tcp")
		gauge(descParked, float64(ss.deferred.Load()), id)
		gauge(descStreams, float64(len(ss.streams.List())), id)
		ss.sum(byType, byOwner)
	}
	for name, n := range largest(byType, maxTypes) {
		gauge(descByType, float64(n), name)
	}
	for uid, n := range byOwner {
		gauge(descByOwner, float64(n), strconv.Itoa(uid))
	}
	for kind, h := range handlers {
		t := s.timings[h]
		if t == nil {
			continue
		}
		out <- t.histogram(descRequests, kind)
		count(descErrors, t.errors.Load(), kind)
	}
}

// maxTypes bounds the series that clients can make by choosing typenames.
const maxTypes = 50

// largest keeps the n largest sums and adds the others up as "(others)".
func largest(sums map[string]int64, n int) map[string]int64 {
	names := slices.SortedFunc(maps.Keys(sums), func(a, b string) int { return cmp.Compare(sums[b], sums[a]) })
	for _, name := range names[min(n, len(names)):] {
		sums["(others)"] += sums[name]
		delete(sums, name)
	}
	return sums
}

// sum adds the bytes of a session's live blobs up by type and by owner.
func (ss *session) sum(byType map[string]int64, byOwner map[int]int64) {
	names := map[object.ID]string{} // typenames of owners
	entries, _ := ss.blobs.Entries(0, math.MaxInt)
	for _, e := range entries {
		if e.Deleted {
			continue
		}
		byOwner[e.UID] += e.Size
		owners := ss.tree.Owners(e.ID)
		if len(owners) == 0 {
			byType[""] += e.Size
			continue
		}
		name, ok := names[owners[0]]
		if !ok {
			name = ss.tree.Type(owners[0])
			names[owners[0]] = name
		}
		byType[name] += e.Size
	}
}

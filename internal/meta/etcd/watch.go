package etcd

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	"github.com/v6d-go/v6d/internal/meta"
)

// stream is one watch on a connection of its own. The client library's watch is
// not used: it reconnects by itself, and an answer to a request for progress that
// arrives meanwhile tells of a revision before the events up to it have come.
// Here the end of the connection is the end of the watch, and progress is asked
// for on the very stream that the events take.
type stream struct {
	pb.Watch_WatchClient
	sending sync.Mutex // held while a request is sent
}

func (s *stream) send(r *pb.WatchRequest) error {
	s.sending.Lock()
	defer s.sending.Unlock()
	return s.Send(r)
}

// Watch implements meta.Backend. Without a leader the watch ends.
func (b *Backend) Watch(ctx context.Context, after int64, apply func(meta.Batch)) error {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	err := b.watchUntil(ctx, after, apply)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return b.explain(err)
}

func (b *Backend) watchUntil(ctx context.Context, after int64, apply func(meta.Batch)) error {
	client, err := b.watcher.Watch(ctx, grpc.MaxCallRecvMsgSize(math.MaxInt32))
	if err != nil {
		return err
	}
	s := &stream{Watch_WatchClient: client}
	create := &pb.WatchCreateRequest{
		Key: []byte(b.base + "/"), RangeEnd: []byte(clientv3.GetPrefixRangeEnd(b.base + "/")), StartRevision: after + 1,
	}
	if err := s.send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}); err != nil {
		return err
	}
	defer func() {
		b.mu.Lock()
		delete(b.streams, s)
		b.mu.Unlock()
	}()
	for {
		r, err := s.Recv()
		switch {
		case err != nil:
			return err
		case r.CompactRevision > 0:
			return meta.ErrCompacted
		case r.Canceled:
			return fmt.Errorf("the watch was ended: %w", errors.New(r.CancelReason))
		case r.Created:
			b.mu.Lock()
			b.streams[s] = struct{}{} // only now there is something to tell the progress of
			b.mu.Unlock()
		case len(r.Events) == 0:
			apply(meta.Batch{Revision: r.Header.Revision})
		}
		b.applyEvents(r.Events, apply)
	}
}

// applyEvents hands on what happened, one revision at a time. etcd does not split
// a revision.
func (b *Backend) applyEvents(events []*mvccpb.Event, apply func(meta.Batch)) {
	for len(events) > 0 {
		rev, n := events[0].Kv.ModRevision, 0
		for n < len(events) && events[n].Kv.ModRevision == rev {
			n++
		}
		batch := meta.Batch{Revision: rev, Changes: make([]meta.Change, n)}
		for i, e := range events[:n] {
			batch.Changes[i] = meta.Change{Key: b.relative(e.Kv.Key), Value: e.Kv.Value, Delete: e.Type == mvccpb.DELETE}
		}
		apply(batch)
		events = events[n:]
	}
}

// Progress implements meta.Backend.
func (b *Backend) Progress(context.Context) error {
	b.mu.Lock()
	streams := make([]*stream, 0, len(b.streams))
	for s := range b.streams {
		streams = append(streams, s)
	}
	b.mu.Unlock()
	for _, s := range streams {
		// A stream that fails here fails in Watch, too.
		_ = s.send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}})
	}
	return nil
}

package client

import (
	"context"
	"fmt"
	"strconv"

	"github.com/v6d-go/v6d/internal/protocol"
	"github.com/v6d-go/v6d/internal/status"
)

// GetOption changes how a value is got.
type GetOption uint8

// Fetch brings what lies on other instances: on a v6d daemon of this host into its
// cache, once for all who ask, otherwise as a copy for the caller.
const Fetch GetOption = 1

// FetchBlobs takes references to sealed blobs of another instance, in the order
// asked: the daemon brings those that it lacks, once for all who ask for them at
// the same time, and keeps copies. A copy that nobody holds goes when memory is
// short. The ids of the blobs returned are those of the copies, which must not
// become members of objects. It needs a v6d daemon on this host.
func (c *Client) FetchBlobs(ctx context.Context, from InstanceID, ids []ID) ([]*Blob, error) {
	if err := c.needsV6D("fetching blobs"); err != nil {
		return nil, err
	}
	if !c.info.Local {
		return nil, status.Errorf(status.NotImplemented, "over TCP nothing is fetched: dial the instance that has the blobs")
	}
	var r protocol.GetBuffersReply
	var blobs []*Blob
	err := call(ctx, c, protocol.FetchBlobs, &protocol.FetchRequest{Instance: from, IDs: ids}, &r, func() (err error) {
		blobs, err = c.mapBlobs(r.Payloads)
		return err
	})
	if err == nil && len(blobs) != len(ids) {
		err = status.Errorf(status.IOError, "%d blobs came, %d were asked for", len(blobs), len(ids))
	}
	return blobs, err
}

// DialInstance connects to another instance of the cluster by its remote address,
// as the same user.
func (c *Client) DialInstance(ctx context.Context, n InstanceID) (*Client, error) {
	all, err := c.Cluster(ctx)
	if err != nil {
		return nil, err
	}
	at, ok := all["i"+strconv.FormatUint(uint64(n), 10)]
	if !ok {
		return nil, status.Errorf(status.ObjectNotExists, "instance %d is not in the cluster", n).
			WithHint("`v6d cluster ls` shows who is")
	}
	if at.RPCEndpoint == "" || at.RPCEndpoint == "0.0.0.0:0" {
		return nil, status.Errorf(status.Invalid, "instance %d has no remote access", n).
			WithHint("start its daemon with --rpc-listen, and --rpc-advertise where others reach it")
	}
	o := c.opts
	o.Socket, o.Endpoint, o.Session = "", at.RPCEndpoint, 0
	peer, err := Dial(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("instance %d: %w", n, err)
	}
	if is := peer.Info().InstanceID; is != n {
		_ = peer.Close() // the error says more
		return nil, status.Errorf(status.ConnectionFailed, "at %s, where instance %d was, instance %d answers", at.RPCEndpoint, n, is)
	}
	return peer, nil
}

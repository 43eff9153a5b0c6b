package server

import (
	"context"
	"errors"
	"os"

	"github.com/v6d-go/v6d/internal/object"
	"github.com/v6d-go/v6d/internal/protocol"
	"github.com/v6d-go/v6d/internal/shm"
	"github.com/v6d-go/v6d/internal/status"
	"github.com/v6d-go/v6d/internal/store"
)

func init() {
	handle(protocol.CreateBuffer, createBuffer)
	handle(protocol.CreateBuffers, createBuffers)
	handle(protocol.CreateDiskBuffer, createDiskBuffer)
	handle(protocol.CreateGPUBuffer, func(context.Context, *conn, *protocol.SizeRequest, *protocol.None) error { return errNoGPU })
	handle(protocol.GetGPUBuffers, func(context.Context, *conn, *protocol.GetBuffersRequest, *protocol.None) error { return errNoGPU })
	handle(protocol.Seal, seal)
	handle(protocol.GetBuffers, getBuffers)
	handle(protocol.DropBuffer, dropBuffer)
	handle(protocol.ShrinkBuffer, shrinkBuffer)
	handle(protocol.IncreaseRefs, increaseRefs)
	handle(protocol.Release, release)
	handle(protocol.IsInUse, isInUse)
	handle(protocol.IsSpilled, func(context.Context, *conn, *protocol.IDRequest, *protocol.SpilledReply) error { return nil })
	handle(protocol.ReleaseRDMA, func(context.Context, *conn, *protocol.GetBuffersRequest, *protocol.None) error { return nil })
	handle(protocol.Evict, func(context.Context, *conn, *protocol.IDListRequest, *protocol.None) error {
		return status.Errorf(status.Invalid, "nothing can be evicted: the daemon has no spill path")
	})
	handle(protocol.Load, func(context.Context, *conn, *protocol.LoadRequest, *protocol.None) error { return nil })
	handle(protocol.Unpin, func(context.Context, *conn, *protocol.IDListRequest, *protocol.None) error { return nil })
	handle(protocol.PlasmaCreate, plasmaCreate)
	handle(protocol.PlasmaGet, plasmaGet)
	handle(protocol.PlasmaSeal, plasmaSeal)
	handle(protocol.PlasmaRelease, plasmaRelease)
	handle(protocol.PlasmaDelete, plasmaDelete)
}

var errNoGPU = status.Errorf(status.Invalid, "GPU support is not enabled")

// byteSize checks a size from the wire, where it is unsigned.
func byteSize(n uint64) (int64, error) {
	if n >= 1<<62 {
		return 0, status.Errorf(status.NotEnoughMemory, "Failed to allocate memory of size %d", n)
	}
	return int64(n), nil
}

// maxBlobs bounds the blobs of one request: each takes hundreds of bytes of the
// reply, and some are named by two bytes.
const maxBlobs = 1 << 20

func checkCount(n int) error {
	if n > maxBlobs {
		return status.Errorf(status.Invalid, "%d blobs in one request, at most %d", n, maxBlobs)
	}
	return nil
}

// local refuses what makes no sense for a client that cannot map the pool, and
// requests of the other store type.
func (c *conn) local(plasma bool) error { return c.ss.blobs.CheckType(plasma) }

func createBuffer(_ context.Context, c *conn, q *protocol.SizeRequest, r *protocol.CreateBufferReply) error {
	if err := c.local(false); err != nil {
		return err
	}
	size, err := byteSize(q.Size)
	if err != nil {
		return err
	}
	v, err := c.ss.blobs.Create(c.holder, size)
	if err != nil {
		return err
	}
	r.ID = v.ID
	r.Created, r.FD = c.payload(v)
	return nil
}

func byteSizes(list []uint64) ([]int64, error) {
	if err := checkCount(len(list)); err != nil {
		return nil, err
	}
	sizes := make([]int64, len(list))
	for i, n := range list {
		var err error
		if sizes[i], err = byteSize(n); err != nil {
			return nil, err
		}
	}
	return sizes, nil
}

func createBuffers(_ context.Context, c *conn, q *protocol.CreateBuffersRequest, r *protocol.CreateBuffersReply) error {
	if err := c.local(false); err != nil {
		return err
	}
	sizes, err := byteSizes(q.Sizes)
	if err != nil {
		return err
	}
	views, err := c.ss.blobs.CreateAll(c.holder, sizes)
	if err != nil {
		return err
	}
	fillCreated(r, views)
	r.Payloads, r.FDs = c.payloads(nil, nil, views)
	return nil
}

func fillCreated(r *protocol.CreateBuffersReply, views []store.View) {
	r.IDs, r.FDs = make([]object.ID, len(views)), []int64{}
	r.Payloads = make(protocol.Payloads, len(views))
	for i, v := range views {
		r.IDs[i], r.Payloads[i] = v.ID, payload(v)
	}
}

func createDiskBuffer(_ context.Context, c *conn, q *protocol.CreateDiskBufferRequest, r *protocol.CreateBufferReply) error {
	if err := c.local(false); err != nil {
		return err
	}
	if !c.pc.IsUnix() {
		return status.Errorf(status.Invalid, "a disk buffer cannot be made over TCP")
	}
	size, err := byteSize(q.Size)
	if err != nil {
		return err
	}
	if q.Path != "" && c.uid != 0 && c.uid != os.Geteuid() {
		// The daemon would open the file with its own rights.
		return status.Errorf(status.ConnectionError, "a disk buffer in a named file is for the daemon's own user and root only")
	}
	f, size, err := openDisk(q.Path, size)
	if err != nil {
		return err
	}
	v := c.ss.blobs.CreateDisk(c.holder, shm.NewDiskFile(f, c.srv.store.NextFileNumber(), size), size)
	r.ID = v.ID
	r.Created, r.FD = c.payload(v)
	return nil
}

// openDisk opens the file of a disk buffer: an unlinked one in the folder for
// temporary files, or a named one, which is extended to size.
func openDisk(path string, size int64) (f *os.File, n int64, err error) {
	switch {
	case path == "" && size == 0:
		return nil, 0, status.Errorf(status.Invalid, "create disk buffer: one of 'size' and 'path' must be specified")
	case path == "":
		if f, err = os.CreateTemp("", "v6d-disk-*"); err == nil {
			err = os.Remove(f.Name())
		}
	default:
		f, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	}
	if err != nil {
		return nil, 0, status.Errorf(status.IOError, "create disk buffer: %w", err)
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = errors.New("not a regular file")
	}
	if err == nil {
		if n = st.Size(); n < size {
			n, err = size, f.Truncate(size)
		} else if size > 0 {
			n = size
		}
	}
	if err == nil && n == 0 {
		err = errors.New("the file is empty and no size is given")
	}
	if err != nil {
		return nil, 0, errors.Join(status.Errorf(status.IOError, "create disk buffer: %w", err), f.Close())
	}
	return f, n, nil
}

func seal(_ context.Context, c *conn, q *protocol.ObjectIDRequest, _ *protocol.None) error {
	return c.ss.blobs.Seal(c.holder, q.ObjectID)
}

func getBuffers(_ context.Context, c *conn, q *protocol.GetBuffersRequest, r *protocol.GetBuffersReply) error {
	if err := c.local(false); err != nil {
		return err
	}
	if err := checkCount(len(q.IDs)); err != nil {
		return err
	}
	views, err := c.ss.blobs.Get(c.views[:0], c.holder, q.IDs, q.Unsafe)
	if err != nil {
		return err
	}
	r.Payloads, r.FDs = c.payloads(r.Payloads, r.FDs, views)
	if c.views = views; cap(views) > keepViews {
		c.views = nil
	}
	return nil
}

func dropBuffer(_ context.Context, c *conn, q *protocol.IDRequest, _ *protocol.None) error {
	return c.ss.blobs.Drop(c.holder, q.ID)
}

func shrinkBuffer(_ context.Context, c *conn, q *protocol.ShrinkRequest, _ *protocol.None) error {
	return c.ss.blobs.Shrink(q.ID, int64(min(q.Size, 1<<62)))
}

func increaseRefs(_ context.Context, c *conn, q *protocol.IDListRequest, _ *protocol.None) error {
	c.ss.blobs.AddRefs(c.holder, q.IDs)
	return nil
}

func release(_ context.Context, c *conn, q *protocol.ReleaseRequest, _ *protocol.None) error {
	return c.ss.blobs.Release(c.holder, q.ObjectID)
}

func isInUse(_ context.Context, c *conn, q *protocol.IDRequest, r *protocol.InUseReply) error {
	r.InUse = c.ss.blobs.InUse(q.ID)
	return nil
}

func plasmaPayload(p protocol.Payload, v store.View) protocol.PlasmaPayload {
	return protocol.PlasmaPayload{Payload: p, PlasmaID: v.Plasma, PlasmaSize: v.PlasmaSize, RefCount: int64(v.Refs)}
}

func plasmaCreate(_ context.Context, c *conn, q *protocol.PlasmaCreateRequest, r *protocol.PlasmaCreateReply) error {
	size, err := byteSize(q.Size)
	if err != nil {
		return err
	}
	if size == 0 {
		return status.Errorf(status.Invalid, "a plasma blob needs a size")
	}
	v, err := c.ss.blobs.CreatePlasma(c.holder, q.PlasmaID, size, int64(min(q.PlasmaSize, 1<<62)))
	if err != nil {
		return err
	}
	var p protocol.Payload
	p, r.FD = c.payload(v)
	r.ID, r.Created = v.ID, plasmaPayload(p, v)
	return nil
}

func plasmaGet(_ context.Context, c *conn, q *protocol.PlasmaGetRequest, r *protocol.PlasmaGetReply) error {
	if err := c.local(true); err != nil {
		return err
	}
	var ids []object.ID
	for _, pid := range q.IDs {
		if id, ok := c.ss.blobs.PlasmaID(pid); ok {
			ids = append(ids, id)
		}
	}
	views, err := c.ss.blobs.Get(nil, c.holder, ids, q.Unsafe)
	if err != nil {
		return err
	}
	for _, v := range views {
		p, _ := c.payload(v)
		r.Payloads = append(r.Payloads, plasmaPayload(p, v))
	}
	return nil
}

// plasmaDo runs fn on the blob of a client's id; unknown is what it fails with
// when there is none.
func (c *conn) plasmaDo(pid string, fn func(object.ID) error) error {
	if err := c.local(true); err != nil {
		return err
	}
	id, ok := c.ss.blobs.PlasmaID(pid)
	if !ok {
		return status.Errorf(status.ObjectNotExists, "no plasma blob %q", pid)
	}
	return fn(id)
}

func plasmaSeal(_ context.Context, c *conn, q *protocol.PlasmaIDRequest, _ *protocol.None) error {
	return c.plasmaDo(q.PlasmaID, func(id object.ID) error { return c.ss.blobs.Seal(c.holder, id) })
}

func plasmaRelease(_ context.Context, c *conn, q *protocol.PlasmaIDRequest, _ *protocol.None) error {
	return c.plasmaDo(q.PlasmaID, func(id object.ID) error { return c.ss.blobs.Release(c.holder, id) })
}

func plasmaDelete(_ context.Context, c *conn, q *protocol.PlasmaIDRequest, _ *protocol.None) error {
	return c.plasmaDo(q.PlasmaID, func(id object.ID) error { return c.ss.blobs.Drop(c.holder, id) })
}

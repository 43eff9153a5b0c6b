//go:build linux

package typed_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"unsafe"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/typed"
)

// image is a type of a program's own.
type image struct {
	width  int64
	pixels []byte
}

// TestScope: a scope adds types and overrides others, and the default registry
// stays as it is.
func TestScope(t *testing.T) {
	c := connect(t)
	mine := typed.Default.Scope()
	mine.Register(typed.Type{Name: "acme::Image", Go: "*image", Resolve: func(r *typed.Reader, m *client.Meta) (any, error) {
		width, _ := m.Int("width")
		pixels, err := r.Member(m, "pixels")
		if err != nil {
			return nil, err
		}
		return &image{width, pixels.(*typed.Tensor).Data}, nil
	}})
	mine.RegisterBuilder((*image)(nil), func(ctx context.Context, w *typed.Writer, value any) (*client.Meta, error) {
		x := value.(*image)
		tensor, err := typed.NewTensor(x.pixels)
		if err != nil {
			return nil, err
		}
		pixels, err := w.Build(ctx, tensor)
		if err != nil {
			return nil, err
		}
		return client.NewMeta("acme::Image").Set("width", x.width).Set("nbytes", len(x.pixels)).Add("pixels", pixels), nil
	})
	mine.Register(typed.Type{Name: "vineyard::Scalar<int>", Resolve: func(*typed.Reader, *client.Meta) (any, error) { return "mine", nil }})

	list := []any{&image{2, []byte("abcd")}, 7, "text"}
	if _, err := typed.Put(t.Context(), c, list); err == nil || !strings.Contains(err.Error(), "no builder for values of type *typed_test.image") {
		t.Errorf("outside of the scope: %v", err)
	}
	id, err := typed.PutFrom(t.Context(), c, mine, nil, list)
	if err != nil {
		t.Fatal(err)
	}
	o, err := typed.GetWith(t.Context(), c, mine, id)
	if err != nil {
		t.Fatal(err)
	}
	items := o.Value.(*typed.Sequence).Items
	if x, ok := items[0].(*image); !ok || x.width != 2 || string(x.pixels) != "abcd" || items[1] != "mine" || items[2] != (typed.Scalar{Value: "text"}) {
		t.Errorf("in the scope: %v", items)
	}
	if o, err = typed.Get(t.Context(), c, id); err != nil {
		t.Fatal(err)
	}
	items = o.Value.(*typed.Sequence).Items
	if x, ok := items[0].(*typed.Opaque); !ok || x.Known || items[1] != (typed.Scalar{Value: int64(7)}) {
		t.Errorf("outside of the scope: %v", items)
	}
}

// TestPoolIsNotCopied: what is built in a Pool is stored where it was built.
func TestPoolIsNotCopied(t *testing.T) {
	c := connect(t)
	pool := typed.NewPool(t.Context(), c)
	b := array.NewInt64Builder(pool)
	for i := range int64(100_000) {
		b.Append(i)
	}
	a := b.NewInt64Array()
	s := arrow.NewSchema([]arrow.Field{{Name: "i", Type: a.DataType()}}, nil)
	before, err := c.InstanceStatus(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	id, err := typed.PutFrom(t.Context(), c, nil, pool, typed.NewTable(s, array.NewRecordBatch(s, []arrow.Array{a}, 100_000)))
	if err != nil {
		t.Fatal(err)
	}
	if err := pool.Close(t.Context()); err != nil { // the bitmap of nulls, of which there are none
		t.Fatal(err)
	}
	after, err := c.InstanceStatus(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if after.MemoryUsage > before.MemoryUsage || after.MemoryUsage != 800_000 {
		t.Errorf("the pool had %d bytes in use, now %d", before.MemoryUsage, after.MemoryUsage)
	}
	o, err := typed.Get(t.Context(), c, id)
	if err != nil {
		t.Fatal(err)
	}
	got := o.Value.(*typed.Table).Batches[0].Column(0).(*array.Int64)
	if got.Value(99_999) != 99_999 {
		t.Error("it is not what was built")
	}
	one, err := typed.Get(t.Context(), c, id)
	if err != nil {
		t.Fatal(err)
	}
	again := one.Value.(*typed.Table).Batches[0].Column(0).(*array.Int64)
	if unsafe.SliceData(again.Int64Values()) != unsafe.SliceData(got.Int64Values()) {
		t.Error("each Get has memory of its own")
	}
}

// TestPoolIsFull: Guard returns what the daemon said, and nothing is left.
func TestPoolIsFull(t *testing.T) {
	c := connect(t)
	pool := typed.NewPool(t.Context(), c)
	err := typed.Guard(func() error {
		b := array.NewInt64Builder(pool)
		b.Resize(1 << 20)
		b.Resize(1 << 26)
		return nil
	})
	if !errors.Is(err, client.NoMemory) {
		t.Errorf("%v", err)
	}
	if err := pool.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if st, err := c.InstanceStatus(t.Context()); err != nil || st.MemoryUsage != 0 {
		t.Errorf("%d bytes are left, %v", st.MemoryUsage, err)
	}
}

// TestFailedPut: what cannot be stored leaves nothing behind, whatever of it was.
func TestFailedPut(t *testing.T) {
	c := connect(t)
	tensor, err := typed.NewTensor([]float64{1, 2})
	if err != nil {
		t.Fatal(err)
	}
	bad := &typed.Tensor{DType: typed.Float64, Shape: []int64{3}, Data: make([]byte, 16)}
	for _, v := range []any{[]any{tensor, []byte("x"), bad}, []any{tensor, make(chan int)}, bad, &typed.DataFrame{Columns: []typed.Column{{Label: "a", Values: tensor}, {Label: "a", Values: tensor}}}} {
		if id, err := typed.Put(t.Context(), c, v); err == nil {
			t.Errorf("%v was stored as %s", v, id)
		}
	}
	st, err := c.InstanceStatus(t.Context())
	if err != nil || st.MemoryUsage != 0 {
		t.Errorf("%d bytes are left, %v", st.MemoryUsage, err)
	}
	objects, err := c.ListObjects(t.Context(), "*", false, 100)
	if err != nil || len(objects) != 0 {
		t.Errorf("left: %v, %v", objects, err)
	}
}

// watched counts what waits for the end of a context.
type watched struct {
	context.Context
	done    chan struct{} // its own, so that package context asks AfterFunc
	waiting atomic.Int64
}

func (w *watched) Done() <-chan struct{} { return w.done }

func (w *watched) AfterFunc(f func()) (stop func() bool) {
	w.waiting.Add(1)
	stopped := context.AfterFunc(w.Context, f)
	return sync.OnceValue(func() bool {
		w.waiting.Add(-1)
		return stopped()
	})
}

// TestContextsEnd: what a put does leaves nothing at a context that lives on.
func TestContextsEnd(t *testing.T) {
	c := connect(t)
	ctx := &watched{Context: t.Context(), done: make(chan struct{})}
	pool := typed.NewPool(ctx, c)
	tensor, err := typed.NewTensor([]float64{1, 2})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := typed.PutFrom(ctx, c, nil, pool, []any{tensor, "text"}); err != nil {
			t.Fatal(err)
		}
	}
	if err := pool.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := ctx.waiting.Load(); n != 0 {
		t.Errorf("%d functions wait for the end of the context", n)
	}
}

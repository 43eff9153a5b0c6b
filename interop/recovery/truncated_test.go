//go:build linux

package recovery

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/v6d-go/v6d/client"
)

// TestTruncatedGeneration: a client of a dead daemon can still shorten the pool
// that it maps. What lay beyond is gone, and must neither be served as zeros
// nor be moved as such into the current file; the rest is served.
func TestTruncatedGeneration(t *testing.T) {
	homes(t, func(t *testing.T, args []string) {
		h := newHost(t, append([]string{"--size", "32MiB", "--rpc-listen", "127.0.0.1:0"}, args...)...)
		d := h.start()
		c := h.dial(t)
		sums := map[client.ID][32]byte{}
		for i := range 8 {
			b := make([]byte, 1<<20)
			sum := bytesOf(b, uint64(i))
			id, err := c.PutBlob(ctx, b)
			if err != nil {
				t.Fatal(err)
			}
			sums[id] = sum
		}
		c.Close()
		dir := h.status(t).Start.Place.Path
		old := poolFiles(t, dir)
		mapped := newHelper(t, h.socket, nil) // keeps the daemon from tidying
		d.kill()
		d = h.start()
		if err := os.Truncate(filepath.Join(dir, old[0]), 4<<20); err != nil {
			t.Fatal(err)
		}
		mapped.stop()
		if err := eventually(func() error {
			if !strings.Contains(d.log.String(), "truncated") {
				return errors.New("the daemon does not notice that a pool file was truncated")
			}
			return nil
		}); err != nil {
			t.Errorf("%v\n%s", err, d.log)
		}
		// Over TCP the daemon reads for us: mapping what may be cut off is deadly.
		check := func() (whole int) {
			t.Helper()
			c, err := client.Dial(ctx, client.Options{Endpoint: h.status(t).Start.RPC})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			for _, id := range slices.Sorted(maps.Keys(sums)) {
				b, err := c.GetBlob(ctx, id)
				switch {
				case err == nil && hash(b.Bytes()) != sums[id]:
					t.Errorf("blob %s is served with other bytes", id)
				case err == nil:
					whole++
				}
			}
			return whole
		}
		check()
		d.kill()
		h.start()
		whole := check()
		// Below the cut lie three of them.
		if st := h.status(t); whole < 3 || whole+len(st.Start.Lost) != len(sums) {
			t.Errorf("%d blobs are served, %v are named as lost", whole, st.Start.Lost)
		}
		if st := h.status(t); st.Damage != "" {
			t.Errorf("after the loss was reported: %s", st.Damage)
		}
	})
}

//go:build linux

package recovery

import (
	"errors"
	"fmt"
	"maps"
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
		h := newHost(t, append([]string{"--size", "32MiB"}, args...)...)
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
		if err := truncate(filepath.Join(dir, old[0]), 4<<20); err != nil {
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
		check := func() {
			t.Helper()
			c := h.dial(t)
			defer c.Close()
			whole := 0
			for i, id := range slices.Sorted(maps.Keys(sums)) {
				sum, err := readByCopy(c, id)
				switch {
				case err == nil && sum == sums[id]:
					whole++
				case err == nil:
					t.Errorf("blob %d (%s) is served with other bytes", i, id)
				}
			}
			if whole < 3 {
				t.Errorf("%d blobs lie below the cut, %d are served", 3, whole)
			}
		}
		check()
		d.kill()
		h.start()
		check()
		if st := h.status(t); len(st.Start.Lost) == 0 && st.Damage == "" {
			t.Errorf("the next start says nothing: %+v", fmt.Sprint(st.Start))
		}
	})
}

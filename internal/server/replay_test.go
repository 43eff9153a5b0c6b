package server_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/v6d-go/v6d/internal/config"
	"github.com/v6d-go/v6d/internal/testserver"
	"github.com/v6d-go/v6d/interop/replay"
)

// TestRecordings replays the traffic of the reference and its clients.
func TestRecordings(t *testing.T) {
	replay.All(t, func(t testing.TB, req replay.Requirements) replay.Target {
		d := testserver.Start(t, func(c *config.Serve) {
			c.Size = fmt.Sprint(req.Size)
			c.Compression = req.Compression
			if len(req.Users) > 0 {
				c.HTPasswd = filepath.Join(t.TempDir(), "htpasswd")
				if err := os.WriteFile(c.HTPasswd, []byte(req.HTPasswd()), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		})
		return replay.Target{Socket: d.Socket, RPC: d.RPC}
	})
}

package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/config"
	"github.com/v6d-go/v6d/internal/output"
	"github.com/v6d-go/v6d/internal/shm"
	"github.com/v6d-go/v6d/internal/status"
	"github.com/v6d-go/v6d/internal/sys"
)

type doctorOptions struct {
	Root string // where /proc and /sys are looked for; tests set it
}

func newDoctor(d *deps) *cobra.Command {
	var o doctorOptions
	c := &cobra.Command{
		Use:     "doctor",
		Short:   "Check this machine and the daemon, and say how to fix what is wrong",
		GroupID: "daemon",
		Long: `Look at what a daemon needs: the socket, shared memory, memory limits, huge pages,
limits of open files, pools that were left behind, versions. Each finding comes with
its fix. Ends with exit code 1 if something is wrong.`,
		Example: `  v6d doctor
  v6d doctor -o json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			p, err := d.printer()
			if err != nil {
				return err
			}
			findings := runDoctor(c.Context(), d, o)
			l := output.List{Columns: output.Columns("CHECK", "STATE", "FINDING", "FIX"), Items: findings}
			bad := false
			for _, f := range findings {
				bad = bad || f.State == "wrong"
				l.IDs = append(l.IDs, f.Check)
				l.Rows = append(l.Rows, kv(f.Check, f.State, f.Finding, f.Fix))
			}
			if d.global.Out.Format != "table" || d.global.Out.JQ != "" || d.global.Out.Quiet {
				err = p.List(l)
			} else {
				err = writeFindings(d.streams.Out, findings)
			}
			if err == nil && bad {
				err = errSilent
			}
			return err
		},
	}
	c.Flags().StringVar(&o.Root, "root", "/", "look at /proc and /sys below this folder")
	_ = c.Flags().MarkHidden("root") // for tests
	return c
}

// finding is the result of one check.
type finding struct {
	Check   string `json:"check"`
	State   string `json:"state"` // ok, note or wrong
	Finding string `json:"finding"`
	Fix     string `json:"fix"`
}

func writeFindings(w io.Writer, list []finding) error {
	var b strings.Builder
	for _, f := range list {
		fmt.Fprintf(&b, "%-5s  %s: %s\n", f.State, f.Check, f.Finding)
		if f.Fix != "" {
			fmt.Fprintf(&b, "       fix: %s\n", f.Fix)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func runDoctor(ctx context.Context, d *deps, o doctorOptions) []finding {
	list := checkDaemon(ctx, d)
	return append(list,
		checkShm(filepath.Join(o.Root, "dev/shm")),
		checkMemory(),
		checkCgroup(),
		checkHuge(filepath.Join(o.Root, "sys/kernel/mm/transparent_hugepage/shmem_enabled")),
		checkFiles(),
		checkLeftovers(filepath.Join(o.Root, "dev/shm"), filepath.Join(o.Root, "proc/self/mountinfo")),
	)
}

func checkDaemon(ctx context.Context, d *deps) []finding {
	var info client.Info
	var damage string
	err := d.withClient(ctx, func(ctx context.Context, c *client.Client) error {
		info = c.Info()
		if !info.Extended {
			return nil
		}
		st, err := nodeStatus(ctx, c)
		if err == nil {
			damage = st.Damage
		}
		return err
	})
	if err != nil {
		fix := status.HintOf(err)
		if status.Of(err) == status.ConnectionError {
			fix = "run as the user who owns the socket, or start the daemon with a wider --socket-mode"
		}
		return []finding{{"daemon", "wrong", err.Error(), fix}}
	}
	list := []finding{{"daemon", "ok", "answers at " + info.Socket, ""}}
	switch {
	case !info.Extended:
		list = append(list, finding{"version", "note", "the daemon speaks plain protocol " + info.Version, "du, df, watch and full status need `v6d serve`"})
	case info.Version != config.ProtocolVersion:
		list = append(list, finding{"version", "note", fmt.Sprintf("the daemon speaks %s, this program %s", info.Version, config.ProtocolVersion), "use the same version of both"})
	default:
		list = append(list, finding{"version", "ok", "both sides speak " + info.Version, ""})
	}
	if damage != "" {
		list = append(list, finding{"pool", "wrong", damage, "restart the daemon with --fresh, and look for the process that truncates the file"})
	}
	return list
}

func checkShm(dir string) finding {
	f, err := os.Open(dir)
	if err != nil {
		return finding{"/dev/shm", "note", err.Error(), "mount a tmpfs there, or let the daemon use a mount of its own (run it with CAP_SYS_ADMIN)"}
	}
	defer f.Close()
	free, tmpfs, err := sys.FreeBytes(f)
	switch {
	case err != nil:
		return finding{"/dev/shm", "wrong", err.Error(), ""}
	case !tmpfs:
		return finding{"/dev/shm", "note", "is no tmpfs", "mount -t tmpfs tmpfs /dev/shm"}
	case free <= 64<<20:
		return finding{"/dev/shm", "note", config.FormatSize(free) + " free, the default of containers", "give it more: --shm-size for docker, an emptyDir of medium Memory for Kubernetes"}
	}
	return finding{"/dev/shm", "ok", config.FormatSize(free) + " free", ""}
}

func checkMemory() finding {
	limits := shm.NewLimits()
	defer limits.Close()
	avail, err := limits.Available()
	if err != nil {
		return finding{"memory", "wrong", err.Error(), "mount /proc"}
	}
	return finding{"memory", "ok", fmt.Sprintf("%s left, by %s; a pool takes half of it by default", config.FormatSize(avail.Bytes), avail.By), ""}
}

func checkCgroup() finding {
	limits := shm.NewLimits()
	defer limits.Close()
	limit, dir := limits.CgroupLimit()
	if limit < 0 {
		return finding{"memory cgroup", "ok", "no limit", ""}
	}
	largest := (limit - 256<<20) * 8 / 9
	return finding{
		"memory cgroup", "note", fmt.Sprintf("%s allows %s: pools up to %s", dir, config.FormatSize(limit), config.FormatSize(max(largest, 0))),
		"a pool needs a limit of 1.125 times its size plus 256MiB",
	}
}

func checkHuge(path string) finding {
	b, err := os.ReadFile(path)
	if err != nil {
		return finding{"huge pages", "note", "this kernel has none for shared memory", ""}
	}
	state := strings.TrimSpace(string(b))
	if os.Geteuid() == 0 {
		return finding{"huge pages", "ok", "the daemon can mount a tmpfs of its own with huge pages", ""}
	}
	if strings.Contains(state, "[never]") || strings.Contains(state, "[deny]") {
		return finding{
			"huge pages", "note", "a daemon of this user gets plain pages (shmem_enabled is " + state + ")",
			"run the daemon with CAP_SYS_ADMIN, or: echo within_size > " + path,
		}
	}
	return finding{"huge pages", "ok", "shmem_enabled is " + state, ""}
}

func checkFiles() finding {
	n, err := sys.RaiseFileLimit()
	if err != nil {
		return finding{"open files", "note", err.Error(), ""}
	}
	if n < 4096 {
		return finding{"open files", "note", fmt.Sprintf("at most %d, each connection takes one", n), "raise it: ulimit -Hn 65536, or LimitNOFILE= of the service"}
	}
	return finding{"open files", "ok", fmt.Sprintf("at most %d", n), ""}
}

// checkLeftovers finds pools that no daemon uses.
func checkLeftovers(dir, mountinfo string) finding {
	var left []string
	pools, _ := filepath.Glob(filepath.Join(dir, "v6d-*")) // the pattern is valid
	if b, err := os.ReadFile(mountinfo); err == nil {
		for line := range strings.Lines(string(b)) {
			fields := strings.Fields(line)
			if len(fields) > 4 && strings.HasSuffix(fields[4], ".pool") && strings.Contains(line, " tmpfs v6d ") {
				pools = append(pools, fields[4])
			}
		}
	}
	for _, p := range pools {
		f, err := os.Open(p)
		if err != nil {
			continue
		}
		if free, err := sys.Flock(f); err == nil && free {
			left = append(left, p)
		}
		f.Close()
	}
	if len(left) == 0 {
		return finding{"leftover pools", "ok", "none", ""}
	}
	return finding{
		"leftover pools", "note", strings.Join(left, ", ") + " belong to daemons that are gone",
		"start a daemon on the same socket to recover them, with --fresh to discard them",
	}
}

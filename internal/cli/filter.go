package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/config"
)

// lsOptions are the flags of ls.
type lsOptions struct {
	Type      string
	Name      string
	Labels    []string
	Owner     string
	Scope     string
	Instance  string
	Size      string
	OlderThan time.Duration
	SortBy    string
	Limit     int
	Blobs     bool
	Watch     bool

	labels  map[string]string
	minSize int64
	maxSize int64
	sort    []sortKey
}

type sortKey struct {
	field string
	desc  bool
}

func (o *lsOptions) addFlags(f *pflag.FlagSet) {
	f.StringVar(&o.Type, "type", "", "only objects whose typename matches this glob")
	f.StringVar(&o.Name, "name", "", "only objects with a name that matches this glob")
	f.StringArrayVarP(&o.Labels, "label", "l", nil, "only objects with this label, KEY=VALUE; may be repeated")
	f.StringVar(&o.Owner, "owner", "", "only what this process (number) or user (name) made")
	f.StringVar(&o.Scope, "scope", "", "only objects that the cluster sees (cluster), or only this daemon (local)")
	f.StringVar(&o.Instance, "instance", "", "only objects on this instance, a number")
	f.StringVar(&o.Size, "size", "", "only objects of this size, such as '>1MiB' or '<=4K'")
	f.DurationVar(&o.OlderThan, "older-than", 0, "only objects older than this, such as 1h")
	f.StringVar(&o.SortBy, "sort-by", "id", "columns to sort by: id, type, size, age, name; - before one reverses it")
	f.IntVar(&o.Limit, "limit", 0, "list at most so many; 0 for all")
	f.BoolVar(&o.Blobs, "blobs", false, "list blobs instead of objects")
	f.BoolVarP(&o.Watch, "watch", "w", false, "follow what happens after listing")
}

// validate reads the values that have a form of their own.
func (o *lsOptions) validate() (err error) {
	if o.labels, err = parseLabels(o.Labels); err != nil {
		return err
	}
	if o.minSize, o.maxSize, err = parseSizeRange(o.Size); err != nil {
		return err
	}
	o.sort = nil
	if o.SortBy == "" {
		o.SortBy = "id"
	}
	for _, field := range strings.Split(o.SortBy, ",") {
		name, desc := strings.CutPrefix(strings.TrimSpace(field), "-")
		if !slices.Contains([]string{"id", "type", "size", "age", "name"}, name) {
			return usage("--sort-by %q: want id, type, size, age or name", field)
		}
		o.sort = append(o.sort, sortKey{name, desc})
	}
	if !slices.Contains([]string{"", "cluster", "local"}, o.Scope) {
		return usage("--scope %q: want cluster or local", o.Scope)
	}
	o.Instance = strings.TrimPrefix(o.Instance, "i")
	if _, err := strconv.ParseUint(o.Instance, 10, 64); err != nil && o.Instance != "" && o.Instance != "several" {
		return usage("--instance %q: want a number, or several", o.Instance)
	}
	if o.Limit < 0 {
		return usage("--limit %d: want 0 or more", o.Limit)
	}
	return nil
}

// parseSizeRange reads a comparison such as >1MiB.
func parseSizeRange(s string) (lo, hi int64, err error) {
	lo, hi = 0, 1<<62
	if s == "" {
		return lo, hi, nil
	}
	op := strings.TrimRight(s, "0123456789.kKmMgGtTiIbB ")
	n, err := config.ParseSize(strings.TrimPrefix(s, op))
	if err != nil {
		return 0, 0, usage("--size: %v", err)
	}
	switch op {
	case ">":
		lo = n + 1
	case ">=":
		lo = n
	case "<":
		hi = n - 1
	case "<=":
		hi = n
	case "", "=":
		lo, hi = n, n
	default:
		return 0, 0, usage("--size %q: want a comparison such as '>1MiB'", s)
	}
	return lo, hi, nil
}

// keep tells whether a row passes the filters that the daemon does not apply.
func (o *lsOptions) keep(r *objectRow) bool {
	for k, v := range o.labels {
		if got, ok := r.Labels[k]; !ok || got != v {
			return false
		}
	}
	if o.Scope != "" && o.Scope != scope(r.Persistent) || o.Instance != "" && o.Instance != strings.TrimPrefix(location(r.Instance), "i") {
		return false
	}
	if r.Bytes < o.minSize || r.Bytes > o.maxSize {
		return false
	}
	return o.OlderThan == 0 || time.Since(r.Created) >= o.OlderThan
}

// order sorts rows and cuts them to the limit; more tells that some are left
// out.
func (o *lsOptions) order(rows []objectRow) (kept []objectRow, more int) {
	slices.SortStableFunc(rows, func(a, b objectRow) int {
		for _, k := range o.sort {
			var c int
			switch k.field {
			case "id":
				c = cmp.Compare(a.ID, b.ID)
			case "type":
				c = strings.Compare(a.Type, b.Type)
			case "size":
				c = cmp.Compare(a.Bytes, b.Bytes)
			case "age":
				c = b.Created.Compare(a.Created)
			case "name":
				c = strings.Compare(strings.Join(a.Names, ","), strings.Join(b.Names, ","))
			}
			if k.desc {
				c = -c
			}
			if c != 0 {
				return c
			}
		}
		return 0
	})
	if o.Limit > 0 && len(rows) > o.Limit {
		return rows[:o.Limit], len(rows) - o.Limit
	}
	return rows, 0
}

// plain reports whether rows can be listed in id order as they come, up to the
// limit, without looking at the others.
func (o *lsOptions) plain() bool {
	return o.Limit > 0 && len(o.sort) == 1 && o.sort[0] == sortKey{"id", false}
}

// idsSuffice reports whether the daemon itself applies all filters.
func (o *lsOptions) idsSuffice() bool {
	return len(o.labels) == 0 && o.Owner == "" && o.Scope == "" && o.Instance == "" && o.Size == "" && o.OlderThan == 0 && len(o.sort) == 1 && o.sort[0] == sortKey{"id", false}
}

// ownedBy returns the objects that hold a blob which a process or user made.
func ownedBy(ctx context.Context, c *client.Client, owner string) (func(client.ID) bool, error) {
	if owner == "" {
		return func(client.ID) bool { return true }, nil
	}
	pid, uid := -1, -1
	if n, err := strconv.Atoi(owner); err == nil {
		pid = n
	} else if uid, err = userID(owner); err != nil {
		return nil, err
	}
	ids := map[client.ID]bool{}
	for r, err := range c.BlobRows(ctx) {
		if err != nil {
			return nil, err
		}
		if r.PID == pid || r.UID == uid {
			ids[r.ID] = true
			for _, o := range r.Owners {
				ids[o] = true
			}
		}
	}
	return func(id client.ID) bool { return ids[id] }, nil
}

func (o *lsOptions) note(more int) string {
	if more < 0 {
		return "v6d: there are more (--limit)\n"
	}
	return fmt.Sprintf("v6d: %d more are not listed (--limit)\n", more)
}

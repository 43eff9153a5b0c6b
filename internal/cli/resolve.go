package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/status"
)

// minShort is the fewest hex digits by which an id can be shortened.
const minShort = 4

// resolve turns an argument into an id: an id, a name, or the first or last
// digits of an id, at least four, that fit only one.
func resolve(ctx context.Context, c *client.Client, arg string) (client.ID, error) {
	if id, err := client.ParseID(arg); err == nil {
		return id, nil
	}
	id, err := c.GetName(ctx, arg, false)
	if !errors.Is(err, client.NotExist) {
		return id, err
	}
	digits := strings.TrimPrefix(arg, "o")
	if len(digits) >= minShort && strings.Trim(digits, "0123456789abcdef") == "" {
		found, err := shortened(ctx, c, digits)
		switch {
		case err != nil:
			return 0, err
		case len(found) == 1:
			return found[0], nil
		case len(found) > 1:
			return 0, ambiguous(arg, found)
		}
	}
	return 0, status.Errorf(status.ObjectNotExists, "%q is neither an id nor a name here", arg).WithHint("`v6d ls` and `v6d name ls` show what there is")
}

// find is resolve for objects that must exist, blobs aside.
func (d *deps) find(ctx context.Context, c *client.Client, arg string) (client.ID, error) {
	id, err := resolve(ctx, c, arg)
	if err != nil || id>>63 == 1 {
		return id, err
	}
	known, err := c.Exists(ctx, id)
	if err == nil && !known {
		err = d.missing(ctx, c, id, status.Errorf(status.ObjectNotExists, "no object %s", id))
	}
	return id, err
}

// missing explains why an object cannot be found, where that can be known: it may
// exist on the instance that made it, which has not shown it to the cluster.
func (d *deps) missing(ctx context.Context, c *client.Client, id client.ID, err error) error {
	if where := d.elsewhere(ctx, c, id); where != "" {
		return status.Errorf(status.ObjectNotExists, "object %s is not visible here: it is on %s and not persistent", id, where).
			WithHint(fmt.Sprintf("there: v6d persist %s", id))
	}
	return err
}

func ambiguous(arg string, found []client.ID) error {
	texts := make([]string, 0, 6)
	for _, id := range found[:min(len(found), 5)] {
		texts = append(texts, id.String())
	}
	if len(found) > 5 {
		texts = append(texts, fmt.Sprintf("and %d more", len(found)-5))
	}
	return usage("%q fits %d objects: %s", arg, len(found), strings.Join(texts, ", ")).WithHint("type more digits; last digits differ sooner than first ones")
}

// shortened lists the ids of objects and blobs that start or end with digits.
func shortened(ctx context.Context, c *client.Client, digits string) ([]client.ID, error) {
	var found []client.ID
	fits := func(id client.ID) {
		text := id.String()[1:]
		if strings.HasPrefix(text, digits) || strings.HasSuffix(text, digits) {
			found = append(found, id)
		}
	}
	if !c.Info().Extended {
		objects, err := c.ListObjects(ctx, "*", false, 1<<40)
		for _, m := range objects {
			fits(m.ID)
		}
		return found, err
	}
	for id, err := range c.IDs(ctx, client.PageOptions{Size: 100_000}) {
		if err != nil {
			return nil, err
		}
		fits(id)
	}
	for r, err := range c.BlobRows(ctx) {
		if err != nil {
			return nil, err
		}
		if !r.Deleted {
			fits(r.ID)
		}
	}
	slices.Sort(found)
	return found, nil
}

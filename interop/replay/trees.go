package replay

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
)

// tree compares a metadata tree; objects in it are members.
func tree(c *comparison, path string, rec, live any) {
	c.object(path, rec, live, func(key string) rule {
		if r, ok := treeFields[key]; ok {
			return r
		}
		return func(c *comparison, path string, rec, live any) {
			if kind(rec) == "object" {
				tree(c, path, rec, live)
			} else {
				equal(c, path, rec, live)
			}
		}
	})
}

// namesToID: the names are equal, the ids paired.
func namesToID(c *comparison, path string, rec, live any) {
	c.object(path, rec, live, func(string) rule { return idNumber })
}

// contentByID compares trees by object id. An object that the recording has
// not seen before is paired with a new live one that looks like it.
func contentByID(c *comparison, path string, rec, live any) {
	if k, ok := c.sameKind(path, rec, live); !ok || k != "object" {
		if ok {
			equal(c, path, rec, live)
		}
		return
	}
	r, l := rec.(map[string]any), maps.Clone(live.(map[string]any))
	var unknown []string
	for _, key := range slices.Sorted(maps.Keys(r)) {
		id, _ := parseObjectText(key)
		known, seen := c.names.ids.live[id]
		if !seen {
			unknown = append(unknown, key)
			continue
		}
		if v, ok := l[objectText(known)]; ok {
			tree(c, join(path, key), r[key], v)
			delete(l, objectText(known))
		} else {
			c.differ(join(path, key), missing(objectText(known)), missing("no such key"))
		}
	}
	for _, key := range unknown {
		match := c.lookalike(key, r[key], l)
		if match == "" {
			c.differ(join(path, key), r[key], missing("no such object"))
			continue
		}
		idText(c, join(path, key), key, match)
		tree(c, join(path, key), r[key], l[match])
		delete(l, match)
	}
	c.noOthers(path, nil, l)
}

// lookalike returns the key of the live object that could be the recorded one;
// if there is none, of the first, which then shows the difference.
func (c *comparison) lookalike(key string, rec any, live map[string]any) string {
	keys := slices.Sorted(maps.Keys(live))
	for _, k := range keys {
		probe := &comparison{exchange: c.probe()}
		idText(probe, "", key, k)
		tree(probe, "", rec, live[k])
		if len(probe.diffs) == 0 {
			return k
		}
	}
	if len(keys) == 0 {
		return ""
	}
	return keys[0]
}

var instanceKey = regexp.MustCompile(`^i\d+$`)

// statusOrCluster compares `meta`: seven fields in instance_status_reply, in
// cluster_meta the daemons by instance id. One daemon alone cannot show its
// recorded peers, so only its own entry is required; every other entry must
// still look like a recorded one. etcd's member_id is optional.
func statusOrCluster(c *comparison, path string, rec, live any) {
	own := fmt.Sprintf("i%d", c.ownID)
	r, isObject := rec.(map[string]any)
	if _, ok := c.sameKind(path, rec, live); !ok || !isObject || r[own] == nil {
		if ok {
			fields(statusFields)(c, path, rec, live)
		}
		return
	}
	l := live.(map[string]any)
	self := own
	if id, ok := c.names.instances.live[c.ownID]; ok {
		self = fmt.Sprintf("i%d", id)
	}
	if l[self] == nil {
		c.differ(join(path, self), r[own], missing("no such key"))
	}
	for _, key := range slices.Sorted(maps.Keys(l)) {
		want := r[key]
		if key == self {
			want = r[own]
		}
		if want == nil || !instanceKey.MatchString(key) {
			c.differ(join(path, key), missing("no such instance"), l[key])
			continue
		}
		member(c, join(path, key), want, l[key])
	}
}

// member compares one instance of cluster_meta.
func member(c *comparison, path string, rec, live any) {
	r, okR := rec.(map[string]any)
	l, okL := live.(map[string]any)
	if okR && okL && r["member_id"] != nil && l["member_id"] == nil {
		r = maps.Clone(r)
		delete(r, "member_id")
		rec = r
	}
	fields(clusterFields)(c, path, rec, live)
}

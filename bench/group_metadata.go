package main

import (
	"fmt"
	"strings"
)

// metadata measures lists, names and wide objects. The reference has no twin
// here: it would take minutes to fill, and the ratios are far from any noise.
func (b *bench) metadata() error {
	var procs []*proc
	for _, name := range []string{"v6d", "reference"} {
		p, err := b.daemon(name, options{size: "1GiB"})
		if err != nil {
			return err
		}
		procs = append(procs, p)
	}
	py, err := b.workers("vineyard", procs)
	if err != nil {
		return err
	}
	raws, err := rawSides(procs)
	if err != nil {
		return err
	}
	requests := func(n int, request []byte) func(rawSide) func() ([]float64, error) {
		return func(s rawSide) func() ([]float64, error) {
			return func() ([]float64, error) {
				return each(n, func(int) error { _, err := s.c.call(request); return err })
			}
		}
	}

	// Wide objects.
	for _, members := range pick(b, []int{2, 20, 1000}, []int{2, 1000}) {
		var opts, getOpts []option
		if members == 1000 {
			opts, getOpts = []option{mark(15)}, []option{mark(30)}
		}
		n := 2000/members + 5
		wide := map[string][2][]byte{} // requests by side
		for _, s := range raws {
			text, err := s.wide(members)
			if err != nil {
				return err
			}
			id, err := s.c.create1(text)
			if err != nil {
				return err
			}
			wide[s.name] = [2][]byte{frame(`{"content":%s,"type":"create_data_request"}`, text), getDataFrame(id)}
		}
		if err := b.compare(fmt.Sprintf("create_data with %d members, raw", members), micros, rawRow(raws, func(s rawSide) func() ([]float64, error) {
			return requests(n, wide[s.name][0])(s)
		}), opts...); err != nil {
			return err
		}
		if err := b.compare(fmt.Sprintf("get_data with %d members, raw", members), micros, rawRow(raws, func(s rawSide) func() ([]float64, error) {
			return requests(n, wide[s.name][1])(s)
		}), getOpts...); err != nil {
			return err
		}
	}

	// Names.
	for _, s := range raws {
		id, err := s.c.create1(`{"typename":"bench::Named","nbytes":0,"transient":true,"instance_id":0,"global":false}`)
		if err != nil {
			return err
		}
		if _, err := s.c.call(frame(`{"type":"persist_request","id":%d}`, id)); err != nil {
			return err
		}
		for i := range 10_000 {
			if _, err := s.c.call(frame(`{"type":"put_name_request","object_id":%d,"name":"name-%d"}`, id, i)); err != nil {
				return err
			}
		}
	}
	if err := b.compare("get_name among 10,000, raw", micros, rawRow(raws, requests(200, frame(`{"type":"get_name_request","name":"name-7777","wait":false}`))), mark(30)); err != nil {
		return err
	}
	if err := b.compare("get_name among 10,000, Python", micros, py.row("get_name", args{"n": 200, "name": "name-7777"})); err != nil {
		return err
	}

	// Lists.
	const objects = 100_000
	for _, s := range raws {
		request := frame(`{"content":{"typename":"bench::Small","nbytes":0,"transient":true,"instance_id":0,"global":false,"index":12345},"type":"create_data_request"}`)
		for range objects {
			if _, err := s.c.call(request); err != nil {
				return err
			}
		}
	}
	few := rounds(pick(b, 9, 3))
	if err := b.compare("list of 100,000 objects, raw", millis, rawRow(raws, requests(1, frame(`{"limit":1000000,"pattern":"bench::Small","regex":false,"type":"list_data_request"}`))), mark(20), few); err != nil {
		return err
	}
	if err := b.compare("list of no match among 100,000, raw", micros, rawRow(raws, requests(3, frame(`{"limit":1000000,"pattern":"nothing::Here","regex":false,"type":"list_data_request"}`))), mark(500), few); err != nil {
		return err
	}
	if err := b.compare("list of no match among 100,000, a glob, raw", micros, rawRow(raws, requests(3, frame(`{"limit":1000000,"pattern":"nothing*","regex":false,"type":"list_data_request"}`))), few); err != nil {
		return err
	}
	if b.full {
		return b.compare("list of 100,000 objects, Python", millis, py.row("list", args{"n": 1, "pattern": "bench::Small", "limit": 1000000}), rounds(3))
	}
	return nil
}

func getDataFrame(id uint64) []byte {
	return frame(`{"id":[%d],"sync_remote":false,"type":"get_data_request","wait":false}`, id)
}

// create1 creates an object from its metadata.
func (c *raw) create1(text string) (uint64, error) {
	body, err := c.call(frame(`{"content":%s,"type":"create_data_request"}`, text))
	return number(body, `"id":`), err
}

// wide makes metadata with so many blobs as members.
func (s rawSide) wide(members int) (string, error) {
	var text strings.Builder
	text.WriteString(`{"global":false,"instance_id":0,"nbytes":0,"transient":true,"typename":"bench::Wide"`)
	for i := range members {
		id, err := s.c.put(64, false)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&text, `,"member_%04d":{"id":"o%016x","instance_id":0,"length":64,"nbytes":64,"transient":true,"typename":"vineyard::Blob"}`, i, id)
	}
	text.WriteString("}")
	return text.String(), nil
}

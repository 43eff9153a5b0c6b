package main

// rpc measures requests over TCP through the published client.
func (b *bench) rpc() error {
	_, py, err := b.contest(options{size: "1GiB", rpc: true})
	if err != nil {
		return err
	}
	few := pick(b, 20, 5)
	if err := b.compare("exists over TCP, Python", millis, py.row("rpc_exists", args{"n": few}), mark(50)); err != nil {
		return err
	}
	if err := b.compare("status over TCP, Python", millis, py.row("rpc_status", args{"n": few}), mark(50)); err != nil {
		return err
	}
	for _, c := range []struct {
		name, kind string
		opts       []option
	}{{"noise", "noise", []option{mark(50)}}, {"numbers, which the client compresses", "numbers", nil}} {
		if err := b.compare("remote put of 1 MiB of "+c.name+", Python", millis, py.row("rpc_put", args{"n": few, "size": 1 << 20, "kind": c.kind}), c.opts...); err != nil {
			return err
		}
		if err := b.compare("remote get of 1 MiB of "+c.name+", Python", millis, py.row("rpc_get", args{"n": few, "size": 1 << 20, "kind": c.kind}), c.opts...); err != nil {
			return err
		}
	}
	if err := b.compare("exists over TCP, Python, v6d alone", millis, py[:1].row("rpc_exists", args{"n": 200}), atMost(0.15)); err != nil {
		return err
	}
	for _, size := range pick(b, []int64{64 << 20, 512 << 20}, []int64{64 << 20}) {
		if err := b.compare("remote put of "+sizeName(size)+", Python", millis, py.row("rpc_put", args{"n": 1, "size": size, "kind": "noise"}), rounds(pick(b, 5, 3))); err != nil {
			return err
		}
		if err := b.compare("remote get of "+sizeName(size)+", Python", millis, py.row("rpc_get", args{"n": 1, "size": size, "kind": "noise"}), rounds(pick(b, 5, 3))); err != nil {
			return err
		}
	}
	return nil
}

package replay

import (
	"fmt"
	"os"
	"slices"
	"syscall"
)

// A mapping is a descriptor that a reply announces: the number that names it
// and how many bytes its file must hold.
type mapping struct {
	fd    int64
	bytes int64
}

// announced works out, as a client does, which descriptors follow a reply: one
// for each number not in delivered that a payload with bytes needs, in payload
// order. It also returns what in the reply's own fd fields disagrees with that.
// remote replies, and all on TCP, carry none.
func announced(reply map[string]any, delivered map[int64]bool, remote bool) (follow []mapping, wrong []string) {
	if reply["type"] == "make_arena_reply" {
		fd, _ := asInt(reply["fd"])
		size, _ := asInt(reply["size"])
		if !delivered[fd] {
			follow = append(follow, mapping{fd, size})
		}
		return follow, nil
	}
	payloads, wrong := payloadsOf(reply)
	for _, p := range payloads {
		fd, _ := asInt(p["store_fd"])
		size, _ := asInt(p["data_size"])
		start, _ := asInt(p["data_offset"])
		if id, _ := asUint(p["object_id"]); id == allOnes {
			start = 0 // stands for the whole file, wherever its data begins
		}
		known := slices.ContainsFunc(follow, func(m mapping) bool { return m.fd == fd })
		if size > 0 && !delivered[fd] && !known && !remote {
			follow = append(follow, mapping{fd, start + size})
		}
	}
	numbers := make([]int64, len(follow))
	for i, m := range follow {
		numbers[i] = m.fd
	}
	if reply["type"] == "create_buffers_reply" {
		slices.Sort(numbers)
	}
	if fd, ok := reply["fd"]; ok && len(payloads) == 1 {
		want := int64(-1)
		if len(numbers) == 1 {
			want = numbers[0]
		}
		if got, _ := asInt(fd); got != want {
			wrong = append(wrong, fmt.Sprintf("fd: expected %d (store_fd if newly delivered, else -1), got %s", want, show(fd)))
		}
	}
	if fds, ok := reply["fds"]; ok && jsonText(fds) != jsonText(numbers) {
		wrong = append(wrong, fmt.Sprintf("fds: expected %s (newly delivered store_fds), got %s", show(numbers), show(fds)))
	}
	return follow, wrong
}

// payloadsOf returns the payloads of a reply in order. Those of a list stand
// under "0", "1", … as well; wrong says where the two forms differ.
func payloadsOf(reply map[string]any) (payloads []map[string]any, wrong []string) {
	for _, key := range []string{"created", "buffer"} {
		if p, ok := reply[key].(map[string]any); ok {
			return []map[string]any{p}, nil
		}
	}
	for i := 0; ; i++ {
		p, ok := reply[fmt.Sprint(i)].(map[string]any)
		if !ok {
			break
		}
		payloads = append(payloads, p)
	}
	if list, ok := reply["payloads"].([]any); ok && len(list)+len(payloads) > 0 && jsonText(list) != jsonText(payloads) {
		wrong = append(wrong, fmt.Sprintf("payloads: expected the numbered ones %s, got %s", show(payloads), show(list)))
	}
	return payloads, wrong
}

// verify reports what is wrong with a received descriptor: clients map it for
// reading and writing, and touch every byte that a payload spans.
func (m mapping) verify(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() < m.bytes {
		return fmt.Errorf("file of descriptor %d has %d bytes, its payload needs %d", m.fd, info.Size(), m.bytes)
	}
	b, err := syscall.Mmap(int(f.Fd()), 0, int(m.bytes), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map descriptor %d: %w", m.fd, err)
	}
	return syscall.Munmap(b)
}

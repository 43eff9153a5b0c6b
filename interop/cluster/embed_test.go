//go:build linux

package cluster

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/v6d-go/v6d/internal/testserver"
)

// TestEmbedded has three nodes with an etcd member inside, and one without.
func TestEmbedded(t *testing.T) {
	t.Parallel()
	c := &cluster{t: t, net: testserver.Hosts(t, 4)}
	var peers, clients []string
	for i, h := range c.net.Hosts[:3] {
		peers = append(peers, fmt.Sprintf("m%d=http://%s:2380", i, h.Addr))
		clients = append(clients, fmt.Sprintf("http://%s:2379", h.Addr))
	}
	dir := t.TempDir()
	for i, h := range c.net.Hosts[:3] {
		n := newNode(t, h, slices.Concat([]string{
			"--meta", "embed", "--embed-name", fmt.Sprintf("m%d", i), "--embed-peers", strings.Join(peers, ","),
			"--embed-client", clients[i], "--embed-dir", filepath.Join(dir, fmt.Sprint(i)),
		}, remote(h))...)
		c.nodes = append(c.nodes, n)
	}
	began := time.Now()
	for _, n := range c.nodes {
		n.launch()
	}
	for _, n := range c.nodes {
		n.ready(patience)
	}
	t.Logf("three members are ready after %v", since(began))
	c.add(3, strings.Join(clients, ",")).start()
	own, all := c.populate()
	want := c.mustAgree(patience, nil)
	numbers := map[*node]uint64{}
	for _, n := range c.nodes {
		must(t, n.reads(all, true))
		number, err := n.number()
		must(t, err)
		numbers[n] = number
	}

	for victim := range 2 { // one of them may be the leader
		killed := c.nodes[victim]
		killed.kill()
		rest := &cluster{t: t, net: c.net, nodes: slices.Concat(c.nodes[:victim], c.nodes[victim+1:])}
		more := rest.works(15*time.Second, uint64(1000+100*victim))
		_, err := rest.nodes[1].things(uint64(2000+100*victim), uint64(2010+100*victim))
		must(t, err)
		for _, n := range rest.nodes {
			must(t, n.balanced())
		}
		began = time.Now()
		killed.start()
		t.Logf("a member that was killed is back after %v", since(began))
		if number, err := killed.number(); err != nil || number != numbers[killed] {
			t.Errorf("it was i%d and is i%d, %v", numbers[killed], number, err)
		}
		must(t, killed.reads(more, true), killed.keeps(own[victim]), killed.reads(all, true))
		v := c.mustAgree(patience, nil)
		for key, is := range want {
			if v[key] != is {
				t.Errorf("%s was %s, is %s", key, is, v[key])
			}
		}
		want = v
	}

	// Without a quorum local work goes on; with it everything does.
	c.nodes[0].kill()
	c.nodes[1].kill()
	l := c.nodes[2].use(20_000)
	time.Sleep(8 * time.Second)
	must(t, c.nodes[2].keeps(own[2]), c.nodes[3].keeps(own[3]))
	c.nodes[0].launch()
	c.nodes[1].launch()
	c.nodes[0].ready(patience)
	c.nodes[1].ready(patience)
	c.works(15*time.Second, 3000)
	l.stop()
	l.verify(t, "without a quorum")
	must(t, c.nodes[2].keeps(l.kept), c.nodes[3].reads(l.kept, false))
	v := c.mustAgree(patience, nil)
	for key, is := range want {
		if v[key] != is {
			t.Errorf("%s was %s, is %s", key, is, v[key])
		}
	}
	// A member that stops takes its objects along, and the others stay.
	began = time.Now()
	c.nodes[1].stop()
	t.Logf("a member stops in %v", since(began))
	if v, err := c.nodes[0].look(); err != nil || v["object "+own[1][0].id.String()] != "" {
		t.Errorf("an object of a member that was stopped is still there: %v", err)
	}
	must(t, c.nodes[0].balanced(), c.nodes[2].balanced(), c.nodes[3].balanced())
}

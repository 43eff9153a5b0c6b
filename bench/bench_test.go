package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// constant is a side whose every sample is the same.
func constant(name string, v float64) side {
	return side{name, func() ([]float64, error) { return []float64{v, v, v}, nil }}
}

func testBench() *bench {
	b := &bench{ctx: context.Background(), rounds: 3}
	b.report.Groups = []groupRows{{Name: "test", Doc: "Test"}}
	return b
}

// TestCompare: ratios are other / ours of times, ours / other of rates, and the
// third side against the second is the noise.
func TestCompare(t *testing.T) {
	b := testBench()
	sides := []side{constant("v6d", 2e-6), constant("reference", 6e-6), constant("reference again", 3e-6)}
	if err := b.compare("times", micros, sides, mark(2.5)); err != nil {
		t.Fatal(err)
	}
	if err := b.compare("rates", perSec, []side{constant("v6d", 10), constant("reference", 20), constant("bare", 40)}, mark(0.4), orShare(0.5), withoutTwin()); err != nil {
		t.Fatal(err)
	}
	if err := b.compare("missed", micros, sides, mark(4)); err != nil {
		t.Fatal(err)
	}
	if err := b.compare("absolute", millis, sides[:1], atMost(1)); err != nil {
		t.Fatal(err)
	}
	rows := b.report.Groups[0].Rows
	if r := rows[0]; r.Ratio.Median != 3 || r.Noise.Median != 0.5 || r.Sides[0].Median != 2 || r.Sides[0].Samples != 9 {
		t.Errorf("times: %+v %+v %+v", r.Ratio, r.Noise, r.Sides)
	}
	if r := rows[1]; r.Ratio.Median != 0.5 || r.Noise != nil || r.Share.Median != 0.25 {
		t.Errorf("rates: %+v %+v %+v", r.Ratio, r.Noise, r.Share)
	}
	for i, want := range []bool{true, true, false, true} {
		if met, has := rows[i].met(); !has || met != want {
			t.Errorf("%s: met %v, has a mark %v", rows[i].Name, met, has)
		}
	}
	if got := b.report.missed(); got != "missed" {
		t.Errorf("missed marks: %q", got)
	}
	failing := side{"broken", func() ([]float64, error) { return nil, errors.New("no luck") }}
	if err := b.compare("fails", micros, []side{failing}); err == nil || !strings.Contains(err.Error(), "no luck") {
		t.Errorf("a side that fails: %v", err)
	}
}

// TestReport: the tables go between the marker lines of a document, again and
// again, and two saved runs can be compared.
func TestReport(t *testing.T) {
	dir := t.TempDir()
	doc := filepath.Join(dir, "doc.md")
	if err := os.WriteFile(doc, []byte("before\n"+markBegin+"\nold\n"+markEnd+"\nafter\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var saved [2]string
	for i, ours := range []float64{2e-6, 1e-6} {
		b := testBench()
		if err := b.compare("times", micros, []side{constant("v6d", ours), constant("reference", 6e-6)}); err != nil {
			t.Fatal(err)
		}
		b.report.absent(os.Stdout, "Plasma", "it is not installed")
		if err := b.report.write(doc); err != nil {
			t.Fatal(err)
		}
		saved[i] = filepath.Join(dir, string(rune('a'+i))+".json")
		if err := b.report.save(saved[i]); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(doc)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"before\n", "after\n", "### Test", "**6.00 x**", "it is not installed"} {
		if strings.Count(string(text), want) != 1 {
			t.Errorf("%q is not there once:\n%s", want, text)
		}
	}
	if strings.Contains(string(text), "old") {
		t.Error("the old tables are still there")
	}
	var out strings.Builder
	if err := compareRuns(&out, saved[0], saved[1]); err != nil {
		t.Fatal(err)
	}
	if want := "| times | 3.00 x | 6.00 x | +100% | better |"; !strings.Contains(out.String(), want) {
		t.Errorf("compare prints\n%swant %s", out.String(), want)
	}
}

// TestPairRow: what a call needs is made before, once a call, and is not timed.
func TestPairRow(t *testing.T) {
	var made, called []uint64
	create := func(pair) (uint64, error) {
		time.Sleep(20 * time.Millisecond)
		made = append(made, uint64(len(made)+1))
		return made[len(made)-1], nil
	}
	row := pairRow([]pair{{name: "v6d"}}, 3, create, func(_ pair, id uint64) error {
		if len(made) != 3 {
			t.Errorf("%d objects are made before the first call", len(made))
		}
		called = append(called, id)
		return nil
	})
	samples, err := row[0].run()
	if err != nil || row[0].name != "v6d" || !slices.Equal(made, called) {
		t.Errorf("side %s: made %v, called %v, %v", row[0].name, made, called, err)
	}
	if len(samples) != 3 || slices.Max(samples) > 0.02 {
		t.Errorf("samples %v", samples)
	}
	failing := pairRow([]pair{{}}, 1, create, func(pair, uint64) error { return errors.New("no luck") })
	if _, err := failing[0].run(); err == nil {
		t.Error("a call that fails is no error")
	}
}

func TestWithMembers(t *testing.T) {
	reply := `{"content":{"o1":{"id":"o1","typename":"a"},"o2":{"id":"o2"}},"type":"get_data_reply"}`
	text, err := withMembers([]byte(reply), 2)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal([]byte(text), &got); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	if m, _ := got["member_o1"].(map[string]any); m["typename"] != "a" || got["member_o2"] == nil || got["transient"] != true {
		t.Errorf("metadata %s", text)
	}
	for _, bad := range []string{reply, `{"content":null}`, "no"} {
		if _, err := withMembers([]byte(bad), 3); err == nil {
			t.Errorf("three members of %s", bad)
		}
	}
}

// TestBlobsOf: the blobs of a copy are found by the keys that the original's
// members were given.
func TestBlobsOf(t *testing.T) {
	const one, two = 1<<63 | 5, 1<<63 | 6
	reply := func(ids ...uint64) []byte {
		var all []string
		for _, id := range ids {
			all = append(all, fmt.Sprintf(`"o%016x":{"id":"o%016x","typename":"vineyard::Blob"}`, id, id))
		}
		return []byte(`{"content":{` + strings.Join(all, ",") + `}}`)
	}
	var tree map[string]any
	for _, ids := range [][]uint64{{one}, {two}} {
		text, err := withMembers(reply(ids...), 1)
		if err != nil {
			t.Fatal(err)
		}
		var member map[string]any
		if err := json.Unmarshal([]byte(text), &member); err != nil {
			t.Fatal(err)
		}
		tree = map[string]any{"typename": "bench::Wide", "before": tree, "member": member}
	}
	got := map[string]uint64{}
	blobsOf(tree, got)
	if want := map[string]uint64{memberKey(one): one, memberKey(two): two}; !maps.Equal(got, want) {
		t.Errorf("blobs %v, want %v", got, want)
	}
}

// TestHosts: what would skip or fail a test is an error, and hosts go in the end.
func TestHosts(t *testing.T) {
	for _, f := range []func(s *scope){
		func(s *scope) { s.Skip("no luck") },
		func(s *scope) { s.Skipf("no %s", "luck") },
		func(s *scope) { s.Fatalf("no %s", "luck") },
	} {
		cleaned := false
		end, err := scoped(func(s *scope) {
			s.Cleanup(func() { cleaned = true })
			f(s)
		})
		if err == nil || err.Error() != "no luck" || end != nil || !cleaned {
			t.Errorf("error %v, cleaned up %v", err, cleaned)
		}
	}
	network, end, err := hosts(2)
	if err != nil {
		t.Skip(err)
	}
	err = at(network.Hosts[0], func() error {
		l, err := net.Listen("tcp", net.JoinHostPort(address(network.Hosts[0]), "0"))
		if err == nil {
			l.Close()
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	end()
	if at(network.Hosts[0], func() error { return nil }) == nil {
		t.Error("the host is still there")
	}
}

func TestAtOnce(t *testing.T) {
	both := make(chan bool) // each waits for the other
	if err := atOnce([]func() error{
		func() error { both <- true; return nil },
		func() error { <-both; return errors.New("no luck") },
	}); err == nil || !strings.Contains(err.Error(), "no luck") {
		t.Errorf("atOnce: %v", err)
	}
}

func TestThousands(t *testing.T) {
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 100_000: "100,000", 1_000_001: "1,000,001"} {
		if got := thousands(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}

func TestFilled(t *testing.T) {
	for _, n := range []int{0, 10, 1000, 1001, 5500} {
		got := filled(n, func(i int) int { return i + 7 })
		if len(got) != n {
			t.Errorf("%d elements, want %d", len(got), n)
		}
		for i, v := range got {
			if v != i%1000+7 {
				t.Fatalf("element %d of %d is %d", i, n, v)
			}
		}
	}
}

// TestSame: values are made alike each time, and a change is noticed.
func TestSame(t *testing.T) {
	for _, what := range []string{"array", "frame", "table"} {
		var made [3]any
		for i, n := range []int{1500, 1500, 1501} {
			var err error
			if made[i], err = (value{what: what, n: n}).make(); err != nil {
				t.Fatal(err)
			}
		}
		if err := same(made[0], made[1]); err != nil {
			t.Error(err)
		}
		if same(made[0], made[2]) == nil || same(nil, made[0]) == nil {
			t.Errorf("a different %s is the same", what)
		}
	}
}

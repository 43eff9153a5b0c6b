package client_test

import (
	"encoding/json"
	"math"
	"testing"
	"time"

	"github.com/v6d-go/v6d/client"
)

func TestParseID(t *testing.T) {
	for text, want := range map[string]client.ID{
		"o0000000000000000": 0, "o8000000000000000": client.EmptyBlob, "o00000000000000aF": 0xaf, "offffffffffffffff": math.MaxUint64,
	} {
		if got, err := client.ParseID(text); err != nil || got != want {
			t.Errorf("%s is %d, %v; want %d", text, uint64(got), err, uint64(want))
		}
	}
	for _, text := range []string{"", "o", "0000000000000000", "o000000000000000", "o00000000000000000", "s0000000000000000", "o+00000000000000f", "o 00000000000000f", "o000000000000000g"} {
		if got, err := client.ParseID(text); err == nil {
			t.Errorf("%q is %s", text, got)
		}
	}
}

// What `v6d meta -o json` prints.
func TestMetaJSON(t *testing.T) {
	m := client.NewMeta("demo::Pair").Set("a", 1).Set("text", "ü\"").Add("left", client.BlobMember(client.EmptyBlob)).
		Set("a", 2.5).AddObject("right", 10).Add("left", client.BlobMember(client.EmptyBlob|1))
	m.ID, m.Signature, m.InstanceID, m.Name = 7, 8, 9, "n/ame"
	m.Labels = map[string]string{"k": "v"}
	m.Time = time.UnixMilli(1_700_000_000_123).UTC()
	const want = `{"id":"o0000000000000007","typename":"demo::Pair","instance_id":9,"signature":"s0000000000000008",` +
		`"global":false,"transient":true,"created":"2023-11-14T22:13:20.123Z","name":"n/ame","labels":{"k":"v"},` +
		`"fields":{"a":2.5,"text":"ü\""},"members":{"left":{"id":"o8000000000000001","typename":"vineyard::Blob","instance_id":0,"fields":{},"members":{}},` +
		`"right":{"id":"o000000000000000a","typename":"","instance_id":0,"signature":"s0000000000000000","global":false,"transient":false,"created":"0001-01-01T00:00:00Z","fields":{},"members":{}}}}`
	got, err := json.Marshal(m)
	if err != nil || string(got) != want {
		t.Errorf("got %s, %v\nwant %s", got, err, want)
	}
}

// What a field cannot hold becomes null, not a broken request.
func TestMetaSet(t *testing.T) {
	type named string
	m := client.NewMeta("t").Set("nan", math.NaN()).Set("inf", float32(math.Inf(1))).Set("func", func() {}).
		Set("named", named("x")).Set("id", client.EmptyBlob).Set("bytes", []byte("ab"))
	for key, want := range map[string]string{
		"nan": "null", "inf": "null", "func": `"null"`, "named": `"\"x\""`, "id": `"\"o8000000000000000\""`, "bytes": `"\"YWI=\""`,
	} {
		if got := string(m.Raw(key)); got != want {
			t.Errorf("%s became %s, want %s", key, got, want)
		}
	}
}

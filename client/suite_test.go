//go:build linux

package client_test

import (
	"testing"

	"github.com/v6d-go/v6d/client"
)

// suite is what must hold on every daemon and over both transports.
var suite = []struct {
	name string
	run  func(t *testing.T, d daemon)
}{
	{"BlobRoundTrip", testBlobRoundTrip},
	{"EmptyBlob", testEmptyBlob},
	{"BlobSizes", testBlobSizes},
	{"Abort", testAbort},
	{"Shrink", testShrink},
	{"SealTwice", testSealTwice},
	{"Unsealed", testUnsealed},
	{"GetBlobs", testGetBlobs},
	{"DropBlob", testDropBlob},
	{"NoMemory", testNoMemory},
	{"ZeroCopy", testZeroCopy},
	{"Strict", testStrict},
	{"StrictNeighbours", testStrictNeighbours},
	{"Compress", testCompress},
	{"Meta", testMeta},
	{"CreateObject", testCreateObject},
	{"CreateObjects", testCreateObjects},
	{"GetObjects", testGetObjects},
	{"GetObjectsWait", testGetObjectsWait},
	{"ListObjects", testListObjects},
	{"Delete", testDelete},
	{"DeleteVariants", testDeleteVariants},
	{"Persist", testPersist},
	{"Label", testLabel},
	{"ShallowCopy", testShallowCopy},
	{"Names", testNames},
	{"NameWait", testNameWait},
	{"Sessions", testSessions},
	{"PlasmaSession", testPlasmaSession},
	{"TakeBlobs", testTakeBlobs},
	{"Lock", testLock},
	{"Status", testStatus},
	{"Cluster", testCluster},
	{"Extensions", testExtensions},
	{"StreamChunks", testStreamChunks},
	{"StreamPush", testStreamPush},
	{"StreamFailed", testStreamFailed},
	{"StreamPressure", testStreamPressure},
	{"StreamErrors", testStreamErrors},
	{"Streaming", testStreaming},
	{"Readers", testReaders},
	{"ProducerDies", testProducerDies},
	{"StreamCancel", testStreamCancel},
	{"Cancel", testCancel},
	{"Deadline", testDeadline},
	{"Concurrency", testConcurrency},
	{"Close", testClose},
	{"CloseDuringCall", testCloseDuringCall},
	{"Clear", testClear},
}

func TestClient(t *testing.T) {
	for _, k := range []struct {
		name  string
		start func(testing.TB) daemon
	}{
		{"v6d", func(t testing.TB) daemon { return startV6D(t, nil) }},
		{"vineyardd", startReference},
	} {
		t.Run(k.name, func(t *testing.T) {
			d := k.start(t)
			for _, tcp := range []bool{false, true} {
				t.Run(transport(tcp), func(t *testing.T) {
					for _, c := range suite {
						t.Run(c.name, func(t *testing.T) { c.run(t, d.over(tcp)) })
					}
				})
			}
		})
	}
}

func transport(tcp bool) string {
	if tcp {
		return "tcp"
	}
	return "ipc"
}

// connect is dial with the usual options.
func (d daemon) connect(t testing.TB) *client.Client {
	t.Helper()
	return d.dial(t, nil)
}

// connectIPC connects over IPC, whatever is tested: some things can only be
// done there.
func (d daemon) connectIPC(t testing.TB) *client.Client {
	t.Helper()
	return d.over(false).dial(t, nil)
}

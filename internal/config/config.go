// Package config holds the settings of a daemon as plain values: defaults,
// validation, and the reading of byte sizes and socket paths. Where the values
// come from (flags, environment, file) is the command line's business.
package config

import (
	"fmt"
	"math"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/v6d-go/v6d/internal/status"
)

// ProtocolVersion is what clients are told: the version of the wire protocol
// that is spoken, in the form that 0.24 clients parse.
const ProtocolVersion = "0.24.2"

// DefaultRPC is where remote clients are served unless told otherwise. If the
// port is taken, RPC is off; an address that was asked for must be free.
const DefaultRPC = "127.0.0.1:9600"

// Serve is the configuration of a daemon. The keys are those of the config
// file; flags have the same names.
type Serve struct {
	Socket          string `mapstructure:"socket"`       // path of the IPC socket
	SocketMode      string `mapstructure:"socket-mode"`  // octal permissions of the socket
	RPCListen       string `mapstructure:"rpc-listen"`   // host:port, or off
	HTTPListen      string `mapstructure:"http-listen"`  // host:port of /healthz, /readyz and /metrics, or off
	Pprof           bool   `mapstructure:"pprof"`        // profiles on the same port
	Size            string `mapstructure:"size"`         // pool size; empty: half of what there is
	Memory          string `mapstructure:"memory"`       // auto, anonymous, or a folder on a tmpfs
	Huge            string `mapstructure:"huge"`         // auto, always or never
	StrictReads     bool   `mapstructure:"strict-reads"` // never reuse memory that a 0.24 client may read
	Keep            bool   `mapstructure:"keep"`         // leave the pool behind at a clean stop
	Fresh           bool   `mapstructure:"fresh"`        // discard what an earlier daemon left
	Meta            string `mapstructure:"meta"`         // local, etcd or embed
	LogLevel        string `mapstructure:"log-level"`    // debug, info, warn or error
	LogFormat       string `mapstructure:"log-format"`   // text or json
	HTPasswd        string `mapstructure:"htpasswd"`     // password file; empty: no authentication
	Compression     bool   `mapstructure:"compression"`  // offer zstd to remote clients
	PeerIPC         bool   `mapstructure:"peer-ipc"`     // pull from daemons on this host through their sockets
	PeerUser        string `mapstructure:"peer-user"`    // as whom to pull from daemons with --htpasswd
	PeerPassword    string `mapstructure:"peer-password-file"`
	StreamThreshold int    `mapstructure:"stream-threshold"` // percent of the pool above which stream writers wait
	Deployment      string `mapstructure:"deployment"`       // what clients are told: local or distributed

	// Of a cluster.
	RPCAdvertise     string        `mapstructure:"rpc-advertise"`      // host:port by which other hosts reach this node
	MetaTimeout      time.Duration `mapstructure:"meta-timeout"`       // how long a start waits for the metadata service
	EtcdEndpoints    string        `mapstructure:"etcd-endpoints"`     // URLs, separated by commas
	EtcdPrefix       string        `mapstructure:"etcd-prefix"`        // of all keys, verbatim
	EtcdUser         string        `mapstructure:"etcd-user"`          // its password: file, or V6D_ETCD_PASSWORD
	EtcdPasswordFile string        `mapstructure:"etcd-password-file"` // the first line
	EtcdCACert       string        `mapstructure:"etcd-cacert"`        // PEM files
	EtcdCert         string        `mapstructure:"etcd-cert"`
	EtcdKey          string        `mapstructure:"etcd-key"`
	EmbedName        string        `mapstructure:"embed-name"`   // of this node's member
	EmbedPeers       string        `mapstructure:"embed-peers"`  // name=url of all members, separated by commas
	EmbedClient      string        `mapstructure:"embed-client"` // URL for other nodes and etcdctl
	EmbedDir         string        `mapstructure:"embed-dir"`    // of the member's data
	// Heartbeat is the time between heartbeats, 10 s: that of every other instance
	// of the cluster. No flag has it; tests do.
	Heartbeat time.Duration `mapstructure:"-"`
	// PeerPatience is how long a transfer waits for a peer that is silent, 20 s. No
	// flag has it; tests do.
	PeerPatience time.Duration `mapstructure:"-"`
}

// Default returns the configuration of `v6d serve` without arguments.
func Default() Serve {
	return Serve{
		SocketMode: "0660", RPCListen: DefaultRPC, HTTPListen: "off", Memory: "auto", Huge: "auto", Meta: "local",
		LogLevel: "info", LogFormat: "text", Compression: true, PeerIPC: true, StreamThreshold: 80, Deployment: "local",
		MetaTimeout: time.Minute, EtcdEndpoints: "http://127.0.0.1:2379", EtcdPrefix: "vineyard",
		EmbedName: "v6d", EmbedClient: "http://127.0.0.1:2379",
	}
}

func invalid(format string, args ...any) error {
	return &status.Error{Code: status.UserInputError, Msg: fmt.Sprintf(format, args...)}
}

// Validate checks every value and names the first that is wrong.
func (c *Serve) Validate() error {
	if _, err := c.Mode(); err != nil {
		return err
	}
	if c.Size != "" {
		n, err := ParseSize(c.Size)
		if err != nil {
			return invalid("--size: %v", err)
		}
		if n < 1<<16 {
			return invalid("--size %s: a pool needs at least 64KiB", c.Size)
		}
	}
	if c.RPCListen != "off" {
		if _, _, err := net.SplitHostPort(c.RPCListen); err != nil {
			return invalid("--rpc-listen %s: want HOST:PORT or off", c.RPCListen)
		}
	}
	if c.HTTPListen != "off" {
		if _, _, err := net.SplitHostPort(c.HTTPListen); err != nil {
			return invalid("--http-listen %s: want HOST:PORT or off", c.HTTPListen)
		}
	} else if c.Pprof {
		return invalid("--pprof needs --http-listen")
	}
	for _, f := range []struct {
		flag, value string
		allowed     []string
	}{
		{"huge", c.Huge, []string{"auto", "always", "never"}},
		{"meta", c.Meta, []string{"local", "etcd", "embed"}},
		{"deployment", c.Deployment, []string{"local", "distributed"}},
		{"log-level", c.LogLevel, []string{"debug", "info", "warn", "error"}},
		{"log-format", c.LogFormat, []string{"text", "json"}},
	} {
		if !contains(f.allowed, f.value) {
			return invalid("--%s %q: want %s", f.flag, f.value, strings.Join(f.allowed, ", "))
		}
	}
	if c.Memory != "auto" && c.Memory != "anonymous" && !filepath.IsAbs(c.Memory) {
		return invalid("--memory %q: want auto, anonymous, or the absolute path of a folder on a tmpfs", c.Memory)
	}
	if c.StreamThreshold < 1 || c.StreamThreshold > 100 {
		return invalid("--stream-threshold %d: want a percentage from 1 to 100", c.StreamThreshold)
	}
	if c.HTPasswd != "" {
		f, err := os.Open(c.HTPasswd)
		if err != nil {
			return invalid("--htpasswd: %v", err)
		}
		f.Close()
	}
	if err := c.validateCluster(); err != nil {
		return err
	}
	if len(c.Socket) > 107-len(".S0123456789abcdef") {
		return invalid("--socket: the path is %d bytes long; sockets of sessions need it to be at most %d", len(c.Socket), 107-18)
	}
	return nil
}

func contains(list []string, s string) bool {
	for _, e := range list {
		if e == s {
			return true
		}
	}
	return false
}

// Mode returns the socket's permissions.
func (c *Serve) Mode() (os.FileMode, error) {
	m, err := strconv.ParseUint(c.SocketMode, 8, 32)
	if err != nil || m > 0o777 {
		return 0, invalid("--socket-mode %q: want octal permissions such as 0660", c.SocketMode)
	}
	return os.FileMode(m), nil
}

var units = map[string]float64{
	"": 1, "b": 1,
	"k": 1 << 10, "ki": 1 << 10, "kib": 1 << 10, "kb": 1e3,
	"m": 1 << 20, "mi": 1 << 20, "mib": 1 << 20, "mb": 1e6,
	"g": 1 << 30, "gi": 1 << 30, "gib": 1 << 30, "gb": 1e9,
	"t": 1 << 40, "ti": 1 << 40, "tib": 1 << 40, "tb": 1e12,
	"p": 1 << 50, "pi": 1 << 50, "pib": 1 << 50, "pb": 1e15,
}

// ParseSize reads a number of bytes: 4GiB, 512Mi, 1.5G, 1000000. As in 0.24, a
// bare K, M, G, T or P is binary; KB, MB, GB, TB, PB are decimal.
func ParseSize(s string) (int64, error) {
	text := strings.ToLower(strings.TrimSpace(s))
	i := 0
	for i < len(text) && (text[i] >= '0' && text[i] <= '9' || text[i] == '.') {
		i++
	}
	unit, ok := units[strings.TrimSpace(text[i:])]
	// Whole numbers are exact: a float64 loses the last bytes above 2^53.
	if whole, err := strconv.ParseInt(text[:i], 10, 64); ok && err == nil && whole <= (1<<62-1)/int64(unit) {
		return whole * int64(unit), nil
	}
	n, err := strconv.ParseFloat(text[:i], 64)
	if err != nil || !ok || n < 0 || n*unit >= 1<<62 {
		return 0, fmt.Errorf("%q is not a size: want a number and a unit, such as 4GiB or 512Mi", s)
	}
	return int64(n * unit), nil
}

// FormatSize writes a number of bytes for people: 1.5GiB.
func FormatSize(n int64) string {
	if n < 0 {
		return "-" + FormatSize(-max(n, -math.MaxInt64)) // the smallest has no opposite
	}
	if n < 1<<10 {
		return strconv.FormatInt(n, 10) + "B"
	}
	f, unit := float64(n), 0
	for f >= 1023.95 && unit < 5 {
		f /= 1024
		unit++
	}
	text := strings.TrimSuffix(strconv.FormatFloat(f, 'f', 1, 64), ".0")
	return text + []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}[unit]
}

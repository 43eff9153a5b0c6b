package config

import (
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
)

// List splits a list at its commas.
func List(s string) (list []string) {
	for _, e := range strings.Split(s, ",") {
		if e = strings.TrimSpace(e); e != "" {
			list = append(list, e)
		}
	}
	return list
}

// validateCluster checks what --meta etcd and --meta embed need.
func (c *Serve) validateCluster() error {
	if c.Meta == "local" {
		if c.RPCAdvertise != "" {
			return invalid("--rpc-advertise is for a cluster: add --meta etcd or --meta embed")
		}
		return nil
	}
	if c.MetaTimeout <= 0 {
		return invalid("--meta-timeout %v: want a duration such as 60s", c.MetaTimeout)
	}
	if strings.ContainsAny(c.EtcdPrefix, "\x00\n") {
		return invalid("--etcd-prefix %q: want a text such as vineyard", c.EtcdPrefix)
	}
	urls := List(c.EtcdEndpoints)
	switch c.Meta {
	case "etcd":
		if len(urls) == 0 {
			return invalid("--meta etcd needs --etcd-endpoints URL,…")
		}
		for _, u := range urls {
			if err := checkURL("etcd-endpoints", u); err != nil {
				return err
			}
		}
		if (c.EtcdCert == "") != (c.EtcdKey == "") {
			return invalid("--etcd-cert and --etcd-key go together")
		}
	case "embed":
		if err := c.validateEmbed(); err != nil {
			return err
		}
		urls = []string{c.EmbedClient}
		for _, p := range List(c.EmbedPeers) {
			_, u, _ := strings.Cut(p, "=")
			urls = append(urls, u)
		}
	}
	return c.validateAdvertise(urls)
}

func (c *Serve) validateEmbed() error {
	if c.EmbedName == "" || strings.ContainsAny(c.EmbedName, "=,") {
		return invalid("--embed-name %q: want a name without = and commas", c.EmbedName)
	}
	if err := checkURL("embed-client", c.EmbedClient); err != nil {
		return err
	}
	if !filepath.IsAbs(c.EmbedDir) {
		return invalid("--embed-dir %q: want the absolute path of a folder for the embedded etcd", c.EmbedDir)
	}
	found := c.EmbedPeers == ""
	for _, p := range List(c.EmbedPeers) {
		name, u, ok := strings.Cut(p, "=")
		if !ok {
			return invalid("--embed-peers %q: want NAME=URL,…", p)
		}
		if err := checkURL("embed-peers", u); err != nil {
			return err
		}
		found = found || name == c.EmbedName
	}
	if !found {
		return invalid("--embed-name %s is none of --embed-peers %s", c.EmbedName, c.EmbedPeers)
	}
	return nil
}

func checkURL(flag, text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.Port() == "" {
		return invalid("--%s %q: want a URL such as http://10.0.0.1:2379", flag, text)
	}
	return nil
}

// validateAdvertise settles by which address other hosts reach this node. A
// loopback address is of use only when the metadata service is on loopback, too:
// then all nodes are on this machine.
func (c *Serve) validateAdvertise(services []string) error {
	oneHost := !slices.ContainsFunc(services, func(s string) bool {
		u, err := url.Parse(s)
		return err != nil || !isLoopback(u.Hostname())
	})
	if c.RPCListen == "off" {
		if c.RPCAdvertise != "" {
			return invalid("--rpc-advertise %s: remote access is off", c.RPCAdvertise)
		}
		return nil
	}
	host, _, err := net.SplitHostPort(c.RPCListen)
	if err != nil {
		return nil //nolint:nilerr // Validate has told already
	}
	if c.RPCAdvertise == "" {
		unspecified := host == "" || net.ParseIP(host) != nil && net.ParseIP(host).IsUnspecified()
		switch {
		case oneHost:
			return nil
		case unspecified:
			return invalid("--rpc-listen %s says nothing about which address other hosts can use: add --rpc-advertise HOST:PORT", c.RPCListen)
		case isLoopback(host):
			return invalid("--rpc-listen %s cannot be reached by other hosts: give --rpc-listen and --rpc-advertise HOST:PORT, or --rpc-listen off", c.RPCListen)
		}
		return nil
	}
	host, port, err := net.SplitHostPort(c.RPCAdvertise)
	if err != nil || host == "" || port == "" || strings.Contains(host, ":") {
		return invalid("--rpc-advertise %s: want HOST:PORT, a name or IPv4 address that other hosts can use", c.RPCAdvertise)
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		return invalid("--rpc-advertise %s: other hosts cannot use this address", c.RPCAdvertise)
	}
	if isLoopback(host) && !oneHost {
		return invalid("--rpc-advertise %s: a loopback address leads other hosts to themselves", c.RPCAdvertise)
	}
	if net.ParseIP(host) == nil {
		if _, err := net.LookupHost(host); err != nil {
			return invalid("--rpc-advertise %s: %v", c.RPCAdvertise, err)
		}
	}
	return nil
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

//go:build linux && !race

package cluster

const underRace = false

//go:build linux && race

package cluster

const underRace = true

//go:build !linux

package sys

// ForgetText does nothing here.
func ForgetText() error { return nil }

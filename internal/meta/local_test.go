package meta_test

import (
	"testing"

	"github.com/v6d-go/v6d/internal/meta"
	"github.com/v6d-go/v6d/internal/meta/metatest"
)

func TestLocalBackend(t *testing.T) {
	metatest.Run(t, func(*testing.T) metatest.Store {
		b := meta.NewLocal()
		return metatest.Store{Open: func(*testing.T) meta.Backend { return b }}
	})
}

func TestHubBackend(t *testing.T) {
	metatest.Run(t, func(*testing.T) metatest.Store {
		b := meta.NewHub("hub")
		return metatest.Store{Open: func(*testing.T) meta.Backend { return b }, Compact: func(*testing.T) { b.Forget() }}
	})
}

package server

import (
	"github.com/tg123/go-htpasswd"

	"github.com/v6d-go/v6d/internal/status"
)

// authenticator checks passwords against an htpasswd file, which is read anew
// each time: a change counts at once.
type authenticator struct{ file string }

func (a *authenticator) check(user, password string) error {
	if a == nil {
		return nil
	}
	f, err := htpasswd.New(a.file, htpasswd.DefaultSystems, nil)
	if err != nil {
		return status.Errorf(status.ConnectionError, "the password file cannot be read")
	}
	if !f.Match(user, password) {
		return status.Errorf(status.ConnectionError, "authentication failed for user %q", user).
			WithHint("give a user and password of the daemon's --htpasswd file")
	}
	return nil
}

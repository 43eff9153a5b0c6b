package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/v6d-go/v6d/internal/testserver/terminal"
)

// browser measures v6d tui on a terminal of 200x50, whose screen is emulated: a key
// has been drawn when the program's last bytes of it have come.
func (b *bench) browser() error {
	empty, err := b.daemon("v6d", options{size: "64MiB"})
	if err != nil {
		return err
	}
	full, err := b.daemon("v6d", options{size: "64MiB"})
	if err != nil {
		return err
	}
	c, err := dialRaw(full.socket)
	if err != nil {
		return err
	}
	const many = 100_000
	for i := range many {
		if _, err := c.create1(fmt.Sprintf(`{"typename":"bench::Object","nbytes":%d,"transient":true,"instance_id":0,"global":false,"index":%d}`, i, i)); err != nil {
			return err
		}
	}
	if err := c.close(); err != nil {
		return err
	}
	opens := func(p *proc, shows string) []side {
		return []side{{"v6d", func() ([]float64, error) {
			start := time.Now()
			t, drawn, err := b.browse(p, shows)
			if err != nil {
				return nil, err
			}
			t.Close()
			return []float64{drawn.Sub(start).Seconds()}, nil
		}}}
	}
	if err := b.compare("v6d tui, from its start until an empty daemon is on the screen", millis, opens(empty, "objects 0"), atMost(300)); err != nil {
		return err
	}
	if err := b.compare("v6d tui, from its start until the first of 100,000 objects are on the screen", millis, opens(full, "▸ o"), atMost(1000)); err != nil {
		return err
	}
	all := fmt.Sprint("objects ", many)
	if err := b.compare("v6d tui, from its start until all of 100,000 objects are there", millis, opens(full, all), atMost(1000)); err != nil {
		return err
	}
	t, _, err := b.browse(full, all)
	if err != nil {
		return err
	}
	defer t.Close()
	keys := []string{"j", "j", "\x06", "k", "G", "k", "g"} // ^F is a page
	press := func() (took []float64, err error) {
		for i := range 15 * len(keys) {
			d, err := b.press(t, keys[i%len(keys)])
			if err != nil {
				return nil, err
			}
			took = append(took, d.Seconds())
		}
		return took, nil
	}
	if err := b.compare("a key, among 100,000 objects, until it is drawn", millis, []side{{"v6d", press}}, atMost(16)); err != nil {
		return err
	}
	memory := func() ([]float64, error) {
		n, err := memoryOf(t.Cmd.Process.Pid, "RssAnon", "RssFile")
		return []float64{float64(n)}, err
	}
	return b.compare("v6d tui among 100,000 objects, RssAnon + RssFile", mib, []side{{"v6d", memory}}, atMost(150), rounds(1))
}

// browse starts the browser, and waits until something is on its screen.
func (b *bench) browse(p *proc, shows string) (*terminal.Terminal, time.Time, error) {
	cmd := exec.CommandContext(b.ctx, b.v6d, "tui", "--view", "objects", "--socket", p.socket)
	cmd.Env = append(os.Environ(), "TERM=xterm-256color", "XDG_CONFIG_HOME="+b.dir)
	t, err := terminal.Start(cmd, 200, 50)
	if err != nil {
		return nil, time.Time{}, err
	}
	drawn, err := b.shows(t, func(screen string) bool { return strings.Contains(screen, shows) })
	if err != nil {
		t.Close()
		return nil, drawn, fmt.Errorf("%q is not on the screen: %w\n%s", shows, err, t.Screen())
	}
	return t, drawn, nil
}

// press presses a key that moves the cursor, and returns how long that took.
func (b *bench) press(t *terminal.Terminal, key string) (time.Duration, error) {
	before := pointed(t.Screen())
	start := time.Now()
	if err := t.Type(key); err != nil {
		return 0, err
	}
	drawn, err := b.shows(t, func(screen string) bool {
		now := pointed(screen)
		return now != "" && now != before
	})
	return drawn.Sub(start), err
}

func (b *bench) shows(t *terminal.Terminal, wanted func(string) bool) (time.Time, error) {
	ctx, cancel := context.WithTimeout(b.ctx, 10*time.Second)
	defer cancel()
	return t.Wait(ctx, wanted)
}

// pointed is the line that the cursor is on.
func pointed(screen string) string {
	for line := range strings.Lines(screen) {
		if strings.HasPrefix(strings.TrimLeft(line, " "), "▸") {
			return line
		}
	}
	return ""
}

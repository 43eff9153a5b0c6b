package output

import (
	"fmt"
	"io"
	"time"

	"github.com/schollz/progressbar/v3"

	"github.com/v6d-go/v6d/internal/config"
)

// Progress shows how far a transfer is: a bar on a terminal, a line now and
// then elsewhere if asked for. The zero of it, nil, shows nothing.
type Progress struct {
	bar   *progressbar.ProgressBar
	lines io.Writer
	what  string
	total int64
	done  int64
	last  time.Time
}

// NewProgress starts showing a transfer of total bytes, -1 if unknown, on w. On
// a terminal it always does, elsewhere only with force; never with off.
func NewProgress(w io.Writer, what string, total int64, force, off bool) *Progress {
	switch {
	case off:
		return nil
	case IsTerminal(w):
		return &Progress{bar: progressbar.NewOptions64(total, progressbar.OptionSetWriter(w), progressbar.OptionSetDescription(what),
			progressbar.OptionShowBytes(true), progressbar.OptionUseIECUnits(true), progressbar.OptionThrottle(100*time.Millisecond),
			progressbar.OptionShowElapsedTimeOnFinish(), progressbar.OptionClearOnFinish(), progressbar.OptionSetWidth(20))}
	case force:
		return &Progress{lines: w, what: what, total: total, last: time.Now()}
	}
	return nil
}

// Add counts bytes.
func (p *Progress) Add(n int) {
	switch {
	case p == nil:
	case p.bar != nil:
		_ = p.bar.Add(n) // what cannot be shown is not worth failing for
	default:
		p.done += int64(n)
		if time.Since(p.last) >= time.Second {
			p.last = time.Now()
			p.line("")
		}
	}
}

// Done ends the display.
func (p *Progress) Done() {
	switch {
	case p == nil:
	case p.bar != nil:
		_ = p.bar.Finish() // as above
	default:
		p.line(", done")
	}
}

func (p *Progress) line(end string) {
	of := ""
	if p.total >= 0 {
		of = " of " + config.FormatSize(p.total)
	}
	fmt.Fprintf(p.lines, "v6d: %s: %s%s%s\n", p.what, config.FormatSize(p.done), of, end)
}

package output

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/v6d-go/v6d/internal/status"
)

// Error prints an error as people read it, with its hint on a line of its own;
// as an object where the user asked for JSON.
func Error(w io.Writer, format, color string, err error, exit int) {
	hint := status.HintOf(err)
	if format == "json" || format == "ndjson" {
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false)
		_ = enc.Encode(map[string]any{"apiVersion": APIVersion, "error": map[string]any{ // nowhere left to report to
			"message": err.Error(), "hint": hint, "code": status.Of(err).String(), "exit": exit,
		}})
		return
	}
	prefix, light, end := "v6d:", "hint:", ""
	if UseColor(color, w) {
		prefix, light, end = "\x1b[31mv6d:", "\x1b[2mhint:", "\x1b[0m"
	}
	fmt.Fprintf(w, "%s%s %s\n", prefix, end, strings.ReplaceAll(err.Error(), "\n", "; "))
	if hint != "" {
		fmt.Fprintf(w, "%s%s %s\n", light, end, hint)
	}
}

package cli

import (
	"fmt"
	"io"
	"os"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/v6d-go/v6d/internal/config"
	"github.com/v6d-go/v6d/internal/sys"
)

func newVersion(d *deps) *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Show the version of this program",
		GroupID: "more",
		Example: `  v6d version
  v6d version -o json`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			p, err := d.printer()
			if err != nil {
				return err
			}
			info := map[string]string{"version": Version, "protocol": config.ProtocolVersion, "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH}
			return p.Item(Version, info, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "v6d %s, protocol %s, %s, %s\n", Version, config.ProtocolVersion, info["go"], info["platform"])
				return err
			})
		},
	}
}

func newCompletion() *cobra.Command {
	return &cobra.Command{
		Use:     "completion bash|zsh|fish|powershell",
		Short:   "Print a completion script for a shell",
		GroupID: "more",
		Long:    `Print a completion script. Load it from the shell's start-up file.`,
		Example: `  source <(v6d completion bash)
  v6d completion fish > ~/.config/fish/completions/v6d.fish`,
		Args:      cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		ValidArgs: []string{"bash", "zsh", "fish", "powershell"},
		RunE: func(c *cobra.Command, args []string) error {
			out := c.OutOrStdout()
			switch args[0] {
			case "bash":
				return c.Root().GenBashCompletionV2(out, true)
			case "zsh":
				return c.Root().GenZshCompletion(out)
			case "fish":
				return c.Root().GenFishCompletion(out, true)
			}
			return c.Root().GenPowerShellCompletionWithDesc(out)
		},
	}
}

// umask returns the process's file mode mask.
func umask() os.FileMode { return os.FileMode(sys.ReadUmask()) }

package cli

import (
	"github.com/spf13/cobra"
)

func newMan(d *deps) *cobra.Command {
	return &cobra.Command{
		Use:     "man [COMMAND]...",
		Short:   "Show the manual of a command",
		GroupID: "more",
		Long: `Show the long help of a command in the pager ($V6D_PAGER, $PAGER, or less). The
same text is installed as man pages: man v6d-put.`,
		Example: `  v6d man put
  v6d man name set`,
		RunE: func(c *cobra.Command, args []string) error {
			target, rest, err := c.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return usage("no command %q", args).WithHint("see `v6d --help`")
			}
			out, done := d.pager(c.Context())
			target.SetOut(out)
			err = target.Help()
			return joinPager(err, done())
		},
	}
}

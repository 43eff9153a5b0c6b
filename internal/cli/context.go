package cli

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/v6d-go/v6d/internal/output"
	"github.com/v6d-go/v6d/internal/status"
)

// contexts is the file of named daemons, $XDG_CONFIG_HOME/v6d/contexts.yaml.
type contexts struct {
	Current  string                  `yaml:"current" json:"current"`
	Contexts map[string]contextEntry `yaml:"contexts" json:"contexts"`
}

// contextEntry is how to reach one daemon.
type contextEntry struct {
	Socket       string `yaml:"socket,omitempty" json:"socket,omitempty"`
	Host         string `yaml:"host,omitempty" json:"host,omitempty"`
	Username     string `yaml:"username,omitempty" json:"username,omitempty"`
	PasswordFile string `yaml:"password-file,omitempty" json:"password_file,omitempty"`
}

func contextsPath() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "v6d", "contexts.yaml"), nil
}

func loadContexts() (*contexts, error) {
	c := &contexts{Contexts: map[string]contextEntry{}}
	path, err := contextsPath()
	if err != nil {
		return c, nil //nolint:nilerr // without a home there are no contexts
	}
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return nil, err
	}
	if err := yaml.Unmarshal(b, c); err != nil {
		return nil, usage("%s: %v", path, err)
	}
	if c.Contexts == nil {
		c.Contexts = map[string]contextEntry{}
	}
	return c, nil
}

func (c *contexts) save() error {
	path, err := contextsPath()
	if err != nil {
		return err
	}
	b, err := yaml.Marshal(c)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	tmp := path + ".new"
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

func (c *contexts) get(name string) (contextEntry, error) {
	e, ok := c.Contexts[name]
	if !ok {
		return e, status.Errorf(status.ObjectNotExists, "no context %q", name).WithHint("`v6d context ls` shows them")
	}
	return e, nil
}

func newContext(d *deps) *cobra.Command {
	c := &cobra.Command{
		Use:     "context",
		Short:   "Name the daemons that you use",
		GroupID: "more",
		Long: `A context says how to reach a daemon: a socket or a host:port, and a user. Flags and
variables go before it. Contexts are kept in $XDG_CONFIG_HOME/v6d/contexts.yaml.`,
		Example: `  v6d context add lab --host 10.0.0.7:9600
  v6d context use lab`,
	}
	c.AddCommand(newContextAdd(), newContextUse(), newContextLs(d), newContextRm(), newContextShow(d))
	return c
}

func newContextAdd() *cobra.Command {
	var passwordFile string
	var replace bool
	c := &cobra.Command{
		Use:   "add NAME",
		Short: "Add a context from --socket or -H, --username and --password-file",
		Example: `  v6d context add local --socket /tmp/v6d.sock
  v6d context add lab -H 10.0.0.7:9600 --username ann --password-file ~/.v6d-password`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			list, err := loadContexts()
			if err != nil {
				return err
			}
			if _, ok := list.Contexts[args[0]]; ok && !replace {
				return status.Errorf(status.ObjectExists, "context %q exists", args[0]).WithHint("use --replace to change it")
			}
			e := contextEntry{PasswordFile: passwordFile}
			e.Socket, _ = c.Flags().GetString("socket")
			if c.Flags().Changed("host") {
				e.Host, _ = c.Flags().GetString("host")
			}
			e.Username, _ = c.Flags().GetString("username")
			if (e.Socket == "") == (e.Host == "") {
				return usage("a context needs either --socket or -H")
			}
			list.Contexts[args[0]] = e
			return list.save()
		},
	}
	c.Flags().StringVar(&passwordFile, "password-file", "", "file that holds the password")
	c.Flags().BoolVar(&replace, "replace", false, "change a context that exists")
	return c
}

func newContextUse() *cobra.Command {
	return &cobra.Command{
		Use:   "use NAME",
		Short: "Make a context the current one; \"-\" for none",
		Example: `  v6d context use lab
  v6d context use -`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			list, err := loadContexts()
			if err != nil {
				return err
			}
			if list.Current = ""; args[0] != "-" {
				if _, err := list.get(args[0]); err != nil {
					return err
				}
				list.Current = args[0]
			}
			return list.save()
		},
	}
}

func newContextLs(d *deps) *cobra.Command {
	return &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List the contexts",
		Example: `  v6d context ls
  v6d context ls -o json`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			p, err := d.printer()
			if err != nil {
				return err
			}
			list, err := loadContexts()
			if err != nil {
				return err
			}
			type row struct {
				Name    string `json:"name"`
				Current bool   `json:"current"`
				contextEntry
			}
			rows := []row{}
			l := output.List{Columns: output.Columns("", "NAME", "SOCKET", "HOST", "USER")}
			for _, name := range slices.Sorted(maps.Keys(list.Contexts)) {
				e := list.Contexts[name]
				rows = append(rows, row{name, name == list.Current, e})
				mark := map[bool]string{true: "*"}[name == list.Current]
				l.IDs = append(l.IDs, name)
				l.Rows = append(l.Rows, kv(mark, name, e.Socket, e.Host, e.Username))
			}
			l.Items = rows
			return p.List(l)
		},
	}
}

func newContextRm() *cobra.Command {
	return &cobra.Command{
		Use:   "rm NAME...",
		Short: "Forget contexts",
		Example: `  v6d context rm lab
  v6d context rm a b`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			list, err := loadContexts()
			if err != nil {
				return err
			}
			err = each(args, func(name string) error {
				if _, err := list.get(name); err != nil {
					return err
				}
				delete(list.Contexts, name)
				if list.Current == name {
					list.Current = ""
				}
				return nil
			})
			return errors.Join(err, list.save())
		},
	}
}

func newContextShow(d *deps) *cobra.Command {
	return &cobra.Command{
		Use:   "show [NAME]",
		Short: "Show a context, by default the current one",
		Example: `  v6d context show
  v6d context show lab -o json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			p, err := d.printer()
			if err != nil {
				return err
			}
			list, err := loadContexts()
			if err != nil {
				return err
			}
			name := list.Current
			if len(args) == 1 {
				name = args[0]
			}
			e, err := list.get(name)
			if err != nil {
				return err
			}
			return p.Item(name, e, func(w io.Writer) error {
				return output.Fields(w, [2]string{"name", name}, [2]string{"socket", e.Socket}, [2]string{"host", e.Host},
					[2]string{"username", e.Username}, [2]string{"password-file", e.PasswordFile})
			})
		},
	}
}

func newConfig(d *deps) *cobra.Command {
	c := &cobra.Command{
		Use:     "config",
		Short:   "Show the settings in force and where they come from",
		GroupID: "more",
		Long:    `Settings come from flags, then variables, then the current context, then defaults.`,
		Example: `  v6d config view
  v6d config view --origin`,
	}
	var origin bool
	view := &cobra.Command{
		Use:   "view",
		Short: "Show how the daemon would be reached",
		Example: `  v6d config view
  v6d config view --origin -o json`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			p, err := d.printer()
			if err != nil {
				return err
			}
			settings, err := d.settings()
			if err != nil {
				return err
			}
			l := output.List{Columns: output.Columns("SETTING", "VALUE"), Items: settings}
			if origin {
				l.Columns = output.Columns("SETTING", "VALUE", "ORIGIN")
			}
			for _, s := range settings {
				l.IDs = append(l.IDs, s.Name)
				row := kv(s.Name, s.Value)
				if origin {
					row = kv(s.Name, s.Value, s.Origin)
				}
				l.Rows = append(l.Rows, row)
			}
			return p.List(l)
		},
	}
	view.Flags().BoolVar(&origin, "origin", false, "show where each value comes from")
	c.AddCommand(view)
	return c
}

// setting is one value and where it comes from.
type setting struct {
	Name   string `json:"name"`
	Value  string `json:"value"`
	Origin string `json:"origin"`
}

// settings decides how the daemon is reached: flag, variable, context, default.
func (d *deps) settings() ([]setting, error) {
	list, err := loadContexts()
	if err != nil {
		return nil, err
	}
	name, from := d.global.Context, "flag --context"
	if name == "" {
		name, from = os.Getenv("V6D_CONTEXT"), "variable V6D_CONTEXT"
	}
	if name == "" {
		name, from = list.Current, "v6d context use"
	}
	var e contextEntry
	if name != "" {
		if e, err = list.get(name); err != nil {
			return nil, err
		}
	} else {
		from = "default"
	}
	in := fmt.Sprintf("context %s", name)
	pick := func(setting_ string, candidates ...[2]string) setting {
		for _, c := range candidates {
			if c[0] != "" {
				return setting{setting_, c[0], c[1]}
			}
		}
		return setting{setting_, "", "default"}
	}
	socket := pick("socket", [2]string{d.global.Socket, "flag --socket"})
	host := pick("host", [2]string{d.global.Host, "flag --host"})
	switch {
	case socket.Value != "" || host.Value != "": // flags go first, whatever the variables say
	case os.Getenv("V6D_HOST") != "":
		host = setting{"host", os.Getenv("V6D_HOST"), "variable V6D_HOST"}
	case os.Getenv("V6D_SOCKET") != "":
		socket = setting{"socket", os.Getenv("V6D_SOCKET"), "variable V6D_SOCKET"}
	case os.Getenv("VINEYARD_IPC_SOCKET") != "" && name == "":
		socket = setting{"socket", os.Getenv("VINEYARD_IPC_SOCKET"), "variable VINEYARD_IPC_SOCKET"}
	default:
		socket, host = pick("socket", [2]string{e.Socket, in}), pick("host", [2]string{e.Host, in})
	}
	return []setting{
		{"context", name, from},
		socket,
		host,
		pick("username", [2]string{d.global.Username, "flag --username"}, [2]string{os.Getenv("V6D_USERNAME"), "variable V6D_USERNAME"}, [2]string{e.Username, in}),
		pick("password-file", [2]string{os.Getenv("V6D_PASSWORD_FILE"), "variable V6D_PASSWORD_FILE"}, [2]string{e.PasswordFile, in}),
	}, nil
}

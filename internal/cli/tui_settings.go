package cli

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/v6d-go/v6d/internal/tui"
)

// tuiSettings is the file that the browser reads, $XDG_CONFIG_HOME/v6d/tui.yaml.
type tuiSettings struct {
	Theme    string              `yaml:"theme"`
	View     string              `yaml:"view"`
	ReadOnly bool                `yaml:"readonly"`
	Mouse    bool                `yaml:"mouse"`
	Columns  map[string][]string `yaml:"columns"`
	Keys     map[string][]string `yaml:"keys"`
}

func tuiSettingsPath() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "v6d", "tui.yaml"), nil
}

// defaultTUI is what holds without a file.
func defaultTUI() tuiSettings { return tuiSettings{View: "objects", Mouse: true} }

// loadTUI reads the settings. What is wrong in the file it tells, and does without.
func loadTUI() (s tuiSettings, wrong []string) {
	s = defaultTUI()
	path, err := tuiSettingsPath()
	if err != nil {
		return s, nil // without a home there are none
	}
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return s, nil
	}
	if err == nil {
		dec := yaml.NewDecoder(bytes.NewReader(b))
		dec.KnownFields(true)
		err = dec.Decode(&s)
	}
	if _, ok := errors.AsType[*yaml.TypeError](err); ok {
		for line := range strings.Lines(err.Error()) {
			if line = strings.TrimSpace(line); strings.HasPrefix(line, "line ") {
				wrong = append(wrong, path+": "+strings.ReplaceAll(line, " in type cli.tuiSettings", ""))
			}
		}
		return s, wrong
	}
	if err != nil && !errors.Is(err, io.EOF) { // an empty file is no settings
		wrong = append(wrong, path+": "+strings.TrimPrefix(err.Error(), "yaml: "))
	}
	return s, wrong
}

// writeDefaultTUI prints a file of settings that changes nothing.
func writeDefaultTUI(w io.Writer) error {
	s := defaultTUI()
	s.Columns, s.Keys = tui.Columns(), tui.Keys()
	if _, err := io.WriteString(w, "# $XDG_CONFIG_HOME/v6d/tui.yaml: what is left out is as it is here.\n"+
		"# theme: "+strings.Join(tui.Themes(), ", ")+"; empty for what the terminal says\n"+
		"# view: "+strings.Join(tui.Views(), ", ")+"\n"); err != nil {
		return err
	}
	var doc yaml.Node
	if err := doc.Encode(s); err != nil {
		return err
	}
	oneLine(&doc)
	enc := yaml.NewEncoder(w)
	enc.SetIndent(2)
	return errors.Join(enc.Encode(&doc), enc.Close())
}

// oneLine writes each list on a line.
func oneLine(n *yaml.Node) {
	if n.Kind == yaml.SequenceNode {
		n.Style = yaml.FlowStyle
	}
	for _, c := range n.Content {
		oneLine(c)
	}
}

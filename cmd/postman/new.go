package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"postman/daemon"
)

type newCmd struct {
	Name    string   `arg:"" name:"rule" help:"The rule's name: one word."`
	Table   string   `help:"The table that the rule is about." placeholder:"TABLE" xor:"about"`
	On      []string `help:"Which operations: insert, update, delete." default:"insert" placeholder:"OP,…"`
	Message string   `help:"The message that the rule is about, instead of a table." placeholder:"NAME" xor:"about"`
	Dir     string   `help:"Folder with rules.yaml (or a folder rules) and templates, instead of the configured ones." placeholder:"DIR"`
	Schema  string   `help:"Take the tables from a file that postman schema wrote, without a database." placeholder:"FILE"`
}

// Run writes a rule, its template and its tests, for a person to edit.
func (n newCmd) Run(p *program) error {
	if n.Table == "" && n.Message == "" {
		return usageError{errors.New("say what the rule is about: --table=TABLE or --message=NAME")}
	}
	c, err := p.flags.resolve()
	if err != nil {
		return err
	}
	if n.Dir != "" {
		c.Rules, c.Templates = filepath.Join(n.Dir, "rules.yaml"), filepath.Join(n.Dir, "templates")
		if info, err := os.Stat(filepath.Join(n.Dir, "rules")); err == nil && info.IsDir() {
			c.Rules = filepath.Join(n.Dir, "rules")
		}
	}
	if strings.TrimSpace(n.Name) == "" {
		return usageError{errors.New("the rule needs a name")}
	}
	files, err := daemon.Draft(p.ctx, c, daemon.DraftOptions{Name: n.Name, Table: n.Table, Ops: n.On, Message: n.Message, Schema: n.Schema})
	if err != nil {
		return err
	}
	where := "" // the next commands look where this one did
	if n.Dir != "" {
		where = fmt.Sprintf(" --rules %s --templates %s", c.Rules, c.Templates)
	}
	_, err = fmt.Fprintf(p.stdout, "rule %s is in %s, its mail is %s\nedit both; then postman check%[4]s, and postman test%[4]s\n", n.Name, files[0], files[1], where)
	return err
}

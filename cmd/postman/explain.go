package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"

	"postman/authoring"
	"postman/daemon"
)

type explainCmd struct {
	ID      string   `arg:"" optional:"" help:"A message's id (17), or a match's (m17)."`
	Rule    string   `help:"Tell why this rule does, or does not, match a change." placeholder:"NAME"`
	Change  string   `help:"With --rule: a JSON file with the change, or - for the standard input (docs/explain.md)." placeholder:"FILE"`
	PK      []string `name:"pk" help:"With --rule: the change is of this row of the database, by its primary key." placeholder:"VALUE,…"`
	LSN     string   `name:"lsn" help:"With --rule: what was committed there, as the journal has it." placeholder:"LSN"`
	Op      string   `help:"With --pk: what happens to the row: insert, update or delete." placeholder:"OP"`
	Address string   `help:"With --pk: would the mail go there?" placeholder:"ADDRESS"`
	Schema  string   `help:"With --change: take the tables from a file that postman schema wrote, without a database." placeholder:"FILE"`
	Unmask  bool     `help:"Show addresses."`
	JSON    bool     `name:"json" help:"Print JSON (docs/explain.md)."`
}

// Run tells why a mail came, or why none does.
func (x explainCmd) Run(p *program) error {
	switch {
	case (x.ID == "") == (x.Rule == ""):
		return usageError{errors.New("name a message (17) or a match (m17); or a rule and a row, a change or an LSN: postman explain --rule NAME --pk 5, --change change.json or --lsn 16/B374D848")}
	case x.LSN != "" && (x.Rule == "" || x.Change != "" || x.PK != nil || x.Op != "" || x.Address != "" || x.Schema != ""):
		return usageError{errors.New("--lsn goes with --rule alone: postman explain --rule NAME --lsn 16/B374D848")}
	case x.LSN != "":
		return x.at(p)
	case x.Rule == "" && (x.Change != "" || x.PK != nil), x.Rule != "" && (x.Change == "") == (x.PK == nil):
		return usageError{errors.New("--rule goes with a row or with a change, or with an LSN: postman explain --rule NAME --pk 5, --change change.json or --lsn 16/B374D848")}
	case x.PK == nil && (x.Op != "" || x.Address != ""), x.Change == "" && x.Schema != "":
		return usageError{errors.New("--op and --address go with --pk, and --schema with --change")}
	case x.PK != nil:
		return x.row(p)
	case x.Rule != "":
		return x.why(p)
	}
	return x.id(p)
}

// id explains what the outbox has.
func (x explainCmd) id(p *program) error {
	sel, err := new(selectFlags).selection([]string{x.ID})
	if err != nil {
		return err
	}
	path := "/v1/explain/messages/" + x.ID
	if len(sel.Matches) > 0 {
		path = "/v1/explain/matches/" + x.ID[1:]
	}
	if x.Unmask {
		path += "?unmask=1"
	}
	var view daemon.ExplainView
	text, err := p.ask(http.MethodGet, path, nil, &view)
	if err != nil {
		return fmt.Errorf("explain %s: %w", x.ID, err)
	}
	if x.JSON {
		_, err = p.stdout.Write(text)
		return err
	}
	c, err := p.flags.resolve()
	if err != nil {
		return err
	}
	_, err = io.WriteString(p.stdout, explainText(painter(p.stdout), &view, templateFile(c, view.Template)))
	return err
}

// templateFile says which file of the live templates a mail was made from.
func templateFile(c daemon.Config, t daemon.TemplateView) string {
	if t.Hash == "" {
		return ""
	}
	file, err := daemon.TemplateFile(c, t)
	switch {
	case err != nil:
		return "the templates cannot be read here"
	case file == "":
		return "the files have changed since"
	}
	return file + ", as it is now"
}

// at tells why a rule does or does not match what was committed at a position.
func (x explainCmd) at(p *program) error {
	c, err := p.flags.resolve()
	if err != nil {
		return err
	}
	view, err := daemon.WhyAt(p.ctx, &c, daemon.WhyAtOptions{Rule: x.Rule, LSN: x.LSN, Unmask: x.Unmask})
	if err != nil {
		return err
	}
	return x.show(p, view, func() string { return whyAtText(painter(p.stdout), view) })
}

// show prints a view as JSON, or as a text for people.
func (x explainCmd) show(p *program, view any, text func() string) error {
	if x.JSON {
		e := json.NewEncoder(p.stdout)
		e.SetEscapeHTML(false) // expressions are read by people, too
		return e.Encode(view)
	}
	_, err := io.WriteString(p.stdout, text())
	return err
}

// why tells why a rule does or does not match a change that somebody wrote down.
func (x explainCmd) why(p *program) error {
	c, err := p.flags.resolve()
	if err != nil {
		return err
	}
	name, in := x.Change, io.Reader(os.Stdin)
	if name == "-" {
		name = "the standard input"
	} else {
		f, err := os.Open(name)
		if err != nil {
			return usageError{fmt.Errorf("reading the change: %w", err)}
		}
		defer f.Close() //nolint:errcheck // it was only read
		in = f
	}
	text, err := io.ReadAll(in)
	if err != nil {
		return fmt.Errorf("reading the change: %w", err)
	}
	return x.tell(p, c, authoring.WhyOptions{Rule: x.Rule, Name: name, Change: text, Schema: x.Schema, Unmask: x.Unmask})
}

// row tells why a rule does or does not match a row as it is, and who would get its mail.
func (x explainCmd) row(p *program) error {
	c, err := p.flags.resolve()
	if err != nil {
		return err
	}
	return x.tell(p, c, authoring.WhyOptions{Rule: x.Rule, PK: x.PK, Op: x.Op, Address: x.Address, Unmask: x.Unmask})
}

func (x explainCmd) tell(p *program, c daemon.Config, o authoring.WhyOptions) error {
	view, err := authoring.Why(p.ctx, &c, o)
	if err != nil {
		return err
	}
	return x.show(p, view, func() string { return whyText(painter(p.stdout), view) })
}

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"

	"postman/authoring"
)

type previewCmd struct {
	Rule    string   `arg:"" help:"The rule's name."`
	PK      []string `name:"pk" help:"The row, by its primary key (default: the newest that matches)." placeholder:"VALUE,…"`
	Op      string   `help:"What happens to the row: insert, update or delete (default: what the rule is on)." placeholder:"OP"`
	Message string   `help:"Of a rule on a message: its JSON (default: that of the rule's first test)." placeholder:"JSON"`
	To      string   `help:"The recipient whose mail is shown (default: the first)." placeholder:"ADDRESS"`
	HTML    string   `name:"html" help:"Write the mail's HTML to a file; - for stdout." placeholder:"FILE" xor:"as"`
	Text    bool     `help:"Print the mail's text part alone." xor:"as"`
	EML     string   `name:"eml" help:"Write the mail as the relay would get it; - for stdout." placeholder:"FILE" xor:"as"`
	Open    bool     `help:"Open the mail's HTML in the browser." xor:"as"`
	Unmask  bool     `help:"Show addresses."`
	JSON    bool     `name:"json" help:"Print JSON (docs/preview.md)." xor:"as"`
}

// Run shows the mail that a rule would send. It exits 1 where there is none.
func (v previewCmd) Run(p *program) error {
	c, err := p.flags.resolve()
	if err != nil {
		return err
	}
	view, err := authoring.Preview(p.ctx, &c, authoring.PreviewOptions{Rule: v.Rule, PK: v.PK, Op: v.Op, Message: v.Message, To: v.To, Unmask: v.Unmask})
	if err != nil {
		return err
	}
	mail := shownMail(view)
	switch {
	case v.JSON:
		e := json.NewEncoder(p.stdout)
		e.SetEscapeHTML(false) // people read it, too
		err = e.Encode(view)
	case mail == nil || !v.Text && !v.Open && v.HTML == "" && v.EML == "":
		_, err = io.WriteString(p.stdout, previewText(painter(p.stdout), view))
	case v.Text:
		_, err = io.WriteString(p.stdout, mail.Text)
	case v.Open:
		return v.open(p, mail)
	case v.HTML != "":
		err = p.put(v.HTML, []byte(mail.Page))
	default:
		err = p.put(v.EML, mail.Bytes)
	}
	if err == nil && mail == nil {
		return toldError{errors.New("there is no mail to show")}
	}
	return err
}

// shownMail is the first mail that would go out; nil: there is none.
func shownMail(v *authoring.PreviewView) *authoring.PreviewMail {
	for i := range v.Mails {
		if v.Mails[i].Error == "" {
			return &v.Mails[i]
		}
	}
	return nil
}

// put writes a file that only its owner reads: it holds a real person's mail.
func (p *program) put(path string, content []byte) error {
	if path == "-" {
		_, err := p.stdout.Write(content)
		return err
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		return fmt.Errorf("writing the mail: %w", err)
	}
	_, err := fmt.Fprintf(p.stdout, "the mail is in %s, with addresses and all\n", path)
	return err
}

// open shows the mail in the browser. The file stays, since the browser reads it when it likes.
func (v previewCmd) open(p *program, mail *authoring.PreviewMail) error {
	f, err := os.CreateTemp("", "postman-preview-*.html")
	if err != nil {
		return fmt.Errorf("writing the mail: %w", err)
	}
	_, err = f.WriteString(mail.Page)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("writing the mail: %w", err)
	}
	if _, err := fmt.Fprintf(p.stdout, "the mail is in %s, with addresses and all\n", f.Name()); err != nil {
		return err
	}
	if out, err := exec.CommandContext(p.ctx, "xdg-open", f.Name()).CombinedOutput(); err != nil {
		return fmt.Errorf("opening it with xdg-open: %w\n%s  → open the file by hand", err, out)
	}
	return nil
}

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// options are what the runs of postman differ in.
type options struct {
	relay string
	rule  string // the table that its rule watches
	more  int    // rules on the same table that no row matches
	// unlike gives each of these queries of its own, and a hundred of them a template.
	unlike          bool
	rules, template string // in the place of the usual ones
	second          string // a template called second
	lanes           int    // 0: the default
}

// postmanSide is the real command, postman run, with the settings that an operator would take: all default but for the addresses.
type postmanSide struct {
	bench *bench
	dir   string
	opts  options
}

const ruleFile = `rules:
  - name: booked
    about: Somebody booked a meeting.
    on: {table: %s, ops: [insert]}
    when: new.kind == "meeting"
    load:
      customer: select name, phone from customers where id = @new.customer_id
    to: {query: "select email, name from staff where id = @new.staff_id"}
    template: booked
    hold_over: {transaction: 1000000000, minute: 1000000000}
`

const template = `{{define "subject"}}change {{.new.id}}{{end}}
{{define "body"}}<p>Dear {{.to.name}},</p>
<p>{{.customer.name}} ({{.customer.phone}}) has a meeting at {{.new.starts_at}}.</p>
<p>{{.new.note}}</p>{{end}}
`

const moreRules = `  - name: more-%[1]d
    about: Somebody booked a meeting that never was.
    on: {table: %[2]s, ops: [insert]}
    when: op == "insert" and new.kind in ["viewing", "call"] and new.customer_id == %[1]d and new.starts_at > date("2026-01-01T00:00Z")
    load:
      customer: select name, phone from customers where id = @new.customer_id
    to: {query: "select email, name from staff where id = @new.staff_id"}
    template: booked
`

const unlikeRules = `  - name: more-%[1]d
    about: Somebody booked a meeting that never was.
    on: {table: %[2]s, ops: [insert]}
    when: op == "insert" and new.kind in ["viewing", "call"] and new.customer_id == %[1]d and new.starts_at > date("2026-01-01T00:00Z")
    load:
      customer: select name, phone from customers where id = @new.customer_id and id <> -%[1]d
    to: {query: "select email, name from staff where id = @new.staff_id and id <> -%[1]d"}
    template: %[3]s
`

// files writes what postman reads.
func (s *postmanSide) files() error {
	rules, body, config := fmt.Appendf(nil, ruleFile, s.opts.rule), template, "http: ''\n"
	if s.opts.rules != "" {
		rules, body = []byte(s.opts.rules), s.opts.template
	}
	if s.opts.lanes > 0 {
		config += fmt.Sprintf("smtp: {max_connections: %d}\n", s.opts.lanes)
	}
	templates := map[string]bool{"booked": true}
	for i := range s.opts.more {
		if !s.opts.unlike {
			rules = fmt.Appendf(rules, moreRules, i, s.opts.rule)
			continue
		}
		name := fmt.Sprint("booked_", i/100)
		rules, templates[name] = fmt.Appendf(rules, unlikeRules, i, s.opts.rule, name), true
	}
	errs := []error{
		os.MkdirAll(filepath.Join(s.dir, "templates"), 0o755),
		os.WriteFile(filepath.Join(s.dir, "rules.yaml"), rules, 0o644),
		os.WriteFile(filepath.Join(s.dir, "postman.yaml"), []byte(config), 0o644),
	}
	for name := range templates {
		errs = append(errs, os.WriteFile(filepath.Join(s.dir, "templates", name+".html"), []byte(body), 0o644))
	}
	if s.opts.second != "" {
		errs = append(errs, os.WriteFile(filepath.Join(s.dir, "templates", "second.html"), []byte(s.opts.second), 0o644))
	}
	return errors.Join(errs...)
}

func (s *postmanSide) name() string  { return "postman" }
func (s *postmanSide) slot() string  { return "postman" }
func (s *postmanSide) table() string { return s.opts.rule }
func (s *postmanSide) start(ctx context.Context) (*process, error) {
	return start(s.command(ctx, "run"))
}

func (s *postmanSide) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, s.bench.binary, args...)
	cmd.Dir = s.dir
	cmd.Env = []string{
		"DATABASE_URL=" + s.bench.database.url, "STORE_URL=sqlite:postman.db", "SMTP_URL=smtp://" + s.opts.relay,
		"POSTMAN_MODE=live", "POSTMAN_FROM=hello@example.com", "POSTMAN_SLOT=" + s.slot(),
	}
	return cmd
}

// fresh gives postman a new store, slot and publications.
func (s *postmanSide) fresh(ctx context.Context) error {
	if err := os.RemoveAll(s.dir); err != nil {
		return err
	}
	if err := s.files(); err != nil {
		return err
	}
	if err := s.bench.database.forget(ctx, s.slot()); err != nil {
		return err
	}
	if out, err := s.command(ctx, "setup").CombinedOutput(); err != nil {
		return fmt.Errorf("postman setup: %w\n%s", err, out)
	}
	// A rule that is broken decides nothing, and would cost nothing.
	if out, err := s.command(ctx, "check").CombinedOutput(); err != nil {
		return fmt.Errorf("postman check: %w\n%.2000s", err, out)
	}
	return nil
}

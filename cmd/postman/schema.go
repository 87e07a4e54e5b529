package main

import (
	"errors"

	"postman/daemon"
)

type schemaCmd struct {
	Editor bool   `help:"Write a JSON Schema of rule files instead, for editors to complete and check them with."`
	Schema string `help:"With --editor: take the tables from a file that postman schema wrote, without a database." placeholder:"FILE"`
}

// Run writes the tables of the database as rules see them, or the JSON Schema that editors know rule files by.
func (s schemaCmd) Run(p *program) error {
	c, err := p.flags.resolve()
	if err != nil {
		return err
	}
	text, err := s.text(p, c)
	if err != nil {
		return err
	}
	_, err = p.stdout.Write(text)
	return err
}

func (s schemaCmd) text(p *program, c daemon.Config) ([]byte, error) {
	switch {
	case s.Editor:
		return daemon.EditorSchema(p.ctx, c, s.Schema)
	case s.Schema != "":
		return nil, usageError{errors.New("--schema goes with --editor\n  → postman schema > schema.json writes it")}
	}
	catalog, err := daemon.Schema(p.ctx, c)
	if err != nil {
		return nil, err
	}
	return catalog.Schema(), nil
}

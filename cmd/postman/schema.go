package main

import "postman/daemon"

type schemaCmd struct {
	Editor bool `help:"Write a JSON Schema of rule files instead, for editors to complete and check them with."`
}

// Run writes the tables of the database as rules see them, or the JSON Schema that editors know rules by.
func (s schemaCmd) Run(p *program) error {
	c, err := p.flags.resolve()
	if err != nil {
		return err
	}
	catalog, err := daemon.Schema(p.ctx, c)
	if err != nil {
		return err
	}
	text := catalog.Schema()
	_, err = p.stdout.Write(text)
	return err
}

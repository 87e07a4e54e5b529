package rules

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/url"
	"strings"

	"github.com/jackc/pgx/v5/pgtype"

	"postman/cdc"
)

// object is a JSON object.
type object = map[string]any

// EditorSchema describes rule files of this database as a JSON Schema (draft-07, which the YAML language server knows), for
// editors to complete keys, tables, columns, labels and templates with. It knows the form of rules, and neither expressions
// nor SQL: what it accepts, [Read] and [Compile] may still refuse.
func EditorSchema(c *cdc.Catalog, templates []string) []byte {
	schema := object{
		"$schema":     "http://json-schema.org/draft-07/schema#",
		"title":       "postman rules",
		"description": "When something happens in the database, tell these people with this mail. docs/rules.md explains every key.",
		"type":        "object", "additionalProperties": false, "required": []string{"rules"},
		"properties": object{
			"sensitive": described("Columns and message keys that stay out of journal, logs and dashboard, and are erased once a mail is done.",
				object{"type": "array", "items": sensitiveForm(c)}),
			"rules": described("The rules.", object{"type": "array", "items": object{"$ref": "#/definitions/rule"}}),
		},
		"definitions": definitions(c, templates),
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(schema); err != nil { // maps, lists, strings and numbers always marshal
		panic(err)
	}
	return b.Bytes()
}

func described(text string, form object) object {
	form = maps.Clone(form)
	form["description"] = text
	return form
}

// ref points to a definition: a JSON Pointer (RFC 6901) in the fragment of a URI.
func ref(name string) object {
	return object{"$ref": "#/definitions/" + url.PathEscape(strings.NewReplacer("~", "~0", "/", "~1").Replace(name))}
}

func definitions(c *cdc.Catalog, templates []string) object {
	keys := make(object, len(ruleKeys))
	forms := keyForms(c, templates)
	for _, k := range ruleKeys {
		keys[k.name] = forms[k.name]
	}
	rule := object{
		"type": "object", "additionalProperties": false, "required": []string{"name", "on", "to", "template"}, "properties": keys,
	}
	all := object{
		"rule":       rule,
		"text":       object{"type": []string{"string", "number", "boolean"}, "pattern": `\S`},
		"expression": object{"type": []string{"string", "boolean"}, "pattern": `\S`, "maxLength": maxExpr},
		"query":      object{"type": "string", "pattern": `^[\s(]*([Ss][Ee][Ll][Ee][Cc][Tt]|[Ww][Ii][Tt][Hh]|[Vv][Aa][Ll][Uu][Ee][Ss]|[Tt][Aa][Bb][Ll][Ee]|--|/\*)`},
		"address":    object{"type": "string", "pattern": `^[^\r\n]*@[^\r\n]*$`},
		"duration":   object{"type": "string", "pattern": `^([0-9]+[wdhms])+$`},
		"source":     sourceForm(),
		"sources":    object{"anyOf": []any{ref("source"), object{"type": "array", "minItems": 1, "items": ref("source")}}},
		"sender":     senderForm(),
		"row":        object{"type": "object", "additionalProperties": object{"type": []string{"string", "number", "boolean", "null"}}},
	}
	var perTable []any
	for _, name := range c.Names {
		if t := c.Tables[name]; t != nil {
			all["row "+name.String()] = rowForm(t)
			perTable = append(perTable, testsOf(name.String()))
		}
	}
	if len(perTable) > 0 {
		rule["allOf"] = perTable
	}
	return all
}

// keyForms are the form and meaning of each key of a rule.
func keyForms(c *cdc.Catalog, templates []string) map[string]object {
	text, expression, sources := ref("text"), ref("expression"), ref("sources")
	words := func(words ...string) object { return object{"enum": words} }
	return map[string]object{
		"name":  both("One word, unique: logs and commands call the rule so.", text, object{"pattern": goodName.String()}),
		"about": both("A sentence that tells the reader why the mail came.", text),
		"was":   both("The former name, after a rename: the rule stays the same one to the outbox.", text),
		"on":    described("What the rule is about: changes of a table, or a message of the application.", onForm(c)),
		"when":  both(`Which changes: an expression such as new.status == "won" and changed(new.status). Without it, every one.`, expression),
		"load": described("Rows for the template, by name: the first row, or with [] behind the name all rows. @new.column is a parameter.",
			object{"type": "object", "additionalProperties": false, "patternProperties": object{`^[a-zA-Z_][a-zA-Z0-9_]*(\[\])?$`: ref("query")}}),
		"to":       both("Who gets the mail: a query, an address, an expression, or a list of these.", sources),
		"cc":       both("Who gets a copy of the first mail of a match.", sources),
		"from":     both("The sender, instead of the configured one.", ref("sender")),
		"reply_to": both("Where answers go.", ref("sender")),
		"template": described("The mail: templates/NAME.html.", object{"anyOf": []any{object{"enum": listed(templates)}, object{"type": "string", "pattern": "^[A-Za-z0-9_-]+$"}}}),
		"locale":   both("The language of those who have none of their own: ko, en-GB.", text, object{"pattern": "^[A-Za-z]{2,8}([-_][A-Za-z0-9]{1,8})*$"}),
		"timezone": both("The time zone of those who have none of their own, and of days and clock times in when: Asia/Seoul.", text),
		"class":    described("transactional: somebody waits for it, no consent is asked. notice is the default.", words(string(Notice), string(Transactional))),
		"priority": described("high never waits behind the others.", words(string(Normal), string(High), string(Bulk))),
		"relay":    both("The relay that its mails take, of relays in postman.yaml. Without it, the one that comes first.", text),
		"expires":  both("How long after the commit the mail still makes sense: 15m, 2d. After that it is dropped.", ref("duration")),
		"thread": described("By what its mails stand together in a mail program: the row's primary key (pk), or the values of a list of expressions.", object{"anyOf": []any{
			object{"const": "pk"},
			object{"type": "array", "minItems": 1, "items": object{"allOf": []any{expression, object{"not": object{"const": "pk"}}}}},
		}}),
		"uncertain": described("What happens to a mail of which nobody knows whether it arrived: it goes out again (resend), or waits for an operator (hold).",
			words("resend", "hold")),
		"hold_over": described("How many matches pass before an operator has to release the rest.", object{
			"type": "object", "additionalProperties": false,
			"properties": object{"transaction": atLeastOne(), "minute": atLeastOne(), "tick": atLeastOne(), "row": atLeastOne()},
		}),
		"max_recipients": described("A match with more recipients is held.", atLeastOne()),
		"tests":          described("What you expect of the rule, beside it: a change, and what becomes of it.", testsForm()),
	}
}

// both puts a meaning and more conditions beside a reference, which draft-07 would else not look at.
func both(text string, forms ...object) object {
	return object{"description": text, "allOf": forms}
}

func atLeastOne() object { return object{"type": "integer", "minimum": 1, "maximum": 1_000_000_000} }

// listed is a list that is never null.
func listed(words []string) []string { return append([]string{}, words...) }

func onForm(c *cdc.Catalog) object {
	tables := make([]string, 0, len(c.Names))
	for _, n := range c.Names {
		tables = append(tables, n.String())
	}
	return object{
		"type": "object", "additionalProperties": false,
		"properties": object{
			"table": described("The table; schema.table outside of public.", object{"anyOf": []any{object{"enum": tables}, object{"pattern": `^public\.`}}}),
			"ops": described("Which operations.", object{
				"type": "array", "minItems": 1, "uniqueItems": true, "items": object{"enum": opNames(rowOps)},
			}),
			"message": described("The message's name: pg_logical_emit_message(true, 'postman.NAME', '{…}').", object{
				"type": "string", "pattern": goodMessage.String(), "not": object{"anyOf": []any{object{"pattern": `^postman\.`}, object{"enum": []string{"mute"}}}},
			}),
		},
		"oneOf": []any{
			object{"required": []string{"table", "ops"}},
			object{"required": []string{"message"}, "not": object{"anyOf": []any{object{"required": []string{"table"}}, object{"required": []string{"ops"}}}}},
		},
	}
}

func sensitiveForm(c *cdc.Catalog) object {
	names := []string{}
	for _, name := range c.Names {
		if t := c.Tables[name]; t != nil {
			for i := range t.Columns {
				names = append(names, name.String()+"."+t.Columns[i].Name)
			}
		}
	}
	return object{"anyOf": []any{object{"enum": names}, object{"pattern": `^(public\.[^.]+|message\..+)\.[^.]+$`}}}
}

func sourceForm() object {
	return object{"anyOf": []any{
		object{"type": "object", "additionalProperties": false, "required": []string{"query"}, "properties": object{
			"query": both("One mail a row; the columns email, name, locale and timezone have a meaning.", ref("query")),
		}},
		object{"type": "object", "additionalProperties": false, "required": []string{"address"}, "properties": object{
			"address": both("One fixed address: sales@example.com.", ref("address")),
		}},
		object{
			"type": "string", "pattern": `\S`, "not": object{"pattern": `^[^\s"'(]+@[^\s@]+$`}, // an address, which is no expression
			"description": "An expression that gives an address or a list of them: message.email, new.email.",
		},
	}}
}

func senderForm() object {
	return object{"anyOf": []any{
		object{"type": "object", "additionalProperties": false, "required": []string{"address"}, "properties": object{"address": ref("address")}},
		object{"type": "string", "pattern": `\S`},
	}}
}

// rowForm is a row of a table in a test.
func rowForm(t *cdc.Table) object {
	columns := make(object, len(t.Columns))
	for i := range t.Columns {
		columns[t.Columns[i].Name] = columnForm(&t.Columns[i])
	}
	return object{"type": "object", "additionalProperties": false, "properties": columns}
}

func columnForm(c *cdc.Column) object {
	what := c.Type.Name
	if c.NotNull {
		what += ", never NULL"
	}
	form := object{"type": []string{"string", "number", "boolean", "null"}, "description": what}
	switch {
	case len(c.Enum) > 0:
		labels := make([]any, 0, len(c.Enum)+1)
		for _, l := range c.Enum {
			labels = append(labels, l)
		}
		return object{"enum": append(labels, nil), "description": what}
	case c.Type.Base == pgtype.BoolOID:
		form["enum"] = []any{true, false, nil, "t", "f"}
	}
	return form
}

// changeForms are the changes of a row that a step of a test can have, the row of a definition's form.
func changeForms(row string) object {
	return object{
		"insert": described("A row that is added.", ref(row)),
		"update": described("A row that is changed: {old: {…}, new: {…}}.", object{
			"type": "object", "additionalProperties": false, "required": []string{"new"}, "properties": object{"new": ref(row), "old": ref(row)},
		}),
		"delete": described("A row that is deleted.", ref(row)),
	}
}

// stepForms are all that a step of a test can say.
func stepForms() object {
	texts := object{"anyOf": []any{ref("text"), object{"type": "array", "items": ref("text")}}}
	recipients := object{"type": "array", "items": object{"allOf": []any{ref("row"), object{"required": []string{"email"}}}}}
	content := object{
		"subject":  described("What the subject contains.", texts),
		"body":     described("What the mail contains.", texts),
		"not_body": described("What the mail does not contain.", texts),
		"locale":   both("The language of the mail.", ref("text")),
	}
	one := object{"to": described("Whose mail it is.", ref("text"))}
	maps.Copy(one, content)
	forms := changeForms("row")
	maps.Copy(forms, content)
	maps.Copy(forms, object{
		"truncate": described("All rows are gone: {}.", object{"type": "object", "maxProperties": 0}),
		"message":  described("What the message holds.", object{"type": "object"}),
		"at":       both("When it is: 2026-01-31T09:00:00+09:00.", ref("text")),
		"after":    both("How long after the step before: 15m.", ref("duration")),
		"match":    described("Whether the rule matches.", object{"type": "boolean"}),
		"given": described("Answers to the rule's queries, so that no database is asked.", object{
			"type": "object", "additionalProperties": false, "properties": object{"to": recipients, "cc": recipients, "load": object{"type": "object"}},
		}),
		"to":   described("Exactly these get a mail.", texts),
		"cc":   described("Exactly these get a copy.", texts),
		"mail": described("none: nobody gets a mail.", object{"enum": []string{"none"}}),
		"mails": described("What is expected of the mail to one address.", object{
			"type": "array", "minItems": 1, "items": object{"type": "object", "additionalProperties": false, "required": []string{"to"}, "properties": one},
		}),
	})
	return forms
}

// testsForm is a rule's tests: each a step, or a list of steps.
func testsForm() object {
	test := stepForms()
	test["name"] = both("What the test is about.", ref("text"))
	test["steps"] = described("One after the other.", object{
		"type": "array", "minItems": 1, "items": object{"type": "object", "additionalProperties": false, "properties": stepForms()},
	})
	return object{"type": "array", "items": object{"type": "object", "additionalProperties": false, "properties": test}}
}

// testsOf has the tests of rules on a table know its columns.
func testsOf(table string) object {
	on := object{"required": []string{"on"}, "properties": object{"on": object{
		"required": []string{"table"}, "properties": object{"table": object{"const": table}},
	}}}
	change := changeForms("row " + table)
	test := maps.Clone(change)
	test["steps"] = object{"items": object{"properties": change}}
	return object{"if": on, "then": object{"properties": object{"tests": object{"items": object{"properties": test}}}}}
}

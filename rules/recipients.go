package rules

import (
	"fmt"
	"net/mail"
	"regexp"
	"strings"

	"gopkg.in/yaml.v3"
)

// recipients reads one source of recipients, or a list of them.
func (r *reader) recipients(n *yaml.Node) []Recipients {
	nodes := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode && !r.trapped[n] {
		if nodes = n.Content; len(nodes) == 0 {
			r.fail(n, "PM008", "the list is empty", "name at least one source of recipients")
		}
	}
	var all []Recipients
	for _, n := range nodes {
		if one, ok := r.recipient(n); ok {
			all = append(all, one)
		}
	}
	return all
}

const recipientForms = "{query: …}, {address: …} or an expression"

func (r *reader) recipient(n *yaml.Node) (Recipients, bool) {
	if n.Kind == yaml.ScalarNode {
		return r.recipientExpr(n)
	}
	parts, whole := r.mapping(n, recipientForms, "query", "address")
	query, isQuery := parts["query"]
	address, isAddress := parts["address"]
	switch {
	case isQuery && isAddress:
		r.fail(n, "PM014", "a source of recipients has a query or an address, not both", "make it a list of two")
	case isQuery:
		sql := r.sql(query)
		return Recipients{Query: sql}, sql != nil
	case isAddress:
		a, ok := r.address(address)
		return Recipients{Address: a}, ok
	case whole:
		r.fail(n, "PM008", "this must be "+recipientForms+", and is empty", "")
	}
	return Recipients{}, false
}

func (r *reader) recipientExpr(n *yaml.Node) (Recipients, bool) {
	if n.Value == "row" && !r.trapped[n] {
		r.fail(n, "PM006", "to: row belongs to scheduled rules, which this version of postman does not have yet", laterHint)
		return Recipients{}, false
	}
	if _, err := mail.ParseAddress(n.Value); err == nil && !r.trapped[n] {
		r.fail(n, "PM014", n.Value+" stands where an expression is expected", "write {address: "+n.Value+"}")
		return Recipients{}, false
	}
	if asksSQL.MatchString(n.Value) && !r.trapped[n] {
		r.fail(n, "PM014", "a query stands where an expression is expected", `write {query: "select …"}, or query: | in the next line and the query below it`)
		return Recipients{}, false
	}
	e := r.expr(n, recipientForms)
	return Recipients{Expr: e}, e != nil
}

var (
	asksSQL = regexp.MustCompile(`(?i)^\s*(?:select|with|values)\s`)
	rowName = regexp.MustCompile(`^@?((?:new|old|message)\.[\pL_][\pL\pN_.]*)$`)
)

func (r *reader) address(n *yaml.Node) (string, bool) {
	if n.Kind == yaml.SequenceNode && !r.trapped[n] {
		r.fail(n, "PM008", "this must be an address, and is a list", "write a list of recipients: [{address: a@example.com}, {address: b@example.com}]")
		return "", false
	}
	if m := rowName.FindStringSubmatch(n.Value); m != nil && !r.trapped[n] {
		r.fail(n, "PM014", n.Value+" is no mail address", "what comes from the change is an expression: write "+m[1]+" without {address: }")
		return "", false
	}
	a, ok := r.scalar(n, "an address")
	if !ok {
		return "", false
	}
	if _, err := mail.ParseAddress(a); err != nil || strings.ContainsAny(a, "\r\n") {
		r.fail(n, "PM014", fmt.Sprintf("%q is no mail address", a), "an address is like sales@example.com, or Sales <sales@example.com>; what comes from the change is written as an expression")
		return "", false
	}
	return a, true
}

// sender reads from or reply_to.
func (r *reader) sender(n *yaml.Node) *Recipients {
	if n.Kind == yaml.MappingNode && !r.trapped[n] {
		if _, whole := r.mapping(n, "{address: …} or an expression", "address"); !whole {
			return nil
		}
	}
	one, ok := r.recipient(n)
	if !ok {
		return nil
	}
	return &one
}

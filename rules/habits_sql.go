package rules

import (
	"cmp"
	"regexp"
	"slices"
	"strings"
)

// sqlHabits follows a query's words, to find what is written by habit: of another tool, or of another part of a rule.
type sqlHabits struct {
	prev     string   // the last word or sign, in small letters
	last     int      // the place of a name that it was, counted from 1; 0: it was none
	known    int      // places of names so far
	clause   string   // the word that began the part of the query that is being read
	outer    []string // the clauses around each bracket that is open
	square   int      // square brackets that are open
	rows     []problem
	ownNames bool      // the query gives the name new or old itself
	lately   [4]string // words and signs, the last one last
	notAt    int       // where the last not stands, in characters
	excluded []exclusion
}

// exclusion is a `not in (select column from table …)`.
type exclusion struct {
	at            int // where its not stands, in characters
	depth         int // brackets that are open inside of it
	words         []string
	table, column string // as they are written; empty: that is not so plain
}

var sqlClauses = []string{"select", "from", "join", "where", "on", "having", "group", "order", "limit", "values", "returning"}

// look takes in what was read from start: a word, a literal, an operator with the name that follows it, or a sign.
func (p *sqlParser) look(start int) {
	token := strings.ToLower(p.src[start:p.pos])
	switch {
	case strings.TrimSpace(token) == "" || strings.HasPrefix(token, "--") || strings.HasPrefix(token, "/*"):
		return
	case token[0] == '\'' || token[0] == '$' && len(token) > 1:
		p.lookLiteral(start)
	case token == `"new"` || token == `"old"`:
		p.ownNames = true
	case letter(token):
		p.lookWord(start, token)
	case operator(token[0]):
		p.lookOperator(token)
		return
	default:
		p.lookSign(start, token)
	}
	p.prev, p.last = token, 0
	p.exclude(start, token)
}

// exclude follows what stands in a not in. Inside of an `is not null` or a coalesce somebody has thought of NULL.
func (p *sqlParser) exclude(start int, token string) {
	if n := len(p.excluded) - 1; n >= 0 && len(p.outer) >= p.excluded[n].depth && token != ")" {
		p.excluded[n].words = append(p.excluded[n].words, p.src[start:p.pos])
	} else if n >= 0 && len(p.outer) < p.excluded[n].depth {
		p.sql.exclusions = append(p.sql.exclusions, p.excluded[n].read()...)
		p.excluded = p.excluded[:n]
	}
	copy(p.lately[:], p.lately[1:])
	p.lately[len(p.lately)-1] = token
	if p.lately == excluding {
		p.excluded = append(p.excluded, exclusion{at: p.notAt, depth: len(p.outer)})
	}
	if token == "not" {
		p.notAt = p.runes(start)
	}
}

// read tells the column and the table, where these are plain names and NULL was not thought of.
func (e exclusion) read() []exclusion {
	text := strings.ToLower(strings.Join(e.words, " "))
	m := plainSelect.FindStringSubmatch(strings.Join(e.words, " "))
	if m == nil || strings.Contains(text, "is not null") || strings.Contains(text, "coalesce") {
		return nil
	}
	e.column, e.table = m[1], strings.ReplaceAll(m[2], " ", "")
	return []exclusion{e}
}

// excluding is how a list begins that leaves rows out.
var excluding = [4]string{"not", "in", "(", "select"}

var plainSelect = regexp.MustCompile(`(?i)^(?:distinct )?(?:[\pL_][\pL\pN_]* \. )?([\pL_][\pL\pN_]*|"[^"]+") from ((?:[\pL_][\pL\pN_]*|"[^"]+")(?: \. (?:[\pL_][\pL\pN_]*|"[^"]+"))?)(?: |$)`)

// lookSign follows brackets, and finds :name and {{name}}.
func (p *sqlParser) lookSign(start int, token string) {
	rest := p.src[p.pos:]
	switch token {
	case "(":
		p.outer = append(p.outer, p.clause)
	case ")":
		if n := len(p.outer) - 1; n >= 0 {
			p.clause, p.outer = p.outer[n], p.outer[:n]
		}
	case "[":
		p.square++
	case "]":
		p.square--
	case ":":
		if p.prev != ":" && p.square == 0 && rest != "" && letter(rest) {
			p.fail(start, "PM304", "a : before a name means nothing here", "write @new."+wordAhead.FindString(rest)+" for a column of the changed row")
		}
	case "{":
		if strings.HasPrefix(rest, "{") || strings.HasPrefix(rest, "%") {
			p.fail(start, "PM304", "{"+rest[:1]+" belongs to templates: a query is never put together from text", "write @new.column, which is a parameter")
		}
	}
}

// lookWord finds new.column without its @, and the NULL that nothing equals.
func (p *sqlParser) lookWord(start int, word string) {
	followed := strings.HasPrefix(p.src[p.pos:], ".")
	switch {
	case slices.Contains(sqlClauses, word):
		p.clause = word
	case (word == "new" || word == "old") && p.prev != ".":
		if !followed {
			p.ownNames = true
		} else if p.clause != "from" && p.clause != "join" {
			p.rows = append(p.rows, problem{p.runes(start), "PM310", "a query knows no table " + word, "the changed row's columns are parameters: write @" + word + "." + cmp.Or(wordAhead.FindString(p.src[p.pos+1:]), "column")})
		}
	case word == "null" && slices.Contains(unequal, p.prev):
		p.sql.notes = append(p.sql.notes, problem{p.runes(start), "PM209", "nothing is " + p.prev + " null in SQL: no row passes", "write is null, or is not null"})
	}
}

var wordAhead = regexp.MustCompile(`^(?:[\pL_][\pL\pN_]*|"[^"]+")`)

var unequal = []string{"=", "<>", "!="}

// lookOperator notes which parameters are compared with <> or !=.
func (p *sqlParser) lookOperator(token string) {
	if len(p.sql.params) == p.known {
		if p.last > 0 && (token == "<>" || token == "!=") {
			p.sql.params[p.last-1].unequal = true
		}
		p.prev, p.last = token, 0
		return
	}
	p.known = len(p.sql.params)
	run, _, _ := strings.Cut(token, "@")
	if run = cmp.Or(run, p.prev); run == "<>" || run == "!=" {
		p.sql.params[p.known-1].unequal = true
	}
	p.prev, p.last = token, p.known
}

var quotedName = regexp.MustCompile(`(?:^|[^\w.@])@(?:new|old|message|to)\.["\pL_]`)

// lookLiteral finds names that quotes make text of.
func (p *sqlParser) lookLiteral(start int) {
	if at := quotedName.FindStringIndex(p.src[start:p.pos]); at != nil {
		at := start + at[0] + strings.IndexByte(p.src[start+at[0]:], '@')
		p.sql.notes = append(p.sql.notes, problem{
			p.runes(at), "PM208", "in quotes this is text, and no value of the change",
			"leave the quotes out: a parameter needs none; to join texts write 'x' || @new.column",
		})
	}
}

// unmarked reports new.column where the query has no table of that name.
func (p *sqlParser) unmarked() {
	if !p.ownNames {
		p.problems = append(p.problems, p.rows...)
	}
}

package rules

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// scopes are what a query's names can begin with. The first four take a column or key behind a dot.
var scopes = []string{"new", "old", "message", "to", "row", "tick", "last_tick"}

// problem is a mistake in a text, at an offset counted in characters.
type problem struct {
	offset        int
	id            ID
	message, hint string
}

// parseSQL finds the names of a query (@new.customer_id) and puts $1, $2 … in their places. It knows what in a query
// is no name: literals, quoted names, comments and operators, as Postgres' own scanner reads them ("Lexical Structure"
// in the Postgres documentation).
func parseSQL(t text) (*SQL, []problem) {
	p := &sqlParser{src: t.value, sql: &SQL{text: t, sqlSource: new(sqlSource)}}
	for start := -1; p.pos < len(p.src) && p.pos > start; { // a mistake from where on nothing can be read stops it
		start = p.pos
		p.token()
		p.look(start)
	}
	p.finish()
	if len(p.problems) > 0 {
		return nil, p.problems
	}
	return p.sql, nil
}

type sqlParser struct {
	src      string
	pos      int
	copied   int // up to where src stands in out
	out      strings.Builder
	sql      *SQL
	first    string // the first word
	end      int    // where a semicolon ended the query; 0: nowhere
	problems []problem
	sqlHabits
}

// runes is how many characters stand before a byte offset of the source.
func (p *sqlParser) runes(at int) int { return utf8.RuneCountInString(p.src[:at]) }

// fail reports a mistake at a byte offset.
func (p *sqlParser) fail(at int, id ID, message, hint string) {
	p.problems = append(p.problems, problem{p.runes(at), id, message, hint})
}

// token reads one token, or a stretch of white space.
func (p *sqlParser) token() {
	start, rest := p.pos, p.src[p.pos:]
	switch c := rest[0]; {
	case strings.HasPrefix(rest, "--"):
		p.to(strings.IndexAny(rest, "\r\n"))
		p.unfolded(start)
		return
	case strings.HasPrefix(rest, "/*"):
		p.comment()
		return
	case strings.IndexByte(" \t\r\n\f\v", c) >= 0:
		p.pos++
		return
	case p.end > 0:
		p.fail(start, "PM301", "the query is followed by another statement", "keep one query; a ; may only end it")
	case c == ';':
		p.pos++
		p.end = p.pos
		return
	case c == '\'':
		p.str(false)
	case c == '"':
		p.quoted()
	case c == '$':
		p.dollar()
	case letter(rest):
		p.word()
	case operator(c):
		p.operator()
	default:
		p.pos++ // digits, brackets, commas and dots
	}
	if p.first == "" && rest[0] != '(' && p.pos > start {
		p.first = strings.ToLower(p.src[start:p.pos])
	}
}

// to moves n bytes on, to the end when n is negative.
func (p *sqlParser) to(n int) {
	if n < 0 {
		n = len(p.src) - p.pos
	}
	p.pos += n
}

// unfolded checks a comment that goes to the end of its line.
func (p *sqlParser) unfolded(start int) {
	from := utf8.RuneCountInString(p.src[:start])
	if swallows(p.sql.text, from, from+utf8.RuneCountInString(p.src[start:p.pos])) {
		p.fail(start, "PM011", swallowed, swallowedHint)
	}
}

// comment skips a comment; comments nest.
func (p *sqlParser) comment() {
	start, depth := p.pos, 0
	for p.pos < len(p.src) {
		switch rest := p.src[p.pos:]; {
		case strings.HasPrefix(rest, "/*"):
			depth++
			p.pos += 2
		case strings.HasPrefix(rest, "*/"):
			depth--
			p.pos += 2
		default:
			p.pos++
		}
		if depth == 0 {
			return
		}
	}
	p.fail(start, "PM302", "the comment is not closed", "add */")
}

// str skips a string. A doubled quote is a quote; in an E” string a backslash escapes what follows. Strings with only
// a line end between them are one (and an E” string stays one).
func (p *sqlParser) str(escapes bool) {
	start := p.pos
	for p.pos++; p.pos < len(p.src); p.pos++ {
		switch c := p.src[p.pos]; {
		case c == '\\' && escapes:
			p.pos++
		case c == '\'' && strings.HasPrefix(p.src[p.pos+1:], "'"):
			p.pos++
		case c == '\'':
			p.pos++
			p.continued(escapes)
			return
		}
	}
	p.pos = len(p.src)
	p.fail(start, "PM302", "the text is not closed", "add the quote that closes it, or double a quote inside of it")
}

func (p *sqlParser) continued(escapes bool) {
	rest := p.src[p.pos:]
	next := strings.TrimLeft(rest, " \t\r\n\f\v")
	space := rest[:len(rest)-len(next)]
	if strings.ContainsAny(space, "\r\n") && strings.HasPrefix(next, "'") {
		p.pos += len(space)
		p.str(escapes)
	}
}

// quoted skips a quoted name and returns it.
func (p *sqlParser) quoted() string {
	start := p.pos
	for p.pos++; p.pos < len(p.src); p.pos++ {
		if p.src[p.pos] != '"' {
			continue
		}
		if !strings.HasPrefix(p.src[p.pos+1:], `"`) {
			p.pos++
			return strings.ReplaceAll(p.src[start+1:p.pos-1], `""`, `"`)
		}
		p.pos++
	}
	p.fail(start, "PM302", "the quoted name is not closed", `add the " that closes it`)
	return ""
}

// dollar skips a $$string$$ or $tag$string$tag$; a $1 is a mistake.
func (p *sqlParser) dollar() {
	rest := p.src[p.pos:]
	tag := 1
	for tag < len(rest) && (letter(rest[tag:]) || tag > 1 && digit(rest[tag])) {
		_, n := utf8.DecodeRuneInString(rest[tag:])
		tag += n
	}
	switch {
	case tag < len(rest) && rest[tag] == '$':
		mark := rest[:tag+1]
		end := strings.Index(rest[len(mark):], mark)
		if end < 0 {
			p.fail(p.pos, "PM302", "the text is not closed", "add "+mark)
		}
		p.to(map[bool]int{true: -1, false: end + 2*len(mark)}[end < 0])
	case len(rest) > 1 && digit(rest[1]):
		p.fail(p.pos, "PM304", "numbered parameters are postman's to give", "write the name: @new.column")
	default:
		p.pos++
	}
}

// word skips a keyword or name, and the string that an E belongs to.
func (p *sqlParser) word() {
	if name := p.name(); strings.EqualFold(name, "e") && strings.HasPrefix(p.src[p.pos:], "'") {
		p.str(true)
	}
}

// name reads letters, digits, underscores and dollars.
func (p *sqlParser) name() string {
	start := p.pos
	for p.pos < len(p.src) {
		rest := p.src[p.pos:]
		if !letter(rest) && !digit(rest[0]) && rest[0] != '$' {
			break
		}
		_, n := utf8.DecodeRuneInString(rest)
		p.pos += n
	}
	return p.src[start:p.pos]
}

func letter(s string) bool {
	r, _ := utf8.DecodeRuneInString(s)
	return r == '_' || r >= 0x80 || unicode.IsLetter(r)
}

func digit(c byte) bool { return '0' <= c && c <= '9' }

func operator(c byte) bool { return strings.IndexByte("+-*/<>=~!@#%^&|`?", c) >= 0 }

// ours are the operators that a name may follow without a space: no operator of Postgres is one of them and an @.
var ours = []string{"", "=", "<>", "!=", "<=", ">=", ">", "+", "-", "*", "/", "%", "||", "~", "!~", "~*", "!~*", "~~", "!~~"}

// operator reads a run of operator characters, and the name that follows an @ at its end.
func (p *sqlParser) operator() {
	start := p.pos
	for p.pos < len(p.src) && operator(p.src[p.pos]) {
		if rest := p.src[p.pos:]; p.pos > start && (strings.HasPrefix(rest, "--") || strings.HasPrefix(rest, "/*")) {
			return
		}
		p.pos++
	}
	run := p.src[start:p.pos]
	if !strings.HasSuffix(run, "@") || p.pos == len(p.src) || !letter(p.src[p.pos:]) {
		return
	}
	at, before := p.pos-1, run[:len(run)-1]
	scope := p.name()
	known := slices.Contains(scopes, scope) && (strings.HasSuffix(scope, "tick") || strings.HasPrefix(p.src[p.pos:], "."))
	switch {
	case !slices.Contains(ours, before) && known:
		p.fail(start, "PM305", "it is not clear where the operator in "+run+scope+" ends", "put a space before the @ of a name, and one behind the @ of an operator")
	case !slices.Contains(ours, before):
	case known:
		p.param(at, scope)
	case slices.Contains(scopes, scope):
		p.fail(at, "PM303", "@"+scope+" does not say which column", "write "+p.afterScope(scope))
	default:
		p.fail(at, "PM303", "@"+scope+" is no name that a query knows", suggestScope(scope))
	}
}

func suggestScope(scope string) string {
	var known []string
	for _, s := range scopes[:4] {
		known = append(known, "@"+s)
	}
	if hint := Nearest("@"+scope, known); hint != "" {
		return hint
	}
	return fmt.Sprintf("write @new.%[1]s, or @message.%[1]s in a rule on a message; an absolute value is abs(%[1]s)", scope)
}

var inBrackets = regexp.MustCompile(`^\.?\s*\[?\s*(?:'([^']+)'|"([^"]+)")`)

// afterScope is how a column is written whose name stands in other quotes, or in brackets, behind @new.
func (p *sqlParser) afterScope(scope string) string {
	if m := inBrackets.FindStringSubmatch(p.src[p.pos:]); m != nil {
		return sqlColumn(scope, m[1]+m[2])
	}
	return "@" + scope + ".column"
}

// param reads what follows @scope, and puts a number in the place of the whole.
func (p *sqlParser) param(at int, scope string) {
	param := Param{Scope: scope}
	if !strings.HasSuffix(scope, "tick") {
		p.pos++ // the dot
		before := len(p.problems)
		switch rest := p.src[p.pos:]; {
		case strings.HasPrefix(rest, `"`):
			param.Name = p.quoted()
		case rest != "" && letter(rest):
			param.Name = p.name()
		}
		if len(p.problems) > before {
			return
		}
		if param.Name == "" {
			p.fail(at, "PM303", "@"+scope+". is not followed by a name", "write "+p.afterScope(scope)+`; what is no plain word stands in double quotes: @new."Buyer Id"`)
			return
		}
		if rest := p.src[p.pos:]; strings.HasPrefix(rest, ".") {
			p.fail(p.pos, "PM303", "a name goes one level deep", "take the value apart in the query, as in (@"+scope+"."+param.Name+")::jsonb ->> 'key'")
			return
		}
	}
	i := slices.Index(p.sql.Params, param)
	if i < 0 {
		i = len(p.sql.Params)
		p.sql.Params = append(p.sql.Params, param)
		p.sql.offsets = append(p.sql.offsets, p.runes(at))
	}
	p.out.WriteString(p.src[p.copied:at])
	number := "$" + strconv.Itoa(i+1)
	p.sql.params = append(p.sql.params, sqlParam{
		param: i, source: p.runes(at), text: utf8.RuneCountInString(p.out.String()),
		sourceLen: utf8.RuneCountInString(p.src[at:p.pos]), textLen: len(number),
	})
	p.out.WriteString(number)
	p.copied = p.pos
}

// ParamPlace is where a parameter's name first stands in the file.
func (q *SQL) ParamPlace(i int) Place { return q.text.place(q.offsets[i]) }

// At is where a character of Text stands in the file, counted from 1, as Postgres counts them in its errors.
func (q *SQL) At(position int) Place {
	offset, shift := position-1, 0
	for _, p := range q.params {
		switch {
		case offset < p.text:
			return q.text.place(offset + shift)
		case offset < p.text+p.textLen:
			return q.text.place(p.source)
		}
		shift = p.source + p.sourceLen - p.text - p.textLen
	}
	return q.text.place(offset + shift)
}

// finish checks the whole.
func (p *sqlParser) finish() {
	p.unmarked()
	if len(p.problems) > 0 {
		return
	}
	if !slices.Contains([]string{"select", "with", "values", "table"}, p.first) {
		p.fail(0, "PM301", "this is no query", "a query begins with select, with, values or table; it runs in a read-only transaction")
		return
	}
	p.out.WriteString(p.src[p.copied:])
	p.sql.Text = p.out.String()
	if p.end > 0 { // all that follows the semicolon is white space and comments
		p.sql.Text = p.sql.Text[:len(p.sql.Text)-(len(p.src)-p.end)-1]
	}
}

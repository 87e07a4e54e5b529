package rules

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/expr-lang/expr/parser/lexer"
)

// dateWords are types of SQL whose values are moments.
var dateWords = []string{"date", "timestamp", "timestamptz"}

// nowWords are the clock of SQL and of other languages.
var nowWords = []string{"now", "today", "current_timestamp", "current_date", "localtimestamp", "clock_timestamp", "sysdate"}

// todays are those that mean a whole day.
var todays = []string{"today", "current_date"}

// cast finds '2026-01-31'::date, date '2026-01-31', new.x::date and other casts.
func (r reading) cast(i int) (problem, int) {
	t := r.at(i)
	if t.Kind == lexer.Identifier && slices.Contains(dateWords, strings.ToLower(t.Value)) && r.at(i+1).Kind == lexer.String {
		return problem{message: t.Value + " before a text is SQL", hint: dateHint(r.at(i + 1).Value)}, 2
	}
	length := 1
	switch {
	case t.Is(lexer.Operator, "::"):
	case t.Is(lexer.Operator, ":") && touching(r.tokens, i) && r.at(i+1).Is(lexer.Operator, ":"):
		length = 2
	default:
		return problem{}, 0
	}
	name := r.at(i + length)
	p := problem{message: ":: is SQL", hint: "an expression knows the types of columns: leave the cast out"}
	if name.Kind != lexer.Identifier {
		return p, length
	}
	p.hint = fmt.Sprintf("an expression knows the types of columns: leave ::%s out", name.Value)
	literal := r.at(i-1).Kind == lexer.String
	switch {
	case literal && slices.Contains(dateWords, strings.ToLower(name.Value)):
		p.hint = dateHint(r.at(i - 1).Value)
	case literal && strings.EqualFold(name.Value, "interval"):
		p.hint = intervalHint(r.at(i - 1).Value)
	case strings.EqualFold(name.Value, "date") && r.left(i) != "":
		return r.dayOf(i, length+1)
	}
	return p, length + 1
}

// dayOf is what is said of new.x::date from the :: on, and what it is compared with: what has such a day lies between the beginning
// of that day and of the next.
func (r reading) dayOf(i, length int) (problem, int) {
	left, operator, other := r.left(i), r.at(i+length), r.at(i+length+1)
	p := problem{message: "::date is SQL: a moment has no day of its own in an expression"}
	compares := operator.Is(lexer.Operator, "=", "==", "<", "<=", ">", ">=", "!=")
	switch {
	case compares && other.Kind == lexer.Identifier && slices.Contains(nowWords, strings.ToLower(other.Value)):
		p.hint = recentHint(left)
		length += 2
	case compares && (operator.Value == "=" || operator.Value == "==") && other.Kind == lexer.String:
		if v, _, err := parseMoment(other.Value); err == nil {
			t, _ := clockReading(v)
			p.hint = dayHint(left, t)
			length += 2
			break
		}
		fallthrough
	default:
		p.hint = dayHint(left, time.Date(2026, 1, 31, 0, 0, 0, 0, time.UTC))
	}
	return p, length
}

// dayHint is how a moment of a day is asked for.
func dayHint(of string, t time.Time) string {
	return fmt.Sprintf(`compare with where the day begins and ends: write %[1]s >= date(%[2]q) and %[1]s < date(%[3]q); for a timestamp with time zone, give the rule a timezone`,
		of, t.Format(time.DateOnly), t.AddDate(0, 0, 1).Format(time.DateOnly))
}

// recentHint is how a moment is asked for that is near to the commit.
func recentHint(of string) string {
	return fmt.Sprintf(`there is no clock, and nothing is equal to commit_time, the change's own: write %[1]s > commit_time - duration("24h") and %[1]s <= commit_time for the day before it`, of)
}

// clock finds now(), today and others.
func (r reading) clock(i int) (problem, int) {
	t := r.at(i)
	if t.Kind != lexer.Identifier || !slices.Contains(nowWords, strings.ToLower(t.Value)) {
		return problem{}, 0
	}
	name, length := t.Value, 1
	if r.at(i+1).Is(lexer.Bracket, "(") {
		if name += "()"; r.at(i+2).Is(lexer.Bracket, ")") {
			length = 3
		} else {
			length = 2
		}
	}
	p := problem{message: name + " would not be the same in a replay", hint: "write commit_time: that is the change's own time, in a replay too"}
	of := ""
	switch {
	case r.at(i-1).Is(lexer.Operator, "=", "=="):
		of = r.left(i - 1)
	case r.at(i+length).Is(lexer.Operator, "=", "=="):
		of = r.right(i + length + 1)
	case slices.Contains(todays, strings.ToLower(t.Value)):
		p.hint += `; a day before it is commit_time - duration("24h")`
	}
	if of != "" {
		p.hint = recentHint(of)
	}
	return p, length
}

// interval finds interval '2 days'.
func (r reading) interval(i int) (problem, int) {
	if r.at(i).Kind != lexer.Identifier || !r.is(i, "interval") {
		return problem{}, 0
	}
	if r.at(i+1).Kind == lexer.String {
		return problem{message: "interval is SQL", hint: intervalHint(r.at(i + 1).Value)}, 2
	}
	return problem{message: "interval is SQL", hint: `write duration("1h")`}, 1
}

// intervalHint is how a duration is written that somebody wrote as SQL's. What it is added to is not known: hours go with everything.
func intervalHint(text string) string {
	d, ok := readInterval(text)
	if !ok {
		return `a duration is written duration("1h30m"), with w, d, h, m and s`
	}
	return "write " + d.written(false)
}

// dateHint is how a moment is written that somebody wrote as text, where it is not known what it is compared with.
func dateHint(text string) string {
	v, t, err := parseMoment(text)
	switch {
	case err != nil:
		return momentForm
	case t.kind == kindInstant:
		return fmt.Sprintf("write date(%q)", text)
	}
	moment, _ := clockReading(v)
	return fmt.Sprintf("write date(%q); beside a timestamp with time zone, with its offset: date(%q)", text, offset(moment))
}

// momentForm is the way out of what is no moment.
const momentForm = `a day is written date("2026-01-31"), and a moment date("2026-01-31T09:00:00+09:00")`

// offset is the text of a moment with an offset, which the reader is to make his own.
func offset(t time.Time) string { return t.Format("2006-01-02T15:04:05") + "+09:00" }

// momentHint is the way out of a moment in quotes, in the form that goes with the other side.
func (c *check) momentHint(of typ, text string) string {
	if slices.Contains([]string{"now", "today", "yesterday", "tomorrow"}, strings.ToLower(text)) {
		return "write commit_time: that is the change's own time, in a replay too"
	}
	v, t, err := parseMoment(text)
	switch {
	case err != nil:
		return momentForm
	case t.kind == kindInstant || of.kind != kindInstant || c.env.zone != nil:
		return fmt.Sprintf("write date(%q)", text)
	}
	moment, _ := clockReading(v)
	return fmt.Sprintf("write date(%q), with the offset that is meant, or date(%q) and give the rule a timezone", offset(moment), text)
}

// spanHint is the way out of a duration without its function, as a text or a number, beside a moment or a duration.
func (c *check) spanHint(of typ, written any) string {
	days := of.moment() && (of.kind != kindInstant || c.env.zone != nil) || of.kind == kindSpan && of.clock
	switch written := written.(type) {
	case string:
		d, ok := readInterval(written)
		switch {
		case !ok:
			return `a duration is written duration("1h30m"), with w, d, h, m and s`
		case d.Days > 0 && of.kind == kindInstant && !days:
			return fmt.Sprintf("write %s, or %s and give the rule a timezone", d.written(false), d.written(true))
		}
		return "write " + d.written(days)
	case int:
		if written < 1 || written > 1000 {
			return `a number has no unit: a duration is written duration("1h30m"), with w, d, h, m and s`
		}
		return fmt.Sprintf("a number has no unit: write %s for days, or %s for hours",
			Duration{Days: written}.written(days), Duration{Time: time.Duration(written) * time.Hour}.written(false))
	}
	return ""
}

// timeParts are the parts of a moment that SQL's extract gives.
var timeParts = []string{"year", "quarter", "month", "week", "day", "hour", "minute", "second", "dow", "doy", "isodow", "weekday", "epoch"}

// partHint is the way out of new.at.month.
func partHint(of string, t typ, part string) string {
	word := strings.ToLower(part)
	if word == "date" {
		return dayHint(of, time.Date(2026, 1, 31, 0, 0, 0, 0, time.UTC))
	}
	if word == "weekday" {
		word = "isodow"
	}
	if !slices.Contains(timeParts, word) {
		return ""
	}
	if of = "@" + of; t.kind == kindInstant {
		of += " at time zone 'Asia/Seoul'"
	}
	return fmt.Sprintf("ask for it in the query of to: where extract(%s from %s) = …", word, of)
}

package rules

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

var (
	intervalPart  = regexp.MustCompile(`^\s*(\d{1,9})\s*([a-z]+)\s*,?\s*`)
	intervalClock = regexp.MustCompile(`^\s*(\d{1,6}):(\d\d)(?::(\d\d))?\s*$`)
)

// intervalUnits are the units of SQL's intervals. A month and a year are of no fixed length: 30 and 365 days are near it.
var intervalUnits = map[string]Duration{
	"s": {0, time.Second}, "sec": {0, time.Second}, "second": {0, time.Second},
	"min": {0, time.Minute}, "minute": {0, time.Minute}, "h": {0, time.Hour}, "hr": {0, time.Hour}, "hour": {0, time.Hour},
	"d": {1, 0}, "day": {1, 0}, "w": {7, 0}, "week": {7, 0}, "month": {30, 0}, "mon": {30, 0}, "year": {365, 0},
}

// readInterval reads a duration as SQL, or a person, writes it: 2 days, 1 hour 30 minutes, 01:30.
func readInterval(text string) (d Duration, ok bool) {
	rest := strings.ToLower(text)
	if m := intervalClock.FindStringSubmatch(rest); m != nil {
		for i, unit := range []time.Duration{time.Hour, time.Minute, time.Second} {
			n, _ := strconv.Atoi(m[i+1])
			d.Time += time.Duration(n) * unit
		}
		return d, d.Time > 0 && d.Time < longest
	}
	for rest != "" {
		m := intervalPart.FindStringSubmatch(rest)
		if m == nil {
			return d, false
		}
		unit, known := intervalUnits[m[2]]
		if !known {
			unit, known = intervalUnits[strings.TrimSuffix(m[2], "s")]
		}
		n, err := strconv.Atoi(m[1])
		if !known || err != nil || time.Duration(n) > longest/max(unit.elapsed(), 1) {
			return d, false
		}
		d.Days += n * unit.Days
		d.Time += time.Duration(n) * unit.Time
		rest = rest[len(m[0]):]
	}
	return d, d != (Duration{}) && d.elapsed() <= longest
}

// written is the duration as an expression has it.
func (d Duration) written(days bool) string { return fmt.Sprintf("duration(%q)", d.text(days)) }

// text is the duration as rules write it: in days where a day has a length there, and else in hours.
func (d Duration) text(days bool) string {
	whole := 0
	if days {
		d.Days, d.Time = d.Days+int(d.Time/day), d.Time%day
		whole = d.Days
	} else {
		d.Time = d.elapsed()
	}
	var b strings.Builder
	for _, unit := range []struct {
		n    int
		name string
	}{{whole, "d"}, {int(d.Time / time.Hour), "h"}, {int(d.Time / time.Minute % 60), "m"}, {int(d.Time / time.Second % 60), "s"}} {
		if unit.n > 0 {
			b.WriteString(strconv.Itoa(unit.n) + unit.name)
		}
	}
	return b.String()
}

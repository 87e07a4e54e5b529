package rules

import (
	"errors"
	"strconv"
	"strings"
	"time"
)

var (
	errDuration = errors.New("a duration is numbers with units, w d h m or s, the greatest first: 15m, 1h30m, 2d")
	errTooLong  = errors.New("a duration is at most 100 years")
)

const (
	day           = 24 * time.Hour
	longest       = 100 * 365 * day
	durationUnits = "wdhms"
)

// parseDuration reads a duration as rules write it. Units go from the greatest to the least, each at most once.
func parseDuration(s string) (Duration, error) {
	var d Duration
	rest := s
	for i, unit := range []time.Duration{7 * day, day, time.Hour, time.Minute, time.Second} {
		digits := len(rest) - len(strings.TrimLeft(rest, "0123456789"))
		if digits == 0 || digits == len(rest) || rest[digits] != durationUnits[i] {
			continue
		}
		n, err := strconv.Atoi(rest[:digits])
		if err != nil || time.Duration(n) > longest/unit {
			return Duration{}, errTooLong
		}
		if unit >= day {
			d.Days += n * int(unit/day)
		} else {
			d.Time += time.Duration(n) * unit
		}
		rest = rest[digits+1:]
	}
	switch {
	case s == "" || rest != "":
		return Duration{}, errDuration
	case d.elapsed() > longest:
		return Duration{}, errTooLong
	}
	return d, nil
}

// elapsed is the duration with days of 24 hours.
func (d Duration) elapsed() time.Duration { return time.Duration(d.Days)*day + d.Time }

// Behind is the moment that lies the duration behind another. Its days are calendar days in the zone.
func (d Duration) Behind(t time.Time, zone *time.Location) time.Time {
	return t.In(zone).AddDate(0, 0, d.Days).Add(d.Time)
}

// Deadline is when a mail about something that happened at a moment is too old to be sent; zero: never. Days are calendar days in
// the rule's zone, or else in the given one.
func (r *Rule) Deadline(t time.Time, zone *time.Location) time.Time {
	if r.Expires == (Duration{}) {
		return time.Time{}
	}
	if r.Zone != nil {
		zone = r.Zone
	}
	return r.Expires.Behind(t, zone)
}

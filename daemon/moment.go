package daemon

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"postman/position"
)

// moment is a place in a source's history as people name it: a time, or an LSN.
type moment struct {
	at  time.Time
	lsn position.LSN // 0: at says it
	ago bool         // it was told as how long ago
}

// momentForms says how a moment is written.
const momentForms = "write an LSN (16/B374D848), a time (2026-11-22T14:00:00+09:00, or 2026-11-22 14:00 in the configured zone), or how long ago it was (90m, 2h, 7d)"

var (
	localForms = []string{"2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02"}
	agoForm    = regexp.MustCompile(`^(?:(\d{1,4})w)?(?:(\d{1,5})d)?(?:(\d{1,6})h)?(?:(\d{1,8})m)?(?:(\d{1,9})s)?$`)
)

// parseMoment reads a moment that has been. Times without a zone are the zone's, and days and weeks its calendar's.
func parseMoment(text string, zone *time.Location, now time.Time) (moment, error) {
	bad := func(why string) (moment, error) {
		return moment{}, badRequest{fmt.Sprintf("%q %s\n  → %s", text, why, momentForms)}
	}
	if strings.Contains(text, "/") {
		lsn, err := position.ParseLSN(text)
		if err != nil || lsn == 0 {
			return bad("is not an LSN")
		}
		return moment{lsn: lsn}, nil
	}
	at, err := parseTime(text, zone, now)
	switch {
	case err != "":
		return bad(err)
	case at.After(now):
		return bad("lies in the future (" + at.In(zone).Format(time.RFC3339) + ")")
	}
	return moment{at: at, ago: agoForm.MatchString(text)}, nil
}

func parseTime(text string, zone *time.Location, now time.Time) (at time.Time, wrong string) {
	if at, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return at, ""
	}
	for _, form := range localForms {
		at, err := time.ParseInLocation(form, text, zone)
		if err != nil {
			continue
		}
		if at.Format(form) != text { // a clock that was set forward never showed it
			return at, "is no time that clocks in " + zone.String() + " have shown"
		}
		return at, ""
	}
	parts := agoForm.FindStringSubmatch(text)
	if parts == nil || text == "" {
		return at, "is neither a time nor an LSN"
	}
	n := make([]int, len(parts))
	for i := 1; i < len(parts); i++ {
		n[i], _ = strconv.Atoi(parts[i]) // digits, or nothing: 0
	}
	at = now.In(zone).AddDate(0, 0, -7*n[1]-n[2]).Add(-time.Duration(n[3])*time.Hour - time.Duration(n[4])*time.Minute - time.Duration(n[5])*time.Second)
	if !at.Before(now) {
		return at, "is no time ago"
	}
	return at, ""
}

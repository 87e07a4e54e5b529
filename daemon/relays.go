package daemon

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"postman/dispatch"
	"postman/rules"
)

// SMTP says how much a relay is given.
type SMTP struct {
	Preset         string        `yaml:"preset"` // a provider, for what is not said here
	MaxConnections int           `yaml:"max_connections"`
	PerConnection  int           `yaml:"messages_per_connection"`
	Rate           dispatch.Rate `yaml:"rate"`
	Monthly        int64         `yaml:"monthly"`
	PerDomain      int           `yaml:"per_domain"`
}

func (s *SMTP) limits() (dispatch.Limits, error) {
	preset, err := dispatch.Preset(s.Preset)
	if err != nil {
		return preset, fmt.Errorf("preset: %w", err)
	}
	if s.MaxConnections < 0 || s.PerConnection < 0 || s.Monthly < 0 || s.PerDomain < 0 {
		return preset, fmt.Errorf("max_connections, messages_per_connection, monthly and per_domain cannot be below zero")
	}
	own := dispatch.Limits{Connections: s.MaxConnections, PerConnection: s.PerConnection, Rate: s.Rate, Monthly: s.Monthly, PerDomain: s.PerDomain}
	return own.Or(preset), nil
}

// FurtherRelay is a relay beside the one of smtp_url.
type FurtherRelay struct {
	URL Secret `yaml:"url"`
	// Preference is its place among those that take any mail, as in an MX record: the lowest first, and smtp_url's has 0. Nil: only rules
	// that name it use it.
	Preference *int `yaml:"preference"`
	SMTP       `yaml:",inline"`
}

// firstRelay is what the relay of smtp_url is called in messages; rules do not name it.
const firstRelay = "smtp_url"

// relays are those that are configured, in the order in which they take mails; those that only rules use come last. What is wrong is told of all of
// them.
func (c *Config) relays(bad func(format string, args ...any)) []dispatch.Relay {
	type ranked struct {
		dispatch.Relay
		preference int
	}
	var all []ranked
	add := func(key, name string, url Secret, smtp *SMTP, preference *int) {
		r, err := dispatch.ParseRelay(string(url))
		if err != nil {
			bad("%s: %w", key, err)
			return
		}
		if r.Limits, err = smtp.limits(); err != nil {
			bad("%s: %w", cmp.Or(strings.TrimSuffix(key, "_url"), key), err)
		}
		r.Name, r.ByName, r.TokenField = name, preference == nil, providerOf(smtp.Preset, r.Host).tokenField
		place := 0
		if preference != nil {
			place = *preference
		}
		all = append(all, ranked{r, place})
	}
	add(firstRelay, "", c.SMTPURL, &c.SMTP, new(0))
	for _, name := range slices.Sorted(maps.Keys(c.Relays)) {
		r := c.Relays[name]
		key := "relays." + name
		switch {
		case !relayName(name):
			bad("%s: a relay's name has 1 to 40 characters out of a-z, 0-9, - and _", key)
		case r.URL == "":
			bad("%s: no url; set it, or %s", key, relayEnv(name))
		default:
			add(key, name, r.URL, &r.SMTP, r.Preference)
		}
	}
	slices.SortStableFunc(all, func(a, b ranked) int {
		if a.ByName != b.ByName {
			return map[bool]int{false: -1, true: 1}[a.ByName]
		}
		return cmp.Compare(a.preference, b.preference)
	})
	list := make([]dispatch.Relay, len(all))
	for i := range all {
		list[i] = all[i].Relay
	}
	return list
}

func relayName(s string) bool {
	return len(s) > 0 && len(s) <= 40 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789_-") == ""
}

// relayEnv is the variable that gives a relay its URL: SMTP_URL_MARKETING.
func relayEnv(name string) string {
	return "SMTP_URL_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
}

// checkRelays finds the rules that name a relay which is not configured.
func checkRelays(all []*rules.Rule, c *Config) error {
	var mistakes rules.Errors
	for _, r := range all {
		if _, ok := c.Relays[r.Relay]; r.Relay == "" || ok {
			continue
		}
		way := "leave it out, or add it to relays in postman.yaml"
		if names := slices.Sorted(maps.Keys(c.Relays)); len(names) > 0 {
			way = "there are " + strings.Join(names, ", ") + "; add it to relays in postman.yaml, or take one of these"
		}
		mistakes = append(mistakes, r.Mistake("PM020", r.Key("relay"), "relay: no relay is called "+r.Relay, way))
	}
	return asError(mistakes)
}

// Retry is when a mail is tried again after a 4xx: after each of Pauses, the last again and again, jittered, until GiveUp after the first attempt.
type Retry struct {
	Pauses []Span `yaml:"pauses"`
	GiveUp Span   `yaml:"give_up"`
}

func (r *Retry) dispatch() dispatch.Retry {
	to := dispatch.Retry{GiveUp: time.Duration(r.GiveUp)}
	for _, p := range r.Pauses {
		to.Pauses = append(to.Pauses, time.Duration(p))
	}
	return to
}

package daemon

import (
	"cmp"
	"errors"
	"time"

	"postman/dispatch"
	"postman/rules"
	"postman/templates"
)

// Misuse is an error of a command's call, see [Misconfigured].
func Misuse(what string) error { return usage(what) }

// Composing is what mails are made of, as the daemon makes them: the templates, the senders and their domains, language and time
// zone. A sender that is not configured is made up.
func Composing(c *Config) (dispatch.Options, error) {
	o := dispatch.Options{From: cmp.Or(c.From, "postman@localhost"), ReplyTo: c.ReplyTo, Locale: c.Locale}
	var err error
	if o.Zone, err = time.LoadLocation(c.Timezone); err != nil || c.Timezone == "" {
		return o, usage("timezone: " + c.Timezone + " is no time zone; one looks like Asia/Seoul")
	}
	if o.Domains, err = c.senderDomains(); err != nil {
		return o, refused{err}
	}
	set, err := loadTemplates(c.Templates)
	if err != nil {
		return o, refused{err}
	}
	o.Templates = func() *templates.Set { return set }
	return o, nil
}

// SenderMistakes finds the rules whose `from` is on a domain that is not allowed.
func SenderMistakes(all []*rules.Rule, c *Config) error {
	return errors.Join(checkSenders(all, c), checkRelays(all, c))
}

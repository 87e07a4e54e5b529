package daemon

import (
	"strings"

	"postman/dispatch"
	"postman/rules"
)

// senderDomains are the domains that a rule's `from` may have: the configured sender's, and those of from_domains. Without a sender,
// when nothing is sent, there is no restriction.
func (c *Config) senderDomains() (dispatch.Domains, error) {
	if c.From == "" {
		return nil, nil
	}
	return dispatch.NewDomains(c.From, c.FromDomains...)
}

// checkSenders finds the rules whose `from` is an address on a domain that is not allowed. One that an expression gives is
// looked at when its mail is made.
func checkSenders(all []*rules.Rule, c *Config) error {
	domains, err := c.senderDomains()
	if err != nil {
		return err
	}
	var mistakes rules.Errors
	for _, r := range all {
		if r.From == nil || r.From.Address == "" {
			continue
		}
		if err := domains.Allow(r.From.Address); err != nil {
			mistakes = append(mistakes, r.Mistake("PM018", r.Key("from"), "from: "+err.Error(),
				"take an address on one of these ("+strings.Join(domains, ", ")+"), or add the domain to from_domains in postman.yaml"))
		}
	}
	return asError(mistakes)
}

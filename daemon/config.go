package daemon

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/mail"
	"os"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"postman/bounce"
	"postman/dispatch"
)

// Config is all that a daemon is told from outside, resolved once: flag over environment over file over default.
// postman.yaml at the root of the repository documents each key.
type Config struct {
	DatabaseURL Secret                   `yaml:"database_url"`
	LookupURL   Secret                   `yaml:"lookup_url"`
	StoreURL    string                   `yaml:"store_url"`
	SMTPURL     Secret                   `yaml:"smtp_url"`
	SentryDSN   Secret                   `yaml:"sentry_dsn"`
	Mode        string                   `yaml:"mode"`
	From        string                   `yaml:"from"`
	FromDomains []string                 `yaml:"from_domains"` // beside From's, those that a rule's `from` may have
	ReplyTo     string                   `yaml:"reply_to"`
	Redirect    string                   `yaml:"redirect"`
	Bounce      string                   `yaml:"bounce"`
	SoftBounces SoftBounces              `yaml:"soft_bounces"`
	Rules       string                   `yaml:"rules"`
	Templates   string                   `yaml:"templates"`
	Slot        string                   `yaml:"slot"`
	HTTP        string                   `yaml:"http"`
	Public      Public                   `yaml:"public"`
	Locale      string                   `yaml:"locale"`
	Timezone    string                   `yaml:"timezone"`
	Log         Log                      `yaml:"log"`
	SMTP        SMTP                     `yaml:"smtp"`
	Relays      map[string]*FurtherRelay `yaml:"relays"` // by name
	Retry       Retry                    `yaml:"retry"`
	Lookup      LookUps                  `yaml:"lookup"`
	Drain       Span                     `yaml:"drain"`
	Journal     Journal                  `yaml:"journal"`
	// NotifyOps is who gets postman's own mails: of what is held. Empty: nobody does.
	NotifyOps string `yaml:"notify_ops"`
	// HoldExpires is how long what hold_over holds waits for an operator before it is discarded.
	HoldExpires Span `yaml:"hold_expires"`
	// IgnoreOrigins names the replication origins whose transactions make no matches.
	IgnoreOrigins Origins `yaml:"ignore_origins"`
}

// Log says how the daemon logs to stderr.
type Log struct {
	Format string `yaml:"format"` // text or json
	Level  string `yaml:"level"`  // debug, info, warn or error
}

// LookUps bounds the queries for recipients and loads.
type LookUps struct {
	Connections int  `yaml:"connections"`
	Timeout     Span `yaml:"timeout"`
}

// Journal bounds how far back a replay can go: what is older than Keep is deleted, and the oldest while all takes more than Size.
type Journal struct {
	Keep Span `yaml:"keep"`
	Size Size `yaml:"size"`
}

// Span is a duration in configuration, such as 30s, 24h or 7d.
type Span time.Duration

// UnmarshalText reads Go's form of a duration, or a number of days of 24 hours; it must be positive.
func (s *Span) UnmarshalText(text []byte) error {
	d, err := time.ParseDuration(string(text))
	if days, ok := strings.CutSuffix(string(text), "d"); ok {
		var n uint64
		n, err = strconv.ParseUint(days, 10, 16)
		d = time.Duration(n) * 24 * time.Hour
	}
	if err != nil || d <= 0 {
		return fmt.Errorf("%q is not a duration above zero; one looks like 30s, 24h or 7d", text)
	}
	*s = Span(d)
	return nil
}

// Size is a number of bytes in configuration, such as 500MiB or 2GiB.
type Size int64

// UnmarshalText reads a whole number of MiB, GiB or TiB above zero.
func (s *Size) UnmarshalText(text []byte) error {
	for unit, bytes := range map[string]int64{"MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40} {
		number, ok := strings.CutSuffix(string(text), unit)
		if n, err := strconv.ParseUint(strings.TrimSpace(number), 10, 20); ok && err == nil && n > 0 {
			*s = Size(int64(n) * bytes)
			return nil
		}
	}
	return fmt.Errorf("%q is not a size; one looks like 500MiB or 2GiB", text)
}

// Secret is a setting that may hold a password. It prints as <secret>; convert it to string to use it.
type Secret string

// String never shows the secret.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return "<secret>"
}

// GoString never shows the secret.
func (s Secret) GoString() string { return s.String() }

// MarshalText never shows the secret.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// DefaultConfig is what holds where nothing else is said.
func DefaultConfig() Config {
	return Config{
		StoreURL:    "sqlite:postman.db",
		SoftBounces: SoftBounces{Days: 5, Within: Span(30 * 24 * time.Hour)},
		Rules:       "rules.yaml",
		Templates:   "templates",
		Slot:        "postman",
		HTTP:        "127.0.0.1:7480",
		Locale:      "en",
		Timezone:    "UTC",
		Log:         Log{Format: "text", Level: "info"},
		Retry: Retry{
			Pauses: []Span{Span(30 * time.Second), Span(2 * time.Minute), Span(10 * time.Minute), Span(30 * time.Minute), Span(2 * time.Hour), Span(6 * time.Hour)},
			GiveUp: Span(24 * time.Hour),
		},
		Lookup:      LookUps{Connections: 4, Timeout: Span(5 * time.Second)},
		Drain:       Span(20 * time.Second),
		HoldExpires: Span(7 * 24 * time.Hour),
		Journal:     Journal{Keep: Span(7 * 24 * time.Hour), Size: 2 << 30},
	}
}

// LoadConfig reads the file over the defaults and the environment over the file. An empty path means postman.yaml if
// there is one.
func LoadConfig(path string, getenv func(string) string) (Config, error) {
	c := DefaultConfig()
	if err := c.readFile(path); err != nil {
		return c, err
	}
	return c, c.readEnv(getenv)
}

func (c *Config) readFile(path string) error {
	const usual = "postman.yaml"
	text, err := os.ReadFile(cmp.Or(path, usual))
	if path == "" && errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading the configuration: %w", err)
	}
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	if err := dec.Decode(c); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: %s", cmp.Or(path, usual), strings.ReplaceAll(err.Error(), " in type daemon.", " in "))
	}
	return nil
}

// setting is one that the environment can give.
type setting struct {
	name string
	set  func(string) error
}

func (c *Config) settings() []setting {
	text := func(p *string) func(string) error { return func(v string) error { *p = v; return nil } }
	secret := func(p *Secret) func(string) error { return func(v string) error { *p = Secret(v); return nil } }
	return []setting{
		{"DATABASE_URL", secret(&c.DatabaseURL)},
		{"LOOKUP_URL", secret(&c.LookupURL)},
		{"STORE_URL", text(&c.StoreURL)},
		{"SMTP_URL", secret(&c.SMTPURL)},
		{"SENTRY_DSN", secret(&c.SentryDSN)},
		{"POSTMAN_MODE", text(&c.Mode)},
		{"POSTMAN_FROM", text(&c.From)},
		{"POSTMAN_REDIRECT", text(&c.Redirect)},
		{"POSTMAN_BOUNCE", text(&c.Bounce)},
		{"POSTMAN_NOTIFY_OPS", text(&c.NotifyOps)},
		{"POSTMAN_RULES", text(&c.Rules)},
		{"POSTMAN_TEMPLATES", text(&c.Templates)},
		{"POSTMAN_SLOT", text(&c.Slot)},
		{"POSTMAN_HTTP", text(&c.HTTP)},
		{"POSTMAN_PUBLIC_HTTP", text(&c.Public.HTTP)},
		{"POSTMAN_PUBLIC_URL", text(&c.Public.URL)},
		{"POSTMAN_MAILJET_AUTH", secret(&c.Public.MailjetAuth)},
		{"POSTMAN_MAILJET_AUTH_FILE", text(&c.Public.MailjetAuthFile)},
		{"POSTMAN_LOCALE", text(&c.Locale)},
		{"POSTMAN_TIMEZONE", text(&c.Timezone)},
		{"POSTMAN_LOG_FORMAT", text(&c.Log.Format)},
		{"POSTMAN_LOG_LEVEL", text(&c.Log.Level)},
	}
}

func (c *Config) readEnv(getenv func(string) string) error {
	var errs []error
	for name, r := range c.Relays {
		if r == nil {
			r = new(FurtherRelay)
			c.Relays[name] = r
		}
		if v := getenv(relayEnv(name)); v != "" {
			r.URL = Secret(v)
		}
	}
	for _, s := range c.settings() {
		if v := getenv(s.name); v != "" {
			if err := s.set(v); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", s.name, err))
			}
		}
	}
	return errors.Join(errs...)
}

// Validate says everything that is wrong with the configuration, each with the setting's name and the way out.
func (c *Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.DatabaseURL == "" {
		bad("database_url: no database is named; set DATABASE_URL=postgres://user@host/database")
	}
	if !strings.HasPrefix(c.StoreURL, "sqlite:") || len(c.StoreURL) == len("sqlite:") {
		bad("store_url: %q is no store of this version; one looks like sqlite:postman.db", c.StoreURL)
	}
	switch c.Mode {
	case "", "dry-run":
	case "redirect":
		checkAddress(bad, "redirect", "POSTMAN_REDIRECT", c.Redirect, true)
		c.checkRelay(bad)
	case "live":
		c.checkRelay(bad)
	default:
		bad("mode: %q is no delivery mode; they are live, redirect and dry-run", c.Mode)
	}
	checkAddress(bad, "from", "POSTMAN_FROM", c.From, c.Sends())
	checkAddress(bad, "reply_to", "reply_to in postman.yaml", c.ReplyTo, false)
	checkAddress(bad, "bounce", "POSTMAN_BOUNCE", c.Bounce, false)
	checkAddress(bad, "notify_ops", "POSTMAN_NOTIFY_OPS", c.NotifyOps, false)
	if err := bounce.CheckSender(c.Bounce); err != nil {
		bad("bounce: %w", err)
	}
	if _, err := dispatch.NewDomains("", c.FromDomains...); err != nil {
		bad("from_domains: %w", err)
	}
	c.Public.check(bad)
	if !slotName(c.Slot) {
		bad("slot: %q: a slot's name has 1 to 48 characters out of a-z, 0-9 and _", c.Slot)
	}
	if _, err := time.LoadLocation(c.Timezone); err != nil || c.Timezone == "" {
		bad("timezone: %q is no time zone; one looks like Asia/Seoul", c.Timezone)
	}
	if c.SoftBounces.Days < 1 {
		bad("soft_bounces.days: at least 1 is needed")
	}
	if c.Lookup.Connections < 1 {
		bad("lookup.connections: at least 1 is needed")
	}
	if c.Log.Format != "text" && c.Log.Format != "json" {
		bad("log.format: %q; it is text or json", c.Log.Format)
	}
	if _, err := level(c.Log.Level); err != nil {
		bad("log.level: %w", err)
	}
	return errors.Join(errs...)
}

// Sends says whether the mode lets mail out at all.
func (c *Config) Sends() bool { return c.Mode == "live" || c.Mode == "redirect" }

func (c *Config) checkRelay(bad func(string, ...any)) {
	if c.SMTPURL == "" {
		bad("smtp_url: mode %s needs a relay; set SMTP_URL=smtp+starttls://user:password@host:587", c.Mode)
		return
	}
	c.relays(bad)
}

func checkAddress(bad func(string, ...any), key, env, address string, needed bool) {
	if address == "" {
		if needed {
			bad("%s: an address is needed; set %s", key, env)
		}
		return
	}
	if _, err := mail.ParseAddress(address); err != nil {
		bad("%s: %q is no mail address", key, address)
	}
}

func slotName(s string) bool {
	return len(s) > 0 && len(s) <= 48 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789_") == ""
}

// StorePath is the store's file.
func (c *Config) StorePath() string { return strings.TrimPrefix(c.StoreURL, "sqlite:") }

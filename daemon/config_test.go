package daemon

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestConfigPrecedence(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "postman.yaml")
	write(t, file, "slot: from_file\nlocale: ko\nretry: {pauses: [5s, 1m]}\njournal: {keep: 3d, size: 500MiB}\n")
	c, err := LoadConfig(file, func(name string) string {
		return map[string]string{"POSTMAN_SLOT": "from_env"}[name]
	})
	if err != nil {
		t.Fatal(err)
	}
	if c.Slot != "from_env" || c.Locale != "ko" || c.Rules != "rules.yaml" {
		t.Errorf("slot %q, locale %q, rules %q; want the environment's, the file's and the default", c.Slot, c.Locale, c.Rules)
	}
	if c.Journal != (Journal{Span(72 * time.Hour), 500 << 20}) {
		t.Errorf("journal %+v", c.Journal)
	}
	if !slices.Equal(c.Retry.Pauses, []Span{Span(5e9), Span(60e9)}) || c.Retry.GiveUp == 0 {
		t.Errorf("retry %+v; want the file's pauses beside the default's others", c.Retry)
	}
}

func TestConfigFileIsStrict(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ text, want string }{
		"unknown key": {"smpt_url: smtp://localhost\n", "line 1: field smpt_url not found"},
		"duration":    {"retry: {pauses: [5]}\n", "not a duration"},
		"zero":        {"drain: 0s\n", "above zero"},
		"days":        {"journal: {keep: 0d}\n", "above zero"},
		"size":        {"journal: {size: 2GB}\n", `"2GB" is not a size`},
		"no size":     {"journal: {size: 0GiB}\n", "is not a size"},
	} {
		file := filepath.Join(t.TempDir(), "postman.yaml")
		write(t, file, c.text)
		if _, err := LoadConfig(file, none); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: %v; want %q and the file's name", name, err, c.want)
		}
	}
}

func TestConfigExampleLoads(t *testing.T) {
	t.Parallel()
	c, err := LoadConfig("../postman.yaml", none)
	if err != nil {
		t.Fatal(err)
	}
	c.DatabaseURL = "postgres://localhost/crm"
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
}

func TestConfigValidateNamesAllMistakes(t *testing.T) {
	t.Parallel()
	c := DefaultConfig()
	c.Mode, c.Slot, c.Timezone, c.StoreURL, c.From = "lvie", "My Slot", "Seoul", "mysql:x", "nobody"
	c.ReplyTo, c.FromDomains = "no one", []string{"a@example.com"}
	err := c.Validate()
	for _, want := range []string{"database_url", "mode", "slot", "timezone", "store_url", "from", "reply_to", "from_domains"} {
		if err == nil || !strings.Contains(err.Error(), want+":") {
			t.Errorf("no word of %s in: %v", want, err)
		}
	}
}

func TestConfigSendsNeedsARelay(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"live", "redirect"} {
		c := DefaultConfig()
		c.DatabaseURL, c.Mode = "postgres://localhost/crm", mode
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), "SMTP_URL") {
			t.Errorf("mode %s without a relay: %v", mode, err)
		}
	}
}

func TestSecretNeverPrints(t *testing.T) {
	t.Parallel()
	c := DefaultConfig()
	c.DatabaseURL, c.SMTPURL, c.SentryDSN = "postgres://u:hunter2@h/d", "smtp://u:hunter2@h", "https://hunter2@s/1"
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		if got := fmt.Sprintf(verb, c); strings.Contains(got, "hunter2") {
			t.Errorf("%s shows a secret: %s", verb, got)
		}
	}
}

func none(string) string { return "" }

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

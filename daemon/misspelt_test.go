package daemon

import (
	"strings"
	"testing"
)

// TestCheckEnviron holds that misspelt settings are told, and that variables of others are left alone.
func TestCheckEnviron(t *testing.T) {
	t.Parallel()
	for environ, want := range map[string]string{
		"POSTMAN_RULE=x":                             "did you mean POSTMAN_RULES?",
		"POSTMAN_TEMPLATE=x":                         "did you mean POSTMAN_TEMPLATES?",
		"POSTMAN_DATABASE_URL=x":                     "did you mean DATABASE_URL?",
		"POSTMAN_RULES=x":                            "",
		"POSTMAN_CONFIG=x":                           "",
		"POSTMAN_PORT=tcp://10.0.0.1:80":             "",
		"POSTMAN_SERVICE_HOST=10.0.0.1":              "",
		"POSTMAN_PORT_7480_TCP_ADDR=10.0.0.1":        "",
		"POSTMAN_TEST_PG=/usr/lib/postgresql/15/bin": "",
		"PATH=/bin":                                  "",
	} {
		err := CheckEnviron([]string{"HOME=/", environ})
		if (err != nil) != (want != "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", environ, err, want)
		}
	}
}

package daemon

import (
	"errors"
	"fmt"
	"strings"

	"postman/rules"
)

// CheckEnviron looks among an environment's variables (NAME=value) for misspelt settings, which would silently do nothing: POSTMAN_RULE.
// Others of that beginning are left alone, since Kubernetes makes such variables for a service of the name postman.
func CheckEnviron(environ []string) error {
	const ours = "POSTMAN_"
	known := map[string]bool{ours + "CONFIG": true}
	short := []string{"CONFIG"}
	for _, s := range new(Config).settings() {
		known[s.name] = true
		short = append(short, strings.TrimPrefix(s.name, ours))
	}
	var errs []error
	for _, variable := range environ {
		name, _, _ := strings.Cut(variable, "=")
		behind, ok := strings.CutPrefix(name, ours)
		if !ok || known[name] {
			continue
		}
		meant := strings.TrimSuffix(strings.TrimPrefix(rules.Nearest(behind, short), "did you mean "), "?")
		if known[ours+meant] {
			meant = ours + meant
		}
		if meant != "" {
			errs = append(errs, fmt.Errorf("%s is no setting\n  → did you mean %s?", name, meant))
		}
	}
	return errors.Join(errs...)
}

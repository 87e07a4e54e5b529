package rules

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"
)

// TestSources holds that each of many rules keeps its own text, that its version is that text's hash, and that what a file calls
// sensitive is a part of both.
func TestSources(t *testing.T) {
	t.Parallel()
	var file strings.Builder
	file.WriteString("sensitive: [message.seven.token]\nrules:\n")
	names := []string{"seven"}
	for i := range 3*partSize + 1 {
		names = append(names, fmt.Sprint("rule-", i))
	}
	for _, name := range names {
		fmt.Fprintf(&file, "  - name: %[1]s\n    on: {message: %[1]s}\n    to: {address: %[1]s@example.com}\n    template: one\n", name)
	}
	s := new(Source)
	if errs := append(s.add("x.yaml", []byte(file.String())), s.unite()...); len(errs) > 0 {
		t.Fatal(errs)
	}
	n := 0
	for r, source := range Sources(s.Rules) {
		if string(source) != string(r.Source()) || r.Version() != sha256.Sum256(source) || !strings.Contains(string(source), "- name: "+names[n]+"\n") {
			t.Errorf("%s, version %x:\n%s", r.Name, r.Version(), source)
		}
		if veiled := strings.HasPrefix(string(source), "sensitive:"); veiled != (r.Name == "seven") {
			t.Errorf("%s is sensitive: %v", r.Name, veiled)
		}
		n++
	}
	if n != len(names) {
		t.Errorf("%d of %d rules", n, len(names))
	}
}

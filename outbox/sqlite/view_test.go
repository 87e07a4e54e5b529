package sqlite_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postman/outbox"
	"postman/outbox/sqlite"
)

// TestReadOnly: a store can be read while another process owns it, and a copy when none does; neither is changed by that.
func TestReadOnly(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "postman.db")
	owner, err := sqlite.Open(path, sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	view, err := sqlite.Open(path, sqlite.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := owner.RuleIDs(t.Context(), outbox.RuleName{Name: "visit"}); err != nil {
		t.Fatal(err)
	}
	if all, err := view.Rules(t.Context()); err != nil || len(all) != 1 || view.ID() != owner.ID() {
		t.Errorf("beside its owner it has %v (%v)", all, err)
	}
	if _, err := view.RuleIDs(t.Context(), outbox.RuleName{Name: "another"}); err == nil || !strings.Contains(err.Error(), "reading alone") {
		t.Errorf("writing gave %v", err)
	}
	if err := view.Close(); err != nil {
		t.Error(err)
	}
	if err := owner.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := sqlite.Open(filepath.Join(t.TempDir(), "none.db"), sqlite.Options{ReadOnly: true}); err == nil {
		t.Error("a store that is not there was opened")
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(t.TempDir(), "copy.db")
	if err := os.WriteFile(copied, text, 0o600); err != nil {
		t.Fatal(err)
	}
	view, err = sqlite.Open(copied, sqlite.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	if all, err := view.Rules(t.Context()); err != nil || len(all) != 1 {
		t.Errorf("a copy has %v (%v)", all, err)
	}
	if err := view.Close(); err != nil {
		t.Error(err)
	}
}

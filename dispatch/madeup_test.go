package dispatch

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgtype"

	"postman/cdc"
	"postman/internal/pgcluster/pgtest"
	"postman/outbox"
	"postman/rules"
	"postman/value"
)

// TestRehearseHides holds that a mail shows no sensitive value where they are hidden, and that look-ups still ask with it.
func TestRehearseHides(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{schema: expandSchema, rules: expandRules, templates: expandTemplates, stopped: true})
	h := w.rehearser()
	h.HideSensitive = true
	facts := w.noted(1, 0, "")
	r, err := w.rule(t.Context(), outbox.Match{RuleName: "shows"})
	w.check(err)
	made, err := h.Rehearse(t.Context(), r, facts, w.lookup)
	if err != nil || len(made.Mails) != 1 || !strings.Contains(made.Mails[0].HTML, "&lt;sensitive&gt;") || strings.Contains(string(made.Mails[0].Bytes), "s3cret") {
		t.Errorf("%+v, %v", made, err)
	}
	if f, _ := facts.New.Field("secret"); string(f.Text) != "s3cret" {
		t.Errorf("the facts themselves have %q now", f.Text)
	}
	r, err = w.rule(t.Context(), outbox.Match{RuleName: "secret"})
	w.check(err)
	pgtest.Exec(t, w.url, `insert into staff (id, email, name) values (90, 's3cret', 'by secret')`)
	if made, err = h.Rehearse(t.Context(), r, facts, w.lookup); err != nil || len(made.Mails) != 1 {
		t.Errorf("asked with the secret: %+v, %v", made, err)
	}
}

// TestRehearseHidesKeys does the same with a message.
func TestRehearseHidesKeys(t *testing.T) {
	t.Parallel()
	rule, err := rules.Revive([]byte("sensitive: [message.m.token, message.m.gone]\nrules: [{name: m, on: {message: m}, to: message.email, template: m}]"), nil)
	if err != nil {
		t.Fatal(err)
	}
	content := map[string]any{"email": "kim@example.com", "token": "s3cret"}
	d := &draft{rule: rule, facts: &rules.Facts{Op: cdc.Emit.String(), Message: content}}
	if err := (&Rehearser{HideSensitive: true}).show(d); err != nil {
		t.Fatal(err)
	}
	seen := d.data["message"].(map[string]any)
	if _, there := seen["gone"]; there || seen["token"] != veiled || seen["email"] != "kim@example.com" || content["token"] != "s3cret" {
		t.Errorf("%v, and %v", seen, content)
	}
}

// TestMadeUp holds that made-up values are read by their types.
func TestMadeUp(t *testing.T) {
	t.Parallel()
	for _, oid := range []uint32{
		pgtype.BoolOID, pgtype.Int2OID, pgtype.Int4OID, pgtype.Int8OID, pgtype.OIDOID, pgtype.NumericOID, pgtype.Float4OID, pgtype.Float8OID, pgtype.DateOID,
		pgtype.TimestampOID, pgtype.TimestamptzOID, pgtype.JSONOID, pgtype.JSONBOID, pgtype.ByteaOID, pgtype.TextOID, pgtype.UUIDOID, pgtype.TextArrayOID,
		pgtype.Int4ArrayOID, pgtype.BPCharOID, pgtype.InetOID,
	} {
		if _, err := value.Decode(oid, value.Of(madeUp(oid))); err != nil {
			t.Errorf("%s: %v", value.TypeName(oid), err)
		}
	}
}

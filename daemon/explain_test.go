package daemon

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgtype"

	"postman/cdc"
	"postman/outbox"
	"postman/outbox/sqlite"
	"postman/rules"
	"postman/value"
)

// visits is a table of which the stream carries the old row's key alone.
func visits() *cdc.Table {
	column := func(name string, oid uint32) cdc.Column {
		return cdc.Column{Column: value.Column{Name: name, Type: value.Type{OID: oid, Base: oid, Name: value.TypeName(oid)}}}
	}
	t := &cdc.Table{TableName: cdc.TableName{Schema: "public", Name: "visits"}, OID: 1, Identity: cdc.IdentityDefault, Columns: []cdc.Column{
		column("id", pgtype.Int8OID), column("kind", pgtype.TextOID), column("email", pgtype.TextOID), column("pin", pgtype.TextOID), column("tags", pgtype.TextArrayOID),
		column("data", pgtype.JSONBOID),
	}}
	t.Columns[0].Key, t.Columns[0].PK, t.Columns[0].NotNull, t.Columns[1].NotNull = true, true, true, true
	return t
}

const explainRule = `
sensitive: [visits.pin]
rules:
  - name: visit
    about: You have a visit.
    on: {table: visits, ops: [insert, update]}
    when: new.kind == "visit" and new.email != "kim@example.com" and new.pin != nil
    to: [new.email, {address: "The Team <team@example.com>"}, {query: select email from staff}]
    template: visit
`

func revived(t *testing.T, source string, table *cdc.Table) *rules.Rule {
	t.Helper()
	r, err := rules.Revive([]byte(source), table)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// datums is a row of the table in the order of its columns; nil is NULL.
func datums(t *cdc.Table, row map[string]string) []value.Datum {
	list := make([]value.Datum, len(t.Columns))
	for i, c := range t.Columns {
		if text, ok := row[c.Name]; ok {
			list[i] = value.Of(text)
		}
	}
	return list
}

// explained appends a match to a store, expands it, and asks for its explanation as the commands do.
type explained struct {
	t     *testing.T
	store outbox.Store
	api   http.Handler
}

func newExplained(t *testing.T) *explained {
	t.Helper()
	store, err := sqlite.Open(filepath.Join(t.TempDir(), "postman.db"), sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return &explained{t, store, (&api{store: store, soft: DefaultConfig().SoftBounces.limit()}).handler()}
}

func (x *explained) append(version, shape []byte, m outbox.NewMatch) outbox.Match {
	x.t.Helper()
	src, err := x.store.SaveSource(x.t.Context(), outbox.Source{SystemID: "7", Database: "crm", Slot: "postman", Epoch: 1, State: outbox.SourceStreaming, Checkpoint: 1})
	if err != nil {
		x.t.Fatal(err)
	}
	ids, err := x.store.RuleIDs(x.t.Context(), outbox.RuleName{Name: "visit"})
	if err != nil {
		x.t.Fatal(err)
	}
	m.Rule = ids[0]
	m.Version, m.Due, m.Priority = outbox.HashOf(version), time.Now().Add(-time.Minute), outbox.Normal
	texts := map[outbox.Hash][]byte{m.Version: version}
	if shape != nil {
		m.Shape = outbox.HashOf(shape)
		texts[m.Shape] = shape
	}
	found, err := x.store.Append(x.t.Context(), outbox.Batch{Source: src.ID, Epoch: 1, Checkpoint: 20, Texts: texts, Transactions: []outbox.Transaction{
		{Tx: outbox.Tx{LSN: 10, End: 20, XID: 77, Time: time.Now()}, Matches: []outbox.NewMatch{m}},
	}}, 1)
	if err != nil || len(found) != 1 {
		x.t.Fatal(found, err)
	}
	return found[0]
}

func (x *explained) expand(m outbox.Match, messages ...outbox.NewMessage) {
	x.t.Helper()
	if _, err := x.store.Expand(x.t.Context(), outbox.Expansion{Match: m.ID, State: outbox.MatchExpanded, Messages: messages}); err != nil {
		x.t.Fatal(err)
	}
}

func (x *explained) get(path string) (v ExplainView, raw string) {
	x.t.Helper()
	w := httptest.NewRecorder()
	x.api.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	if w.Code != http.StatusOK {
		x.t.Fatalf("%s: %d %s", path, w.Code, w.Body)
	}
	if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil {
		x.t.Fatal(err)
	}
	return v, w.Body.String()
}

// TestExplain holds what is told of a match and a message, and that neither addresses nor sensitive values are.
func TestExplain(t *testing.T) {
	t.Parallel()
	x, table := newExplained(t), visits()
	rule := revived(t, explainRule, table)
	c := cdc.MakeChange(cdc.Update, table, datums(table, map[string]string{"id": "2", "kind": "visit", "email": "lee@example.com", "pin": "0815-secret", "data": `{"a": "b@c.example"}`}),
		datums(table, map[string]string{"id": "1", "kind": "call"}))
	m := x.append(rule.Source(), table.Shape(), outbox.NewMatch{Op: "update", Change: c.AppendRest(nil, nil)})
	x.expand(m,
		outbox.NewMessage{Address: "lee@example.com", State: outbox.MessageQueued, Recipient: []byte(`[{"name":"email","oid":25,"text":"lee@example.com"},{"name":"name","oid":25,"text":null}]`), CC: []string{"boss@example.com"}},
		outbox.NewMessage{Address: "team@example.com", State: outbox.MessageNoAddress, Reason: "not to team@example.com", Template: outbox.Hash{0xab}},
		outbox.NewMessage{Address: "park@example.com", State: outbox.MessageQueued, Recipient: []byte(`broken`)},
	)
	all := x.messages()
	v, raw := x.get(fmt.Sprintf("/v1/explain/messages/%d", all["lee@example.com"]))
	for _, secret := range []string{"lee@", "b@c", "team@", "boss@", "park@", "0815"} {
		if strings.Contains(strings.ReplaceAll(raw, jsonText(string(rule.Source())), ""), secret) {
			t.Errorf("it tells %s: %s", secret, raw)
		}
	}
	if v.Message.Address != "l***@example.com" || len(v.Messages) != 3 || v.Rule.Text != string(rule.Source()) || v.Rule.FirstUsed.IsZero() || v.Rule.About != "You have a visit." {
		t.Errorf("%+v", v)
	}
	if diff := cmp.Diff([]RecipientView{{
		Message: v.Message.ID, Address: "l***@example.com", Origin: "the expression new.email", CC: []string{"b***@example.com"},
		Row: []RecipientColumn{{Name: "email", Text: new("l***@example.com")}, {Name: "name"}, {Name: "locale"}, {Name: "timezone"}},
	}}, v.Recipients); diff != "" {
		t.Error(diff)
	}
	var columns []string
	for _, c := range v.Change.Columns {
		columns = append(columns, fmt.Sprintf("%s: %v → %v %v", c.Name, c.Old, c.New, c.Changed))
	}
	if diff := cmp.Diff([]string{
		"id: 1 → 2 true", "kind: <not in the stream> → visit false", "email: <not in the stream> → l***@example.com false",
		"pin: <not in the stream> → <sensitive> false", "tags: <not in the stream> → NULL false", `data: <not in the stream> → {"a": "b***@c.example"} false`,
	}, columns); diff != "" {
		t.Error(diff)
	}
	want := ` 7  ✓ new.kind == "visit"              new.kind = "visit"
 7  ✓ new.email != "kim@example.com"   new.email = "l***@example.com"
 7  ✓ new.pin != nil                   new.pin = <sensitive>
`
	want = strings.ReplaceAll(want, " 7  ", "11  ")
	if diff := cmp.Diff(want, v.Condition.Text(nil)); diff != "" || v.Condition.Verdict != "true" {
		t.Errorf("%s\n%s", v.Condition.Verdict, diff)
	}
	if v, _ := x.get(fmt.Sprintf("/v1/explain/messages/%d?unmask=1", all["lee@example.com"])); v.Message.Address != "lee@example.com" || v.Recipients[0].CC[0] != "boss@example.com" {
		t.Errorf("%+v", v.Message)
	}
	v, _ = x.get(fmt.Sprintf("/v1/explain/matches/%d", m.ID))
	origins := make([]string, len(v.Recipients))
	for i, r := range v.Recipients {
		origins[i] = r.Origin
	}
	if diff := cmp.Diff([]string{"the expression new.email", "the rule, which names it", "the query in line 15"}, origins); diff != "" {
		t.Error(diff)
	}
	if len(v.Unknown) != 2 || !strings.Contains(v.Unknown[1], "reading the stored recipient") || v.Message != nil {
		t.Errorf("%+v", v)
	}
	if v, _ := x.get(fmt.Sprintf("/v1/explain/messages/%d", all["team@example.com"])); !strings.HasPrefix(v.Template.Hash, "ab00") || v.Template.Name != "visit" {
		t.Errorf("%+v", v.Template)
	}
	for _, path := range []string{"messages/99", "matches/99"} {
		w := httptest.NewRecorder()
		x.api.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/v1/explain/"+path, nil))
		if w.Code != http.StatusNotFound {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
}

func jsonText(s string) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if e.Encode(s) != nil {
		return s
	}
	return strings.TrimSpace(b.String())
}

// messages are the ids of all messages, by address.
func (x *explained) messages() map[string]int64 {
	x.t.Helper()
	found, err := x.store.Messages(x.t.Context(), outbox.Filter{})
	if err != nil {
		x.t.Fatal(err)
	}
	ids := make(map[string]int64)
	for _, m := range found {
		ids[m.Address] = m.ID
	}
	return ids
}

// TestExplainHidesWhatQueriesRead holds that of a recipient's row nothing is told that may be made of a sensitive column of another table.
func TestExplainHidesWhatQueriesRead(t *testing.T) {
	t.Parallel()
	table := visits()
	rule := `rules: [{name: visit, on: {table: visits, ops: [insert]}, to: {query: "select email, name, token, lower(token) as t from vault"}, template: visit}]`
	c := cdc.MakeChange(cdc.Insert, table, datums(table, map[string]string{"id": "2", "kind": "visit"}), nil)
	for sensitive, want := range map[string][]string{
		"":                                       {"email", "name", "token", "t"},
		"sensitive: [vault.token]\n":             {"email", "name"},
		"sensitive: [vault.token, vault.name]\n": {"email"},
		"fly: true\n":                            {"email", "name"}, // a rule that cannot be read
	} {
		x := newExplained(t)
		m := x.append([]byte(sensitive+rule), table.Shape(), outbox.NewMatch{Op: "insert", Change: c.AppendRest(nil, nil)})
		x.expand(m, outbox.NewMessage{Address: "lee@example.com", State: outbox.MessageQueued, Recipient: []byte(
			`[{"name":"email","oid":25,"text":"lee@example.com"},{"name":"name","oid":25,"text":"hunter1"},{"name":"token","oid":25,"text":"hunter2"},{"name":"t","oid":25,"text":"hunter3"}]`,
		)})
		v, raw := x.get(fmt.Sprintf("/v1/explain/matches/%d?unmask=1", m.ID))
		var shown []string
		for _, c := range v.Recipients[0].Row {
			if c.Text != nil {
				shown = append(shown, c.Name)
			} else if c.Withheld == "" && !slices.Contains([]string{"locale", "timezone"}, c.Name) {
				t.Errorf("%s is NULL", c.Name)
			}
		}
		if !slices.Equal(shown, want) || strings.Count(raw, "hunter") != len(want)-1 {
			t.Errorf("%swith that, it tells %q: %s", sensitive, shown, raw)
		}
	}
}

// TestExplainErased holds that what was erased is told to be, and that what cannot be read any more costs nothing else, and shows no
// value of which nobody knows whether it is sensitive.
func TestExplainErased(t *testing.T) {
	t.Parallel()
	table := visits()
	rule := revived(t, explainRule, table)
	hide := func(name string) bool { return name == "pin" }
	c := cdc.MakeChange(cdc.Insert, table, datums(table, map[string]string{"id": "2", "kind": "visit", "pin": "0815"}), nil)
	x := newExplained(t)
	m := x.append(rule.Source(), table.Shape(), outbox.NewMatch{Op: "insert", Change: c.AppendRest(nil, hide)})
	v, _ := x.get(fmt.Sprintf("/v1/explain/matches/%d", m.ID))
	i := slices.IndexFunc(v.Change.Columns, func(c ColumnView) bool { return c.Name == "pin" })
	if got := v.Change.Columns[i].New.String(); got != "<sensitive, erased>" || v.Condition.Verdict != "undetermined" || v.Condition.Missing != "new.pin" {
		t.Errorf("%s, %+v", got, v.Condition)
	}
	if text := v.Condition.Text(nil); !strings.Contains(text, "new.pin is not known (sensitive, and erased since)") {
		t.Error(text)
	}

	x = newExplained(t)
	m = x.append([]byte("rules: [{name: visit, fly: true}]"), table.Shape(), outbox.NewMatch{Op: "insert", Change: c.AppendRest(nil, nil)})
	v, raw := x.get(fmt.Sprintf("/v1/explain/matches/%d", m.ID))
	if len(v.Unknown) != 1 || !strings.Contains(v.Unknown[0], "fly") || v.Condition.Verdict != "" || v.Match.ID != m.ID || strings.Contains(raw, "0815") {
		t.Errorf("%s", raw)
	}

	x = newExplained(t)
	message := revived(t, "sensitive: [message.visit.token]\nrules: [{name: visit, on: {message: visit}, to: message.email, template: visit}]", nil)
	emit := cdc.Change{Op: cdc.Emit, Prefix: "postman.visit", Content: []byte(`{"email": "kim@example.com", "n": 1.50, "token": "0815"}`)}
	m = x.append(message.Source(), nil, outbox.NewMatch{Op: "message", Change: emit.AppendRest(nil, nil)})
	v, raw = x.get(fmt.Sprintf("/v1/explain/matches/%d", m.ID))
	var keys []string
	for _, k := range v.Change.Keys {
		keys = append(keys, k.Name+" "+k.New.String())
	}
	if diff := cmp.Diff([]string{`email "k***@example.com"`, "n 1.50", "token <sensitive>"}, keys); diff != "" || strings.Contains(raw, "0815") {
		t.Errorf("%s\n%s", diff, raw)
	}
}

// TestGates holds where each state of a match and of a message stands, and that nothing is told behind that.
func TestGates(t *testing.T) {
	t.Parallel()
	rule := revived(t, explainRule, visits())
	now := time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)
	tell := func(e *explanation) string {
		e.mask, e.rule = Mask, rule
		var parts []string
		for _, g := range e.gates() {
			parts = append(parts, map[string]string{gatePassed: "✓", gateStopped: "✗", gateWaiting: "…"}[g.Outcome]+g.Gate)
		}
		return strings.Join(parts, " ")
	}
	matches := map[outbox.MatchState]string{
		outbox.MatchPending: "✓muted ✓held ✓expires …recipients", outbox.MatchHeld: "✓muted ✗held", outbox.MatchExpanded: "✓muted ✓held ✓expires ✓recipients",
		outbox.MatchMuted: "✗muted", outbox.MatchReplaced: "✓muted ✓held ✓expires ✗replaced", outbox.MatchCancelled: "✓muted ✓held ✓expires ✗cancelled",
		outbox.MatchExpired: "✓muted ✓held ✗expires", outbox.MatchNobody: "✓muted ✓held ✓expires ✗recipients", outbox.MatchFailed: "✓muted ✓held ✓expires ✗recipients",
		outbox.MatchDiscarded: "✓muted ✗held",
	}
	for _, s := range outbox.MatchStates() {
		m := &outbox.Match{State: s, Due: now, Reason: "because of kim@example.com"}
		if got := tell(&explanation{match: m}); got != matches[s] {
			t.Errorf("a match that is %s: %s, want %s", s, got, matches[s])
		}
	}
	if got := tell(&explanation{match: &outbox.Match{State: outbox.MatchFailed, Undecided: true}}); got != "✗when" {
		t.Errorf("a match on which the rule could not be tried: %s", got)
	}
	const before = "✓muted ✓held ✓expires ✓recipients "
	messages := map[outbox.MessageState]string{
		outbox.MessageQueued: "✓address …relay", outbox.MessageSending: "✓address ✓mail ✓mode …relay", outbox.MessageSent: "✓address ✓mail ✓mode ✓relay",
		outbox.MessageDead: "✓address ✓mail ✓mode ✗relay", outbox.MessageUncertain: "✓address ✓mail ✓mode ✗relay", outbox.MessageFailed: "✓address ✗mail",
		outbox.MessageNoAddress: "✗address", outbox.MessageExpired: "✓address ✗expires", outbox.MessageNotSent: "✓address ✓mail ✗mode",
	}
	for _, s := range outbox.MessageStates() {
		m := outbox.Message{State: s, Due: now, Reason: "because"}
		if strings.Contains(messages[s], "✓mail") {
			m.MessageID = "<1@x>"
		}
		want, ok := messages[s]
		if !ok {
			want = "✓address ✗" + s.String()
		}
		list := []outbox.Message{m}
		if got := tell(&explanation{match: &outbox.Match{State: outbox.MatchExpanded}, messages: list, message: &list[0]}); got != before+want {
			t.Errorf("a message that is %s: %s, want %s", s, got, before+want)
		}
	}
	e := &explanation{match: &outbox.Match{State: outbox.MatchHeld, Reason: "kim@example.com asked"}, mask: Mask}
	if g := e.gates(); g[len(g)-1].Detail != "k***@example.com asked" {
		t.Errorf("%+v", g)
	}
}

func TestMask(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"kim@example.com": "k***@example.com",
		"김민준 <kim.minjun+x@example.co.kr>, a@b.c": "김민준 <k***@example.co.kr>, a***@b.c",
		`{"to": "한@예.kr"}`:                        `{"to": "한***@예.kr"}`,
		"x @ y, @z, a@":                           "x @ y, @z, a@",
		"":                                        "",
	} {
		if got := Mask(text); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}

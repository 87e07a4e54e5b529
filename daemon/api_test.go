package daemon

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"postman/cdc"
	"postman/outbox"
)

// post asks the operators' interface for something, and returns what it answers.
func (x *explained) post(path, body string) (code int, answer string) {
	x.t.Helper()
	w := httptest.NewRecorder()
	x.api.ServeHTTP(w, httptest.NewRequest(http.MethodPost, path, strings.NewReader(body)))
	return w.Code, strings.NewReplacer(`\n`, "\n", `\"`, `"`).Replace(w.Body.String())
}

// Who names something by its id wants it to be done: that it cannot be is no success.
func TestActionsRefuseWhatTheyCannotTake(t *testing.T) {
	t.Parallel()
	x, table := newExplained(t), visits()
	rule := revived(t, explainRule, table)
	c := cdc.MakeChange(cdc.Insert, table, datums(table, map[string]string{"id": "1", "kind": "visit"}), nil)
	m := x.append(rule.Source(), table.Shape(), outbox.NewMatch{Op: "insert", Change: c.AppendRest(nil, nil)})
	x.expand(m, outbox.NewMessage{Address: "a@example.com", State: outbox.MessageNotSent, Reason: "dry-run"}, outbox.NewMessage{Address: "b@example.com", State: outbox.MessageHeld})
	ids := x.messages()
	final, held := ids["a@example.com"], ids["b@example.com"]
	for name, c := range map[string]struct {
		path, body string
		want       []string // empty: it is done
	}{
		"a final message":         {"retry", fmt.Sprintf(`{"messages": [%d]}`, final), []string{fmt.Sprintf("message %d is not-sent: dry-run", final), "retry takes matches that are failed and messages that are dead, failed or uncertain"}},
		"one of two":              {"release", fmt.Sprintf(`{"messages": [%d, %d]}`, held, final), []string{fmt.Sprintf("message %d is not-sent", final), "nothing was changed"}},
		"no message":              {"cancel", `{"messages": [99]}`, []string{"there is no message 99"}},
		"no match":                {"cancel", `{"matches": [99]}`, []string{"there is no match m99"}},
		"an expanded match":       {"cancel", fmt.Sprintf(`{"matches": [%d]}`, m.ID), []string{fmt.Sprintf("match m%d is expanded", m.ID)}},
		"nothing that is so":      {"retry", `{"states": ["dead"]}`, nil},
		"a misspelt rule":         {"retry", `{"rule": "visits"}`, []string{"no rule visits: did you mean visit?"}},
		"a list of one":           {"list", `{"rule": "visits"}`, []string{"no rule visits: did you mean visit?"}},
		"a rule without anything": {"list", `{"rule": "visit"}`, nil},
		"a misspelt state":        {"list", `{"states": ["send"]}`, []string{"there is no state send: did you mean sent?", "a message can be queued, sending,", "a match can be pending,", " or discarded"}},
	} {
		code, answer := x.post("/v1/outbox/"+c.path, c.body)
		if (code == http.StatusOK) != (len(c.want) == 0) {
			t.Errorf("%s: %d %s", name, code, answer)
		}
		for _, want := range c.want {
			if !strings.Contains(answer, want) {
				t.Errorf("%s: %s\nwant %q", name, answer, want)
			}
		}
	}
	var many []string
	for id := range 60 {
		many = append(many, fmt.Sprint(id+1000))
	}
	if _, answer := x.post("/v1/outbox/release/affected", `{"messages": [`+strings.Join(many, ",")+`]}`); !strings.Contains(answer, "there is no message 1009\nand 50 more\n") || strings.Contains(answer, "message 1010") {
		t.Errorf("many that are not there: %.2000s", answer)
	}
	if code, answer := x.post("/v1/outbox/release/affected", fmt.Sprintf(`{"messages": [%d, %d]}`, held, final)); code != http.StatusOK || !strings.Contains(answer, fmt.Sprintf(`"state":"held","count":1}],"matches":[],"refused":"message %d is not-sent`, final)) {
		t.Errorf("what would be moved: %d %s", code, answer)
	}
	if code, answer := x.post("/v1/outbox/release", fmt.Sprintf(`{"matches": [%d]}`, m.ID)); code != http.StatusOK || !strings.Contains(answer, `"messages":1`) {
		t.Errorf("releasing the held message of a match: %d %s", code, answer)
	}
}

// A message whose content is no JSON is told of in words, and its rule all the same.
func TestExplainNoJSON(t *testing.T) {
	t.Parallel()
	const source = "rules:\n  - name: visit\n    about: Somebody asked.\n    on: {message: lead}\n    to: message.email\n    template: visit\n"
	for content, want := range map[string]string{
		"":              `but nothing at all`,
		"name=Kim":      `but "name=Kim"`,
		`{"email": "k@`: `but a text of 13 bytes`,
	} {
		x := newExplained(t)
		rule := revived(t, source, nil)
		c := &cdc.Change{Op: cdc.Emit, Prefix: "postman.lead", Content: []byte(content)}
		m := x.append(rule.Source(), nil, outbox.NewMatch{Op: "message", Change: c.AppendRest(nil, nil)})
		v, _ := x.get(fmt.Sprintf("/v1/explain/matches/%d", m.ID))
		if v.Rule.About != "Somebody asked." || v.Template.Name != "visit" || len(v.Unknown) != 1 || !strings.Contains(v.Unknown[0], "its content is no JSON") {
			t.Errorf("%q: %+v", content, v)
		}
		told := strings.Join(v.Unknown, "") + v.Condition.Error
		if strings.Contains(told, "invalid character") || strings.Contains(told, "EOF") || strings.Contains(told, "k@") {
			t.Errorf("%q: %s", content, told)
		}
		if !strings.Contains(v.Unknown[0], want) {
			t.Errorf("%q: %s", content, v.Unknown[0])
		}
	}
}

// A message that nobody waits for leaves a trace: once in the log, and a count by its name.
func TestMessagesNoRuleTakes(t *testing.T) {
	t.Parallel()
	log := new(notebook)
	w := newWorld(t)
	w.also = log
	w.template("plain.html", `{{define "subject"}}Plain{{end}}{{define "body"}}<p></p>{{end}}`)
	w.rules(worldRules + markRule + "  - {name: lead, on: {message: lead}, to: message.email, template: plain}\n")
	d := w.start()
	w.sql(`select pg_logical_emit_message(true, 'postman.leed', '{}')`, `select pg_logical_emit_message(true, 'postman.leed', '{}')`, `select pg_logical_emit_message(true, 'postman.lead', '{}')`,
		`select pg_logical_emit_message(true, 'other.leed', '{}')`, `begin; select pg_logical_emit_message(true, 'postman.lost', '{}'); rollback`,
		`do $$ begin for i in 1..40 loop perform pg_logical_emit_message(true, 'postman.' || repeat('x', 100) || i, '{}'); end loop; end $$`)
	w.mark(d)
	got := d.Status().Stream.Untaken
	if got["leed"] != 2 || got["lead"] != 0 || got["lost"] != 0 || got[strings.Repeat("x", longestUntaken)+"…"] != 40 || len(got) != 2 {
		t.Errorf("untaken %v", got)
	}
	w.sql(`do $$ begin for i in 1..40 loop perform pg_logical_emit_message(true, 'postman.n' || i, '{}'); end loop; end $$`)
	w.mark(d)
	got = d.Status().Stream.Untaken
	var all int64
	for _, n := range got {
		all += n
	}
	if len(got) > mostUntaken+1 || all != 82 || got[otherNames] == 0 {
		t.Errorf("untaken %v", got)
	}
	if log.count("no rule takes the message postman.leed") != 1 || log.count("did you mean lead?") != 1 {
		t.Error("the log does not tell of postman.leed, once")
	}
}

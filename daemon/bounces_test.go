package daemon

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postman/bounce"
	"postman/cdc"
	"postman/outbox"
)

// TestTakeBounces: who signed, whom the mail went to and what the status says decide; nothing else does.
func TestTakeBounces(t *testing.T) {
	t.Parallel()
	kim, lee := "kim@example.com", "lee@example.com"
	failed := func(address, status string) bounce.Recipient {
		return bounce.Recipient{Address: address, Action: "failed", Status: status}
	}
	for name, c := range map[string]struct {
		cc, redirected string
		forged         bool
		recipients     []bounce.Recipient
		want           []string // kind, address and + where it is suppressed
		ignored        bool
	}{
		"hard":                   {recipients: []bounce.Recipient{failed("KIM@example.com", "5.1.1")}, want: []string{"hard " + kim + " +"}},
		"full":                   {recipients: []bounce.Recipient{failed(kim, "5.2.2")}, want: []string{"soft " + kim}},
		"policy":                 {recipients: []bounce.Recipient{failed(kim, "5.7.1")}, want: []string{"blocked " + kim}},
		"a complaint of nobody":  {recipients: []bounce.Recipient{{Action: "complaint", Status: "abuse"}}, want: []string{"complaint " + kim + " +"}},
		"forwarded":              {recipients: []bounce.Recipient{failed("x@elsewhere.example", "5.1.1")}, want: []string{"hard " + kim + " +"}},
		"it arrived":             {recipients: []bounce.Recipient{{Address: kim, Action: "delivered", Status: "2.0.0"}}, want: []string{"fine " + kim}},
		"a copy":                 {cc: "Lee <" + lee + ">", recipients: []bounce.Recipient{failed(lee, "5.1.1")}, want: []string{"hard " + lee + " +"}},
		"forwarded, with a copy": {cc: lee, recipients: []bounce.Recipient{failed("x@elsewhere.example", "5.1.1")}, want: []string{"hard "}},
		"redirected":             {redirected: "dev@example.com", recipients: []bounce.Recipient{failed("dev@example.com", "5.1.1")}, want: []string{"hard dev@example.com +"}},
		"redirected, not named":  {redirected: "dev@example.com", recipients: []bounce.Recipient{failed(kim, "5.1.1")}, want: []string{"hard dev@example.com +"}},
		"two":                    {cc: lee, recipients: []bounce.Recipient{failed(kim, "5.1.1"), failed(lee, "4.4.1")}, want: []string{"hard " + kim + " +", "soft " + lee}},
		"a forged token":         {forged: true, recipients: []bounce.Recipient{failed(kim, "5.1.1")}, ignored: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x, table := newExplained(t), visits()
			change := cdc.MakeChange(cdc.Insert, table, datums(table, map[string]string{"id": "1", "kind": "visit"}), nil)
			m := x.append(revived(t, explainRule, table).Source(), table.Shape(), outbox.NewMatch{Op: "insert", Change: change.AppendRest(nil, nil)})
			g := outbox.NewMessage{Address: kim, State: outbox.MessageSending, MessageID: "<1@x>", Body: []byte("x"), Lease: time.Now()}
			if c.cc != "" {
				g.CC = []string{c.cc}
			}
			x.expand(m, g)
			id := x.messages()[kim]
			if err := x.store.Record(t.Context(), []outbox.Outcome{{Message: id, State: outbox.MessageSent, Attempt: &outbox.Attempt{Started: time.Now(), Redirected: c.redirected}}}); err != nil {
				t.Fatal(err)
			}
			secret := x.store.Secret()
			if c.forged {
				secret = []byte("a guess")
			}
			report := bounce.Report{ID: "<r@mx>", Recipients: c.recipients, Senders: []string{"postmaster@example.com", bounce.Sender("b+*@b.example", secret, id)}}
			text, err := json.Marshal(report)
			if err != nil {
				t.Fatal(err)
			}
			for again := range 2 {
				code, answer := x.post("/v1/bounces", string(text))
				var view BouncesView
				if err := json.Unmarshal([]byte(answer), &view); err != nil || code != http.StatusOK || (view.Ignored != "") != c.ignored {
					t.Fatalf("%d %s %v", code, answer, err)
				}
				var got []string
				for _, b := range view.Bounces {
					got = append(got, b.Kind+" "+b.Address+map[bool]string{true: " +"}[b.Suppressed])
					if again == 1 && b.Kind != "fine" && b.Note != "it was taken before" {
						t.Errorf("taken twice: %+v", b)
					}
				}
				want := c.want
				if again == 1 {
					want = nil
					for _, w := range c.want {
						want = append(want, strings.TrimSuffix(w, " +"))
					}
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Error(diff)
				}
			}
			list, err := x.store.Suppressions(t.Context(), outbox.SuppressionFilter{})
			if err != nil {
				t.Fatal(err)
			}
			if want := strings.Count(strings.Join(c.want, ""), "+"); len(list) != want {
				t.Errorf("%d are suppressed, not %d: %+v", len(list), want, list)
			}
			if shown, err := x.store.Bounces(t.Context(), id); err != nil || len(shown) != len(c.want) && !strings.HasPrefix(c.want[0], "fine") {
				t.Errorf("kept are %+v, %v", shown, err)
			}
		})
	}
}

package bounce

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

// The events of Mailjet's documentation.
const (
	mailjetBounce = `{"event": "bounce", "time": 1430812195, "MessageID": 13792286917004336, "Message_GUID": "1ab23cd4-e567-8901-2345-6789f0gh1i2j",
		"email": "bounce@mailjet.com", "mj_campaign_id": 0, "mj_contact_id": 0, "customcampaign": "", "CustomID": "helloworld", "Payload": "", "blocked": false,
		"hard_bounce": true, "error_related_to": "recipient", "error": "user unknown", "comment": "550 5.1.1 <bounce@mailjet.com>: no such user"}`
	mailjetBlocked = `{"event": "blocked", "time": 1430812195, "MessageID": 13792286917004336, "email": "bounce@mailjet.com", "mj_campaign_id": 0,
		"mj_contact_id": 0, "customcampaign": "", "CustomID": "helloworld", "Payload": "", "error_related_to": "recipient", "error": "user unknown"}`
	mailjetSpam = `{"event": "spam", "time": 1430812195, "MessageID": 13792286917004336, "email": "bounce@mailjet.com", "mj_campaign_id": 1898,
		"mj_contact_id": 320, "customcampaign": "", "CustomID": "", "Payload": "", "source": "JMRPP"}`
	mailjetUnsub = `{"event": "unsub", "time": 1433334941, "MessageID": 20547674933128000, "email": "api@mailjet.com", "mj_campaign_id": 7276,
		"mj_contact_id": 126, "customcampaign": "", "CustomID": "helloworld", "Payload": "", "mj_list_id": 1, "ip": "127.0.0.1", "geo": "FR", "agent": "Mozilla/5.0"}`
	mailjetSent = `{"event": "sent", "time": 1433333949, "MessageID": 19421777835146490, "email": "api@mailjet.com", "mj_campaign_id": 7257, "mj_contact_id": 4,
		"customcampaign": "", "mj_message_id": "19421777835146490", "smtp_reply": "sent (250 2.0.0 OK 1433333948 fa5si855896wjc.199 - gsmtp)", "CustomID": "helloworld"}`
	mailjetOpen = `{"event": "open", "time": 1433103519, "MessageID": 19421777396190490, "email": "api@mailjet.com", "ip": "127.0.0.1", "agent": "Mozilla/5.0"}`
)

func TestReadMailjet(t *testing.T) {
	t.Parallel()
	bounced := Report{
		ID: "mailjet bounce 13792286917004336 1ab23cd4-e567-8901-2345-6789f0gh1i2j 1430812195", Senders: []string{"helloworld"},
		Recipients: []Recipient{{
			Address: "bounce@mailjet.com", Action: "failed", Status: "5.1.1", Is: Hard, Diagnostic: "recipient: user unknown: 550 5.1.1 <bounce@mailjet.com>: no such user",
		}},
	}
	blocked := Report{
		ID: "mailjet blocked 13792286917004336 1430812195", Senders: []string{"helloworld"},
		Recipients: []Recipient{{Address: "bounce@mailjet.com", Action: "failed", Is: Soft, Diagnostic: "not tried, recipient: user unknown"}},
	}
	spam := Report{
		ID:         "mailjet spam 13792286917004336 1430812195",
		Recipients: []Recipient{{Address: "bounce@mailjet.com", Action: "complaint", Status: "abuse", Is: Complaint, Diagnostic: "JMRPP"}},
	}
	unsub := Report{
		ID: "mailjet unsub 20547674933128000 1433334941", Senders: []string{"helloworld"},
		Recipients: []Recipient{{Address: "api@mailjet.com", Action: "unsubscribe", Is: Unsubscribe}},
	}
	for name, c := range map[string]struct {
		call string
		want []Report
		odd  []string
		err  string
	}{
		"one":                  {mailjetBounce, []Report{bounced}, nil, ""},
		"grouped":              {"\r\n [" + strings.Join([]string{mailjetSent, mailjetBounce, mailjetOpen, mailjetSpam, mailjetBlocked, mailjetUnsub}, ",") + "]\n", []Report{bounced, spam, blocked, unsub}, nil, ""},
		"none":                 {"[]", nil, nil, ""},
		"nothing that bounced": {mailjetSent, nil, nil, ""},
		"numbers in quotes":    {strings.NewReplacer("1430812195", `"1430812195"`, "13792286917004336", `"13792286917004336"`, "true", `"true"`).Replace(mailjetBounce), []Report{bounced}, nil, ""},
		"a truth in numbers":   {strings.Replace(mailjetBounce, "true", "1", 1), []Report{bounced}, nil, ""},
		"a null and an object": {
			strings.NewReplacer(`"JMRPP"`, `{"loop": [1, "JMRPP"]}`, `"CustomID": ""`, `"CustomID": null`).Replace(mailjetSpam),
			[]Report{{ID: spam.ID, Recipients: []Recipient{{Address: "bounce@mailjet.com", Action: "complaint", Status: "abuse", Is: Complaint}}}},
			nil, "",
		},
		"some that are odd": {
			`[5, ` + mailjetBounce + `, {"event": "typofix", "email": "a@b"}, {"event": "spam"}, {"event": "bounce", "email": "two words@b"}, null, ` + mailjetSpam + "]",
			[]Report{bounced, spam},
			[]string{
				"event 1: it is no object", `event 3: Mailjet has no event of the type "typofix" that postman knows of`, "event 4: spam, and its email is no address",
				"event 5: bounce, and its email is no address", `event 6: Mailjet has no event of the type "" that postman knows of`,
			},
			"",
		},
		"a million that are odd": {"[" + strings.Repeat("{},", 999) + "{}]", nil, func() (odd []string) {
			for i := range 10 {
				odd = append(odd, fmt.Sprintf(`event %d: Mailjet has no event of the type "" that postman knows of`, i+1))
			}
			return odd
		}(), ""},
		"nothing":           {"", nil, nil, "EOF"},
		"a form":            {"event=bounce&email=kim%40example.com", nil, nil, "invalid character"},
		"a text":            {`"bounce"`, nil, []string{"event 1: it is no object"}, ""},
		"cut":               {"[" + mailjetBounce + "," + mailjetSpam[:50], []Report{bounced}, nil, "unexpected EOF"},
		"cut between two":   {"[" + mailjetBounce, []Report{bounced}, nil, "EOF"},
		"two, not in one":   {mailjetBounce + mailjetSpam, []Report{bounced}, nil, "behind its end"},
		"a bracket too few": {"[" + mailjetBounce + "}", []Report{bounced}, nil, "invalid character"},
		"deep":              {strings.Repeat("[", 100_000), nil, nil, "exceeded max depth"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, odd, err := ReadMailjet(strings.NewReader(c.call))
			if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("the error is %v, not %q", err, c.err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(c.odd, odd); diff != "" {
				t.Error(diff)
			}
		})
	}
	broken := errors.New("the line is cut")
	if _, _, err := ReadMailjet(iotest.ErrReader(broken)); !errors.Is(err, broken) {
		t.Errorf("the reader's error became %v", err)
	}
}

// TestMailjetClasses holds what each error of Mailjet's table means for the address: as it says that the error is permanent, that it is not, and
// that it did not try.
func TestMailjetClasses(t *testing.T) {
	t.Parallel()
	for what, want := range map[string]string{
		"recipient/user unknown":             "hard soft soft",
		"recipient/mailbox inactive":         "hard soft soft",
		"recipient/quota exceeded":           "soft soft soft",
		"recipient/blacklisted":              "blocked blocked blocked",
		"recipient/spam reporter":            "complaint complaint complaint",
		"recipient/something new":            "soft soft soft",
		"domain/invalid domain":              "hard soft soft",
		"domain/no mail host":                "soft soft soft",
		"domain/relay/access denied":         "blocked blocked blocked",
		"domain/greylisted":                  "soft - -",
		"domain/typofix":                     "soft soft soft",
		"domain/something new":               "blocked blocked blocked",
		"content/bad or empty template":      "blocked blocked blocked",
		"content/error in template language": "blocked blocked blocked",
		"spam/sender blocked":                "blocked blocked blocked",
		"spam/content blocked":               "blocked blocked blocked",
		"spam/policy issue":                  "blocked blocked blocked",
		"system/system issue":                "blocked blocked blocked",
		"system/protocol issue":              "blocked blocked blocked",
		"system/connection issue":            "soft soft soft",
		"mailjet/preblocked":                 "soft soft soft",
		"mailjet/duplicate in campaign":      "blocked blocked blocked",
		"/":                                  "soft soft soft",
	} {
		related, why, _ := strings.Cut(what, "/")
		var got []string
		for _, kind := range []string{`"event": "bounce", "hard_bounce": true`, `"event": "bounce", "hard_bounce": false`, `"event": "blocked"`} {
			text, err := json.Marshal(why)
			if err != nil {
				t.Fatal(err)
			}
			reports, odd, err := ReadMailjet(strings.NewReader(fmt.Sprintf(`{%s, "email": "kim@example.com", "error_related_to": %q, "error": %s}`, kind, related, text)))
			switch {
			case err != nil || len(odd) > 0:
				t.Errorf("%s: %v %v", what, odd, err)
			case len(reports) == 0:
				got = append(got, "-")
			default:
				got = append(got, string(reports[0].Recipients[0].Class()))
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %v, not %s", what, got, want)
		}
	}
}

// FuzzMailjet: whatever comes, it ends; what it says can be shown and stored, and comes to the same another time.
func FuzzMailjet(f *testing.F) {
	for _, event := range []string{mailjetBounce, mailjetBlocked, mailjetSpam, mailjetUnsub, mailjetSent, mailjetOpen} {
		f.Add([]byte(event))
		f.Add([]byte("[" + event + "," + event + "]"))
	}
	f.Fuzz(func(t *testing.T, call []byte) {
		reports, odd, err := ReadMailjet(strings.NewReader(string(call)))
		if len(reports) > len(call) || len(odd) > mostOdd {
			t.Errorf("%d reports and %d odd events of %d bytes", len(reports), len(odd), len(call))
		}
		for i := range reports {
			r := &reports[i]
			if len(r.Recipients) != 1 {
				t.Fatalf("%+v", r)
			}
			one := &r.Recipients[0]
			for _, s := range append(r.Senders, r.ID, one.Address, one.Status, one.Diagnostic, one.String()) {
				if plain(s) != s {
					t.Errorf("%q cannot be shown", s)
				}
			}
			if !strings.Contains(one.Address, "@") || one.Class() == "" || one.Class() == Fine {
				t.Errorf("%+v", one)
			}
			for _, s := range r.Senders {
				Message(key, s)
			}
		}
		again, _, errAgain := ReadMailjet(strings.NewReader(string(call)))
		if diff := cmp.Diff(reports, again); diff != "" || (err == nil) != (errAgain == nil) {
			t.Errorf("another time: %v, %v\n%s", err, errAgain, diff)
		}
	})
}

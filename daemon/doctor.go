package daemon

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"
)

// Level says how bad a finding is.
type Level string

// The levels.
const (
	Fine Level = "ok"
	// Doubtful is what keeps no mail from going, and may keep it from arriving, or is not known.
	Doubtful Level = "warning"
	// Harmful is what keeps mail from going.
	Harmful Level = "trouble"
)

// Finding is one thing that Doctor looked at.
type Finding struct {
	Area  string `json:"area"` // settings, sender, relay, webhook, database, store
	Name  string `json:"name"`
	Level Level  `json:"level"`
	Text  string `json:"text"`
	Todo  string `json:"todo,omitempty"` // what to do about it
}

// Diagnosis is all that Doctor found.
type Diagnosis struct {
	Version  string    `json:"version"`
	Healthy  bool      `json:"healthy"` // nothing was found that keeps mail from going
	Findings []Finding `json:"findings"`
}

// DoctorOptions is what an operator asks of Doctor.
type DoctorOptions struct {
	Resolver  string   // host:port of a DNS server; empty: the system's
	Selectors []string // of DKIM; empty: those that are usual
}

// Doctor looks at all that mail needs on its way: settings, what the DNS says of the sender, relays, database and store. It changes nothing, sends no mail,
// and reads no more than it tells of.
func Doctor(ctx context.Context, c *Config, o DoctorOptions) *Diagnosis {
	d := &doctor{config: c, options: o, Diagnosis: &Diagnosis{Version: Version()}}
	d.settings(ctx)
	d.sender(ctx)
	d.relays(ctx)
	d.public(ctx)
	d.database(ctx)
	d.store()
	d.Healthy = true
	for i := range d.Findings {
		d.Healthy = d.Healthy && d.Findings[i].Level != Harmful
	}
	return d.Diagnosis
}

// doctor is one run of Doctor.
type doctor struct {
	*Diagnosis
	config  *Config
	options DoctorOptions
	area    string
}

func (d *doctor) find(l Level, name, text, todo string) {
	d.Findings = append(d.Findings, Finding{d.area, name, l, oneLine(text), todo})
}

func (d *doctor) settings(ctx context.Context) {
	d.area = "settings"
	d.find(Fine, "version", "postman "+Version(), "")
	if err := d.config.Validate(); err != nil {
		for line := range strings.SplitSeq(err.Error(), "\n") {
			d.find(Harmful, "configuration", line, "postman.yaml and docs/cli.md say what each setting takes")
		}
	}
	switch d.config.Mode {
	case "live":
		d.find(Fine, "mode", "live: mails go to their recipients", "")
	case "redirect":
		d.find(Doubtful, "mode", "redirect: all mails go to "+d.config.Redirect, "when that is not meant: POSTMAN_MODE=live")
	default:
		d.find(Doubtful, "mode", cmp.Or(d.config.Mode, "none")+": nothing is sent", "when that is not meant: POSTMAN_MODE=live")
	}
	d.daemon(ctx)
}

// daemon asks the one that runs, if one does.
func (d *doctor) daemon(ctx context.Context) {
	status, err := askStatus(ctx, d.config.StorePath())
	switch {
	case errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED):
		d.find(Doubtful, "daemon", "none runs on "+d.config.StorePath(), "postman run")
	case err != nil:
		d.find(Harmful, "daemon", "it does not answer: "+err.Error(), "look at its log; it may be starting or stopping")
	case !status.Healthy:
		d.find(Harmful, "daemon", "not healthy: "+strings.Join(status.Trouble, "; "), "postman status")
	case len(status.Trouble) > 0:
		d.find(Doubtful, "daemon", fmt.Sprintf("streams, with trouble: %s", strings.Join(status.Trouble, "; ")), "postman status")
	case status.Version != Version():
		d.find(Doubtful, "daemon", "streams, and is of version "+status.Version, "start it again when it is to be this one")
	default:
		d.find(Fine, "daemon", "streams since "+status.Started.UTC().Format(time.RFC3339), "")
	}
}

// askStatus asks the daemon that owns a store how it does.
func askStatus(ctx context.Context, store string) (*Status, error) {
	ctx, cancel := context.WithTimeout(ctx, lockPatience)
	defer cancel()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return DialSocket(ctx, store) }}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://postman/v1/status", http.NoBody)
	if err != nil {
		return nil, err
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	status := new(Status)
	return status, json.NewDecoder(response.Body).Decode(status)
}

package daemon

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"postman/dispatch"
)

// public says whether what comes back over Mailjet comes to somebody: it puts its own envelope sender, so that no server reports to ours.
func (d *doctor) public(ctx context.Context) {
	d.area = "webhook"
	const name = "Mailjet"
	relays := d.config.relays(func(string, ...any) {}) // what is wrong with them is told elsewhere
	auth, err := d.config.Public.mailjet()
	switch {
	case err != nil: // it is among the settings
	case auth == "" && slices.ContainsFunc(relays, func(r dispatch.Relay) bool { return r.TokenField == providers["mailjet"].tokenField }):
		d.find(Doubtful, name, "bounces and complaints of mails over Mailjet come to nobody: it takes them itself, and its webhook is not set up",
			"set POSTMAN_PUBLIC_HTTP, POSTMAN_PUBLIC_URL and POSTMAN_MAILJET_AUTH (docs/bounces.md)")
	case auth == "":
	case d.config.Public.URL == "":
		d.find(Doubtful, name, "the webhook is served on "+d.config.Public.HTTP+"; whether it is reached from outside is not known", "set POSTMAN_PUBLIC_URL to what Mailjet reaches it under")
	default:
		d.webhook(ctx, name, auth)
	}
}

// webhook calls it as Mailjet does, with no event.
func (d *doctor) webhook(ctx context.Context, name string, auth Secret) {
	ctx, cancel := context.WithTimeout(ctx, doctorPatience)
	defer cancel()
	hook := d.config.Public.webhook()
	status, err := callHook(ctx, hook, auth)
	switch {
	case err != nil:
		d.find(Doubtful, name, "the webhook is not reached from here: "+err.Error(), "does a daemon run, and does a proxy bring "+hook+" to "+d.config.Public.HTTP+"?")
	case status == http.StatusOK:
		d.find(Fine, name, "the webhook answers at "+hook, "")
	case status == http.StatusUnauthorized:
		d.find(Doubtful, name, hook+" refuses the password that is configured here", "start the daemon again when it was changed; and the proxy has to leave the field Authorization as it is")
	default:
		d.find(Doubtful, name, fmt.Sprintf("%s answers %d, and not 200: Mailjet's calls do not arrive", hook, status), "does a proxy bring it to "+d.config.Public.HTTP+", with its path as it is behind that of POSTMAN_PUBLIC_URL?")
	}
}

func callHook(ctx context.Context, hook string, auth Secret) (status int, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, hook, strings.NewReader("[]"))
	if err != nil {
		return 0, err
	}
	user, password, _ := strings.Cut(string(auth), ":")
	request.SetBasicAuth(user, password)
	client := http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true, Proxy: http.ProxyFromEnvironment},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // Mailjet's call would not be a POST behind it
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, io.LimitReader(response.Body, 64<<10))
	return response.StatusCode, err
}

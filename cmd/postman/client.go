package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"syscall"

	"postman/daemon"
)

// client talks to the operators' interface: the running daemon's, or one that it serves itself from the store when none runs.
type client struct {
	http  *http.Client
	close func() error
}

// connect finds the daemon that owns the store, or opens the store.
func connect(ctx context.Context, c daemon.Config) (*client, error) {
	conn, err := daemon.DialSocket(ctx, c.StorePath())
	if err == nil {
		conn.Close() // it lives; each request dials anew
		dial := func(ctx context.Context, _, _ string) (net.Conn, error) { return daemon.DialSocket(ctx, c.StorePath()) }
		return &client{&http.Client{Transport: &http.Transport{DialContext: dial}}, func() error { return nil }}, nil
	}
	if !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ECONNREFUSED) {
		return nil, fmt.Errorf("talking to the running postman: %w", err)
	}
	if _, err := os.Stat(c.StorePath()); err != nil {
		return nil, usageError{fmt.Errorf("there is no store at %s: %w\n  → postman run makes it; or name another one with STORE_URL", c.StorePath(), err)}
	}
	api, closeStore, err := daemon.OpenAPI(ctx, c)
	if err != nil {
		return nil, err
	}
	return &client{&http.Client{Transport: inProcess{api}}, closeStore}, nil
}

// inProcess serves requests without a network.
type inProcess struct{ handler http.Handler }

// RoundTrip answers one request.
func (t inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	a := answer{header: make(http.Header), status: http.StatusOK}
	t.handler.ServeHTTP(&a, r)
	return &http.Response{StatusCode: a.status, Status: http.StatusText(a.status), Header: a.header, Body: io.NopCloser(&a.body), Request: r}, nil
}

// answer takes in what a handler writes.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) WriteHeader(status int)      { a.status = status }
func (a *answer) Write(p []byte) (int, error) { return a.body.Write(p) }

// call sends in as JSON, if there is any, and reads the answer into out. The raw answer is returned for --json.
func (c *client) call(ctx context.Context, method, path string, in, out any) ([]byte, error) {
	var body io.Reader = http.NoBody
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://postman"+path, body)
	if err != nil {
		return nil, err
	}
	response, err := c.http.Do(request)
	if err != nil {
		return nil, fmt.Errorf("asking the running postman: %w", err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, fmt.Errorf("reading the answer: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		var failed struct{ Error string }
		json.Unmarshal(text, &failed) //nolint:errcheck // an answer that is no JSON leaves the status to tell
		err := fmt.Errorf("%s", firstOf(failed.Error, response.Status))
		if response.StatusCode < 500 {
			return nil, usageError{err}
		}
		return nil, err
	}
	return text, json.Unmarshal(text, out)
}

func firstOf(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

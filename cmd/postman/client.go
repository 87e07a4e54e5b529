package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"postman/daemon"
)

// client talks to the operators' interface: the running daemon's, or one that it serves itself from the store when none runs.
type client struct {
	http  *http.Client
	close func() error
}

// lockPatience is how long the store may be somebody's whom nobody can talk to: a daemon that starts has it before it listens, and so do
// others' commands while none runs.
const lockPatience = 3 * time.Second

// connect finds the daemon that owns the store, or opens the store.
func connect(ctx context.Context, c daemon.Config) (*client, error) {
	for began := time.Now(); ; {
		to, err := tryConnect(ctx, c)
		if !errors.Is(err, daemon.ErrLocked) || time.Since(began) > lockPatience {
			return to, err
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func tryConnect(ctx context.Context, c daemon.Config) (*client, error) {
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
		return nil, noStore(c.StorePath(), err)
	}
	api, closeStore, err := daemon.OpenAPI(ctx, c)
	if err != nil {
		return nil, err
	}
	return &client{&http.Client{Transport: inProcess{api}}, closeStore}, nil
}

// inProcess serves requests without a network.
type inProcess struct{ handler http.Handler }

// RoundTrip answers one request. The handler runs until it is done, or nobody reads any more what it writes.
func (t inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	from, to := io.Pipe()
	a := &answer{header: make(http.Header), begun: make(chan int, 1), to: to}
	go func() {
		t.handler.ServeHTTP(a, r)
		a.WriteHeader(http.StatusOK)
		to.Close() //nolint:errcheck // of a pipe, which has no errors
	}()
	status := <-a.begun
	return &http.Response{StatusCode: status, Status: http.StatusText(status), Header: a.header, Body: from, Request: r}, nil
}

// answer hands on what a handler writes.
type answer struct {
	header http.Header
	begun  chan int // gets the status, once
	once   sync.Once
	to     *io.PipeWriter
}

func (a *answer) Header() http.Header    { return a.header }
func (a *answer) WriteHeader(status int) { a.once.Do(func() { a.begun <- status }) }

func (a *answer) Write(p []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	return a.to.Write(p)
}

// call sends in as JSON, if there is any, and reads the answer into out. The raw answer is returned for --json.
func (c *client) call(ctx context.Context, method, path string, in, out any) ([]byte, error) {
	response, err := c.send(ctx, method, path, in)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, fmt.Errorf("reading the answer: %w", err)
	}
	return text, json.Unmarshal(text, out)
}

// stream sends in as JSON, and hands on the answer line by line as it comes.
func (c *client) stream(ctx context.Context, method, path string, in any, each func(line []byte) error) error {
	response, err := c.send(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	lines := bufio.NewReader(response.Body)
	for {
		line, err := lines.ReadBytes('\n')
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("reading the answer: %w", err)
		}
		if err := each(line); err != nil {
			return err
		}
	}
}

// send sends in as JSON, if there is any. An answer that tells of an error is that error.
func (c *client) send(ctx context.Context, method, path string, in any) (*http.Response, error) {
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
	if response.StatusCode == http.StatusOK {
		return response, nil
	}
	defer response.Body.Close()
	var failed struct{ Error string }
	json.NewDecoder(response.Body).Decode(&failed) //nolint:errcheck // an answer that is no JSON leaves the status to tell
	err = fmt.Errorf("%s", firstOf(failed.Error, response.Status))
	if response.StatusCode < 500 {
		return nil, usageError{err}
	}
	return nil, err
}

func firstOf(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// noStore is what keeps a command from opening a store that is not there. Where its path is relative that may be for the folder: a mail server, or a
// unit, starts it in one of its own.
func noStore(path string, err error) error {
	at, folder := path, ""
	if wd, wdErr := os.Getwd(); wdErr == nil && !filepath.IsAbs(path) {
		at, folder = filepath.Join(wd, path), fmt.Sprintf(" (%s is relative to the folder that the command is started in: name the whole path, store_url: sqlite:/…)", path)
	}
	return usageError{fmt.Errorf("there is no store at %s: %w%s\n  → postman run makes it; or name another one with STORE_URL", at, err, folder)}
}

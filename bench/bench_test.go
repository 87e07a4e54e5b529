package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestMain makes the test binary serve as the bare loop, as the program itself does.
func TestMain(m *testing.M) {
	if _, ok := parseLoop(os.Args[1:]); ok {
		os.Exit(run(os.Args[1:]))
	}
	os.Exit(m.Run())
}

// TestBareSide lets the harness measure the bare loop for a moment: every change's mail has to come.
func TestBareSide(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	database, err := startDatabase(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer database.stop(context.WithoutCancel(ctx))
	if err := database.createSlot(ctx, "bare"); err != nil {
		t.Fatal(err)
	}
	b := &bench{self: os.Args[0], database: database, id: 1}
	m := newMeeting()
	r, err := listen(m.arrived)
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	for _, pipeline := range []bool{false, true} {
		const n = 20
		took, err := b.turn(ctx, &bareSide{b, r.addr(), pipeline}, m, n)
		if err != nil {
			t.Fatal(err)
		}
		if len(took) != n {
			t.Errorf("%d changes were measured, not %d", len(took), n)
		}
		if p50 := quantile(took, 0.5); p50 < 0.01 || p50 > 10_000 {
			t.Errorf("a change took %v ms", p50)
		}
	}
	d := &drain{bench: b, rows: 10_000}
	_, end, err := d.backlog(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.turn(ctx, &drainingLoop{bareSide{bench: b}}, end, &d.bareRate, &d.bareMemory, nil); err != nil {
		t.Fatal(err)
	}
	if len(d.bareRate) != 1 || d.bareRate[0] < 1 || d.bareMemory[0] < 1 {
		t.Errorf("the drain found %v rows/s and %v MB", d.bareRate, d.bareMemory)
	}
}

// TestLostMail has the relay miss a mail: the harness must not wait for ever, nor forget it.
func TestLostMail(t *testing.T) {
	t.Parallel()
	m := newMeeting()
	for id := range int64(3) {
		m.committed(id, time.Now())
	}
	m.arrived(0, time.Now())
	m.arrived(2, time.Now())
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if took, err := m.took(ctx, 0, 2); err == nil {
		t.Errorf("it found %v, with a mail missing", took)
	}
}

// TestRelay talks to the relay as clients do that pipeline much, little, and byte by byte.
func TestRelay(t *testing.T) {
	t.Parallel()
	const talk = "EHLO x\r\nMAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\nDATA\r\n" +
		"Subject: change 17\r\n\r\n..\r\nSubject: change 18\r\n.\r\nRSET\r\nmail FROM:<a@x>\r\nDATA\r\nSubject: hello\r\n.\r\nFROB\r\nQUIT\r\n"
	const want = "220 bench ESMTP\r\n250-bench\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 ENHANCEDSTATUSCODES\r\n250 2.0.0 ok\r\n250 2.0.0 ok\r\n" +
		"354 go ahead\r\n250 2.0.0 queued\r\n250 2.0.0 ok\r\n250 2.0.0 ok\r\n354 go ahead\r\n250 2.0.0 queued\r\n500 5.5.1 no such command\r\n221 2.0.0 bye\r\n"
	for _, size := range []int{1, 7, len(talk)} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			t.Parallel()
			var ids []int64
			r, err := listen(func(id int64, _ time.Time) { ids = append(ids, id) })
			if err != nil {
				t.Fatal(err)
			}
			conn, err := net.Dial("tcp", r.addr())
			if err != nil {
				t.Fatal(err)
			}
			for at := 0; at < len(talk); at += size {
				if _, err := io.WriteString(conn, talk[at:min(at+size, len(talk))]); err != nil {
					t.Fatal(err)
				}
			}
			got, err := io.ReadAll(conn)
			if err != nil {
				t.Fatal(err)
			}
			r.close()
			if diff := cmp.Diff(want, string(got)); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff([]int64{17, -1}, ids); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestRules lets the harness measure the rules for a moment: each change must have the matches that it was made for.
func TestRules(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	b := &bench{quick: true, out: &out, dir: t.TempDir()}
	if err := b.rules(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"no match, 10 rules", "one match, 1000 rules", "20 signatures, values known", "10 range matches", "loading 1000 rules"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%s has no %q", out.String(), want)
		}
	}
}

func TestStatistics(t *testing.T) {
	t.Parallel()
	values := []float64{5, 1, 4, 2, 3}
	for _, test := range []struct {
		what      string
		got, want float64
	}{
		{"the least", quantile(values, 0), 1},
		{"p50", quantile(values, 0.5), 3},
		{"p99", quantile(values, 0.99), 5},
		{"median of five", median(values), 3},
		{"median of four", median(values[1:]), 2.5},
		{"median of none", median(nil), math.NaN()},
		{"p50 of none", quantile(nil, 0.5), math.NaN()},
	} {
		if test.got != test.want && !(math.IsNaN(test.got) && math.IsNaN(test.want)) {
			t.Errorf("%s: %v, not %v", test.what, test.got, test.want)
		}
	}
}

func TestTable(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	err := table(&out, "how it went", []line{
		{what: "kept", unit: "ms", bare: []float64{1, 2, 1}, ours: []float64{3, 4, 30}, bar: 7},
		{what: "missed", unit: "/s", bare: []float64{100, 100}, ours: []float64{80, 60}, bar: 0.9, atLeast: true},
		{what: "memory", unit: "MB", ours: []float64{40, 101}, bar: 100},
		{what: "told", unit: "ms", bare: []float64{12.34}},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := `
how it went
           bare      postman   ratio (min … max)     bar     
  kept     1.00 ms   4.00 ms   3.00 (2.00 … 30.00)   ≤ 7     ok       
  missed   100 /s    70.0 /s   0.70 (0.60 … 0.80)    ≥ 0.9   MISSED   
  memory             70.5 MB                         ≤ 100   MISSED   
  told     12.3 ms                                           
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
}

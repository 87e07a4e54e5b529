package dispatch

import (
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

func sleep(t testing.TB, d time.Duration) {
	t.Helper()
	time.Sleep(d)
	synctest.Wait()
}

func TestEnhanced(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"4.7.1 greylisted": "4.7.1", "5.1.1": "5.1.1", "2.0.0 ok\n2.0.0 more": "2.0.0", "5.7.999 x": "5.7.999",
		"": "", "ok": "", "3.1.1 x": "", "5.1 x": "", "5.1.1.1 x": "", "55.1.1 x": "", "5.1000.1 x": "", "5..1 x": "", "127.0.0.1 blocked": "",
	} {
		if got := (reply{text: text}).enhanced(); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestReplyIsOneLine(t *testing.T) {
	t.Parallel()
	r := reply{phase: naming, code: 550, text: "5.1.1 no\nsuch\tuser \xff"}
	if got := r.String(); got != "550 5.1.1 no such user ? (at RCPT)" {
		t.Error(got)
	}
}

func TestRetry(t *testing.T) {
	t.Parallel()
	r := Retry{Pauses: []time.Duration{30 * time.Second, 2 * time.Minute, 10 * time.Minute}, GiveUp: 40 * time.Minute}
	var got []time.Duration
	for n := 1; ; n++ {
		d, more := r.after(n)
		if !more {
			break
		}
		got = append(got, d)
	}
	want := []time.Duration{30 * time.Second, 2 * time.Minute, 10 * time.Minute, 10 * time.Minute, 10 * time.Minute}
	if len(got) != len(want) {
		t.Fatalf("%s", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("%s, want %s", got, want)
		}
	}
}

// TestRetryProperties: pauses are those of the table, and end in time, however odd the numbers.
func TestRetryProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		r := Retry{GiveUp: time.Duration(rapid.Int64Range(1, int64(100*time.Hour)).Draw(t, "give up"))}
		for range rapid.IntRange(1, 5).Draw(t, "pauses") {
			r.Pauses = append(r.Pauses, time.Duration(rapid.Int64Range(int64(time.Second), int64(50*time.Hour)).Draw(t, "pause")))
		}
		total := time.Duration(0)
		for n := 1; n < 100; n++ {
			d, more := r.after(n)
			if want := r.Pauses[min(n, len(r.Pauses))-1]; d != want {
				t.Fatalf("pause %d is %s, want %s", n, d, want)
			}
			if want := total+d <= r.GiveUp; more != want {
				t.Fatalf("after %d attempts and %s: %v", n, total, more)
			}
			if !more {
				if _, again := r.after(n + 1_000_000_000); again {
					t.Fatal("it is tried again after the last attempt")
				}
				return
			}
			total += d
		}
	})
}

func TestJittered(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		d := time.Duration(rapid.Int64Range(0, int64(1000*time.Hour)).Draw(t, "d"))
		if got := jittered(d); got < d-d/4 || got > d+d/4 {
			t.Fatalf("%s became %s", d, got)
		}
	})
}

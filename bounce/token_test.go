package bounce

import (
	"encoding/binary"
	"math"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

var key = []byte("a key of thirty-two bytes, or so")

func TestSender(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"bounces@example.com", "x*y", ""} {
		if got := Sender(address, key, 7); got != address {
			t.Errorf("%q became %q", address, got)
		}
	}
	got := Sender("bounces+*@example.com", key, 7)
	if !strings.HasPrefix(got, "bounces+") || !strings.HasSuffix(got, "@example.com") || len(got) > 40 {
		t.Error(got)
	}
	if Sender("*@b.example", key, 7) == Sender("*@b.example", key, 8) || Sender("*@b.example", key, 7) == Sender("*@b.example", key[1:], 7) {
		t.Error("the token depends on neither number nor key")
	}
	longest := Sender("*@b.example", key, -1)
	if local, _, _ := strings.Cut(longest, "@"); len(local) != mostToken || mostToken > MostLocalPart {
		t.Errorf("the longest token has %d characters, not %d", len(local), mostToken)
	}
}

func TestCheckSender(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"bounces@example.com":                      "",
		"*@bounces.example.com":                    "",
		"bounces+*@example.com":                    "",
		"b-*-x@example.com":                        "",
		"**@example.com":                           "more than one",
		"bounces*@example.com":                     "no letter or digit",
		"*x@example.com":                           "no letter or digit",
		strings.Repeat("b", 31) + "+*@example.com": "",
		strings.Repeat("b", 32) + "+*@example.com": "65 characters",
	} {
		err := CheckSender(address)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", address, err, want)
		}
	}
}

// TestMessage: a number comes back through all that servers do to an address, and through nothing else.
func TestMessage(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Int64().Draw(t, "number")
		address := Sender(rapid.SampledFrom([]string{"*@b.example", "bounces+*@example.com", "b-*-x@example.com"}).Draw(t, "setting"), key, n)
		if local, _, _ := strings.Cut(address, "@"); len(local) > MostLocalPart {
			t.Fatalf("%s is too long", local)
		}
		for name, changed := range map[string]string{
			"as it was": address, "in capitals": strings.ToUpper(address), "BATV": "prvs=0123456789=" + address,
			"SRS": "SRS0=HHHH=TT=example.com=" + strings.ReplaceAll(address, "@", "@fwd."), "without a domain": address[:strings.IndexByte(address, '@')],
		} {
			if got, ok := Message(key, changed); !ok || got != n {
				t.Fatalf("%s: %s is of %d, %v", name, changed, got, ok)
			}
		}
		if _, ok := Message([]byte("another key"), address); ok {
			t.Fatal("another key made it")
		}
		i := rapid.IntRange(0, len(address)-1).Draw(t, "at")
		forged := []byte(address)
		forged[i] = rapid.SampledFrom([]byte("abcdefghijklmnopqrstuvwxyz234567+-=@*")).Draw(t, "by")
		if got, ok := Message(key, string(forged)); ok && got != n {
			t.Fatalf("%s is of %d", forged, got)
		}
	})
}

// TestMessageForged: another number does not go with the same signature, however it is written.
func TestMessageForged(t *testing.T) {
	t.Parallel()
	for _, n := range []int64{0, 1, 127, 128, math.MaxInt64} {
		sum := mac(key, n)
		for name, number := range map[string][]byte{
			"the next": binary.AppendUvarint(nil, uint64(n)+1), "none": nil, "cut": {0x80}, "with more behind it": append(binary.AppendUvarint(nil, uint64(n)), 0),
			"too long": []byte("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
		} {
			address := encoding.EncodeToString(append(number, sum...)) + "@b.example"
			if got, ok := Message(key, address); ok {
				t.Errorf("%d, %s: %s is of %d", n, name, address, got)
			}
		}
	}
	for _, address := range []string{"", "@", "kim@example.com", strings.Repeat("a", 1000) + "@x", strings.Repeat("a", 20)} {
		if n, ok := Message(key, address); ok {
			t.Errorf("%q is of %d", address, n)
		}
	}
}

func BenchmarkSender(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		Sender("*@bounces.example.com", key, 1_234_567)
	}
}

package position

import (
	"strings"
	"testing"
)

func TestParseLSN(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]LSN{
		"0/0":               0,
		"16/B374D848":       0x16B374D848,
		"16/b374d848":       0x16B374D848,
		"FFFFFFFF/FFFFFFFF": 0xFFFFFFFFFFFFFFFF,
	} {
		if got, err := ParseLSN(text); err != nil || got != want {
			t.Errorf("ParseLSN(%q) = %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", "/", "1", "1/", "/1", "1/2xyz", "1/2/3", "100000000/2", "1/100000000", "-1/2", "+1/2", "1/0x2", "1/ 2", "1_0/2", "16/B374D848 ",
	} {
		if got, err := ParseLSN(text); err == nil {
			t.Errorf("ParseLSN(%q) = %v; want an error", text, got)
		}
	}
}

func TestPositionOrder(t *testing.T) {
	t.Parallel()
	ascending := []Position{
		{0, 9, 9, 9}, {1, 1, 5, 0}, {1, 1, 5, 1}, {1, 1, 6, 0}, {1, 2, 1, 0}, {2, 0, 0, 0},
	}
	for i, p := range ascending {
		for j, q := range ascending {
			if got := p.Compare(q); (got < 0) != (i < j) || (got == 0) != (i == j) {
				t.Errorf("%v.Compare(%v) = %d", p, q, got)
			}
		}
	}
}

func FuzzParseLSN(f *testing.F) {
	f.Add("16/B374D848")
	f.Add("1/2xyz")
	f.Fuzz(func(t *testing.T, text string) {
		lsn, err := ParseLSN(text)
		if err != nil {
			return
		}
		again, err := ParseLSN(lsn.String())
		if err != nil || again != lsn {
			t.Fatalf("%q read as %v, which reads as %v, %v", text, lsn, again, err)
		}
		// Leading zeros and lower case are the only liberties.
		high, low, _ := strings.Cut(strings.ToUpper(text), "/")
		if trim(high)+"/"+trim(low) != lsn.String() {
			t.Fatalf("%q read as %v", text, lsn)
		}
	})
}

func trim(half string) string {
	if s := strings.TrimLeft(half, "0"); s != "" {
		return s
	}
	return "0"
}

func FuzzParse(f *testing.F) {
	f.Add("1.1:16/B374D848#3")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := Parse(text)
		if err != nil {
			return
		}
		if again, err := Parse(p.String()); err != nil || again != p {
			t.Fatalf("%q read as %v, which reads as %v, %v", text, p, again, err)
		}
	})
}

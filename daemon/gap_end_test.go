package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"postman/cdc"
	"postman/internal/pgcluster/pgtest"
	"postman/outbox"
	"postman/position"
	"postman/rules"
)

// meddled is a store in whose calls that have to do with gaps something else happens.
type meddled struct {
	outbox.Store
	before, after func(call string) error // an error of before is the call's; nil: nothing happens
}

func (m *meddled) call(name string, do func() error) error {
	if m.before != nil {
		if err := m.before(name); err != nil {
			return err
		}
	}
	err := do()
	if err == nil && m.after != nil {
		err = m.after(name)
	}
	return err
}

func (m *meddled) Gaps(ctx context.Context) (gaps []outbox.Gap, err error) {
	err = m.call("Gaps", func() error { gaps, err = m.Store.Gaps(ctx); return err })
	return gaps, err
}

func (m *meddled) CloseGap(ctx context.Context, g outbox.Gap, to position.LSN) error {
	return m.call("CloseGap", func() error { return m.Store.CloseGap(ctx, g, to) })
}

func (m *meddled) SaveGap(ctx context.Context, g outbox.Gap) error {
	return m.call("SaveGap", func() error { return m.Store.SaveGap(ctx, g) })
}

var errDisk = errors.New("the disk is full")

// failsAt lets the nth call of a name fail, and no other.
func failsAt(name string, nth int) func(string) error {
	return func(call string) error {
		if call != name {
			return nil
		}
		if nth--; nth != 0 {
			return nil
		}
		return errDisk
	}
}

// onCall runs do in the first call of a name.
func onCall(name string, do func() error) func(string) error {
	done := false
	return func(call string) error {
		if done || call != name {
			return nil
		}
		done = true
		return do()
	}
}

// A rule may have two open gaps, when it broke for another reason after a restart. Wherever the store fails while they are being
// ended, it is tried again, and in the end both end where the rule decides again.
var failures = []struct {
	call string
	nth  int
}{{"Gaps", 1}, {"CloseGap", 1}, {"CloseGap", 2}}

// twoGaps has a rule broken from 10 on, and for another reason from 15.
func (d *Daemon) twoGaps(t *testing.T, by cause) {
	t.Helper()
	old := breakage{rule: "r", from: 15, why: "no table visits"}
	if err := d.store.SaveGap(t.Context(), old.gap(d.source)); err != nil {
		t.Fatal(err)
	}
	if err := d.breaks(t.Context(), breakage{rule: "r", from: 10, why: "no column kind", by: by}); err != nil {
		t.Fatal(err)
	}
}

// spans are the stored gaps, oldest beginning first.
func (d *Daemon) spans(t *testing.T) (spans []string) {
	t.Helper()
	for _, g := range d.storedGaps(t) {
		to := "open"
		if g.To != 0 {
			to = g.To.String()
		}
		spans = append(spans, fmt.Sprintf("%s to %s", g.From, to))
	}
	slices.Sort(spans)
	return spans
}

func TestStoreFailsWhileTheStreamEndsAGap(t *testing.T) {
	t.Parallel()
	for _, f := range failures {
		t.Run(fmt.Sprintf("%s %d", f.call, f.nth), func(t *testing.T) {
			t.Parallel()
			d := recording(t)
			d.twoGaps(t, byStream)
			mended, ok := d.broken.mends("r", byStream)
			if !ok {
				t.Fatal("the rule is not broken")
			}
			d.store = &meddled{Store: d.store, before: failsAt(f.call, f.nth)}
			d.endGap(t.Context(), mend{mended, 20})
			if spans := d.spans(t); !slices.Equal(spans, []string{"0/A to 0/14", "0/F to 0/14"}) {
				t.Errorf("the gaps: %q", spans)
			}
			if d.trouble["store"] != "" {
				t.Errorf("the store has recovered, and trouble is %q", d.trouble["store"])
			}
		})
	}
}

// A look that cannot store the end of a gap says so, and the next one ends it where the first would have.
func TestStoreFailsWhileALookEndsAGap(t *testing.T) {
	t.Parallel()
	conn := pgtest.Connect(t, pgtest.Database(t))
	for _, f := range failures {
		t.Run(fmt.Sprintf("%s %d", f.call, f.nth), func(t *testing.T) {
			d := recording(t)
			d.live.Store(&live{byName: map[string]*rules.Rule{"r": {Name: "r", On: rules.On{Message: "m"}}}})
			d.twoGaps(t, byCatalog)
			look := func() error {
				return d.heal(t.Context(), conn, &comparison{db: &cdc.Database{}, catalog: &cdc.Catalog{}})
			}
			if err := look(); err != nil || !d.outlook.waiting {
				t.Fatalf("%v; the stream has yet to come to where the catalog bears the rule", err)
			}
			sound := d.broken.list()[0].sound
			d.batch.done(sound)
			real := d.store
			d.store = &meddled{Store: real, before: failsAt(f.call, f.nth)}
			if err := look(); !errors.Is(err, errDisk) {
				t.Errorf("the look says %v", err)
			}
			if len(d.broken.list()) != 1 {
				t.Error("its gap is open, and the rule counts as whole")
			}
			if _, err := conn.Exec(t.Context(), "create table later (id int)"); err != nil { // the log goes on
				t.Fatal(err)
			}
			if err := look(); err != nil {
				t.Error(err)
			}
			want := []string{"0/A to " + sound.String(), "0/F to " + sound.String()}
			if spans := d.spans(t); !slices.Equal(spans, want) {
				t.Errorf("the gaps: %q; want %q", spans, want)
			}
			if list := d.broken.list(); len(list) != 0 {
				t.Errorf("still broken: %+v", list)
			}
			if _, err := conn.Exec(t.Context(), "drop table later"); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// While a look ends the gap of a rule, the stream may find the rule broken again, for the same reason, and the store then takes that as
// part of the gap that is about to end. What is missed from there on is in a gap that is open until the rule is whole, whenever that
// happens, and even when that is over by then.
func TestBrokenAgainWhileTheGapEnds(t *testing.T) {
	t.Parallel()
	again := breakage{rule: "r", from: 25, why: "no column kind", by: byStream}
	for name, c := range map[string]struct {
		at   func(m *meddled, do func() error)
		want string // of the gap, before the second end; there is one of its own for what came later
	}{
		"before the gaps are read": {func(m *meddled, do func() error) { m.before = onCall("Gaps", do) }, "0/A to open"},
		"after they are read":      {func(m *meddled, do func() error) { m.after = onCall("Gaps", do) }, "0/A to open"},
		"before it is ended":       {func(m *meddled, do func() error) { m.before = onCall("CloseGap", do) }, "0/A to open"},
		"after it is ended":        {func(m *meddled, do func() error) { m.after = onCall("CloseGap", do) }, "0/19 to open"},
	} {
		for _, whole := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, whole again %v", name, whole), func(t *testing.T) {
				t.Parallel()
				d := recording(t)
				if err := d.breaks(t.Context(), breakage{rule: "r", from: 10, why: again.why, by: byCatalog}); err != nil {
					t.Fatal(err)
				}
				d.broken.soundFrom("r", 20)
				mended, _ := d.broken.passed(20)
				store := &meddled{Store: d.store}
				stored := d.store
				d.store = store
				var second breakage
				c.at(store, func() error { // the stream, and the batch that it gives to the store
					d.broken.breaks(again)
					if whole {
						second, _ = d.broken.mends("r", byStream)
					}
					return stored.SaveGap(t.Context(), again.gap(d.source))
				})
				if err := d.mended(t.Context(), mended[0], 20); err != nil {
					if !errors.Is(err, outbox.ErrState) {
						t.Fatal(err)
					}
					d.broken.keep(mended[0])
				}
				if spans := d.spans(t); spans[0] != c.want || len(spans) > 1 && spans[1] != "0/A to 0/14" {
					t.Errorf("the gaps: %q; want %q", spans, c.want)
				}
				if !whole {
					second, _ = d.broken.mends("r", byStream)
				}
				d.endGap(t.Context(), mend{second, 30})
				if spans := d.spans(t); !strings.HasSuffix(spans[0], "to 0/1E") || len(d.broken.list()) != 0 {
					t.Errorf("the gaps at last: %q; broken: %+v", spans, d.broken.list())
				}
			})
		}
	}
}

// What the store did not take of a breakage is recorded before its end is, although the rule is whole by then: by the next look, or when
// a change fits the rule again. It is told once it is recorded.
func TestStoreFailsForAShortBreakage(t *testing.T) {
	t.Parallel()
	conn := pgtest.Connect(t, pgtest.Database(t))
	short := func(t *testing.T) (*Daemon, *notebook) {
		d, notes := recording(t), new(notebook)
		d.report.log = slog.New(slog.NewTextHandler(notes, nil))
		d.live.Store(&live{byName: map[string]*rules.Rule{"r": {Name: "r", On: rules.On{Message: "m"}}}})
		return d, notes
	}
	noticed := breakage{rule: "r", from: 10, why: "no column kind", by: byCatalog}
	t.Run("whole by a look", func(t *testing.T) {
		d, notes := short(t)
		d.store = &meddled{Store: d.store, before: failsAt("SaveGap", 1)}
		if err := d.breaks(t.Context(), noticed); !errors.Is(err, errDisk) || notes.count("is broken from") != 0 {
			t.Fatalf("noticed: %v, told %d times", err, notes.count("is broken from"))
		}
		var sound position.LSN
		for range 2 {
			if err := d.heal(t.Context(), conn, &comparison{db: &cdc.Database{}, catalog: &cdc.Catalog{}}); err != nil {
				t.Fatal(err)
			}
			if list := d.broken.list(); len(list) > 0 {
				sound = list[0].sound
				d.batch.done(sound)
			}
		}
		if spans := d.spans(t); !slices.Equal(spans, []string{"0/A to " + sound.String()}) || len(d.broken.list()) != 0 {
			t.Errorf("the gaps: %q; broken: %+v", spans, d.broken.list())
		}
		if n := notes.count("is broken from 0/A"); n != 1 {
			t.Errorf("it was told %d times", n)
		}
	})
	t.Run("whole by a change", func(t *testing.T) {
		d, notes := short(t)
		d.store = &meddled{Store: d.store, before: failsAt("SaveGap", 2)}
		if err := d.breaks(t.Context(), breakage{rule: "r", from: 12, why: noticed.why, by: byStream}); err != nil {
			t.Fatal(err)
		}
		if err := d.breaks(t.Context(), noticed); !errors.Is(err, errDisk) { // it was broken for longer
			t.Fatalf("noticed: %v", err)
		}
		mended, _ := d.broken.mends("r", byStream)
		d.endGap(t.Context(), mend{mended, 20})
		if spans := d.spans(t); !slices.Equal(spans, []string{"0/A to 0/14"}) || len(d.broken.list()) != 0 {
			t.Errorf("the gaps: %q; broken: %+v", spans, d.broken.list())
		}
		if n := notes.count("is broken from"); n != 1 {
			t.Errorf("it was told %d times", n)
		}
	})
}

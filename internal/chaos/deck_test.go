package chaos

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// fault is something that goes wrong.
type fault struct {
	name  string
	do    func(*world)
	short int // how often it happens in the short run
	share int // how often it is in each hand of the long one
}

var faults = []fault{
	{"daemon killed", (*world).kill, 2, 5},
	{"daemon killed over an import", (*world).killImport, 1, 2},
	{"daemon killed as it confirms an import", (*world).killConfirm, 1, 2},
	{"daemon killed and Postgres crashed", (*world).killBoth, 1, 1},
	{"Postgres restarted", (*world).restart, 0, 1},
	{"Postgres restarted with another logical_decoding_work_mem", (*world).resize, 1, 3},
	{"Postgres shut down at once", (*world).crash, 0, 1},
	{"Postgres killed with all its processes", (*world).killPostgres, 1, 2},
	{"network: connections closed", (*world).cut, 0, 1},
	{"network: connections reset", (*world).reset, 1, 2},
	{"network: connections silent for good", (*world).freeze, 0, 2},
	{"network: silent for a moment", (*world).hold, 1, 2},
	{"network: silent for longer than wal_sender_timeout", (*world).holdLong, 0, 2},
	{"relay away", (*world).takeRelay, 1, 1},
	{"rules reloaded", (*world).reload, 2, 6},
	{"rules with a mistake saved", (*world).mistake, 0, 1},
	{"columns changed that no rule reads", (*world).alter, 2, 6},
	{"column that a rule reads changed and back", (*world).retype, 0, 2},
	{"label added to an enum that a rule reads", (*world).label, 1, 1},
	{"column that a rule reads renamed, and the rule mended later", (*world).rename, 0, 4},
	{"table that a rule is on renamed, and the rule mended later", (*world).renameTable, 1, 4},
	{"table that a rule is on renamed while the daemon is away", (*world).renameAway, 0, 4},
}

// play has faults happen, in the order that the seed gives. The pauses are as often too short for the daemon to come up as they are long.
func (w *world) play() {
	began := time.Now()
	for first := true; first || time.Since(began) < w.size.lasts; first = false {
		for _, f := range w.hand() {
			if !first && time.Since(began) > w.size.lasts {
				break
			}
			w.pause(20*time.Millisecond + w.upTo(w.size.longest))
			w.t.Logf("%7.3f s: %s", time.Since(began).Seconds(), f.name)
			w.count(f.name)
			f.do(w)
		}
	}
}

// hand is all faults, each as often as it is to happen, shuffled.
func (w *world) hand() (hand []fault) {
	for _, f := range faults {
		n := f.share
		if w.size.lasts == 0 {
			n = f.short
		}
		for range n {
			hand = append(hand, f)
		}
	}
	w.dice.Shuffle(len(hand), func(i, j int) { hand[i], hand[j] = hand[j], hand[i] })
	return hand
}

func (w *world) count(what string) { w.counts[what]++ }

// tell prints how often everything happened. A fault that never did is a hole in this test.
func (w *world) tell() {
	for _, f := range faults {
		if w.counts[f.name] == 0 && (w.size.lasts > 0 || f.short > 0) {
			w.t.Errorf("it never happened: %s", f.name)
		}
	}
	all := maps.Clone(w.counts)
	maps.Copy(all, w.app.counted())
	maps.Copy(all, w.relay.counted())
	all["daemon only starting gave up without Postgres"] = w.gaveUp
	all["gaps mended by the command that the status printed"] = w.mended
	var text strings.Builder
	for _, what := range slices.Sorted(maps.Keys(all)) {
		fmt.Fprintf(&text, "\n%8d  %s", all[what], what)
	}
	w.t.Logf("what happened:%s", text.String())
}

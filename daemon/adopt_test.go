package daemon

import (
	"strings"
	"testing"

	"postman/cdc"
	"postman/outbox"
	"postman/position"
)

func TestAdopt(t *testing.T) {
	t.Parallel()
	intended := &outbox.Source{State: outbox.SourceIntended}
	at := func(lsn position.LSN) *outbox.Source {
		return &outbox.Source{State: outbox.SourceStreaming, Checkpoint: lsn}
	}
	slot := func(lsn position.LSN) *cdc.SlotInfo { return &cdc.SlotInfo{Confirmed: lsn} }
	published := func(oid uint32) map[string]*cdc.Publication {
		all := make(map[string]*cdc.Publication)
		for _, name := range []string{"s_ins", "s_upd", "s_del"} {
			all[name] = &cdc.Publication{OID: oid}
		}
		return all
	}
	on := func(src *outbox.Source, s outbox.Server) *outbox.Source { src.Server = s; return src }
	for name, c := range map[string]struct {
		src, elsewhere *outbox.Source
		db             cdc.Database
		left, bare     position.LSN
		want           step
		from, to       position.LSN // of a gap
		why            string
	}{
		"first run":                                 {want: stepIntend},
		"died before the slot was made":             {src: intended, want: stepCreate},
		"died after the slot was made":              {src: intended, db: cdc.Database{Slot: slot(5)}, want: stepTake},
		"died between storing and confirming":       {src: at(6), db: cdc.Database{Slot: slot(5)}, want: stepResume},
		"a clean restart":                           {src: at(5), db: cdc.Database{Slot: slot(5)}, want: stepResume},
		"a server that the database was moved to":   {elsewhere: at(7), want: stepGap, why: "on another server"},
		"an empty store beside a stranger's slot":   {db: cdc.Database{Slot: slot(5)}, want: stepGap, to: 5, why: "did not make it"},
		"an empty store beside an invalidated slot": {db: cdc.Database{Slot: &cdc.SlotInfo{Confirmed: 5, WALStatus: "lost"}}, want: stepGap, why: "did not make it"},
		"the slot was dropped":                      {src: at(5), want: stepGap, from: 5, why: "slot is gone"},
		"the slot was recreated or advanced":        {src: at(5), db: cdc.Database{Slot: slot(6)}, want: stepGap, from: 5, to: 6, why: "beyond what this store covers"},
		"the slot was invalidated":                  {src: at(5), db: cdc.Database{Slot: &cdc.SlotInfo{Confirmed: 5, WALStatus: "lost"}}, want: stepGap, from: 5, why: "invalidated"},
		"the slot was invalidated before we had it": {src: intended, db: cdc.Database{Slot: &cdc.SlotInfo{WALStatus: "lost"}}, want: stepGap, why: "invalidated"},

		"a publication was dropped": {
			src: at(5), db: cdc.Database{Slot: slot(5), Publications: map[string]*cdc.Publication{"s_ins": {}}}, want: stepGap, from: 5, why: "s_upd and s_del was dropped",
		},
		"a publication was made again": {
			src: on(at(5), outbox.Server{Publications: "s_ins:1 s_upd:1 s_del:1"}), db: cdc.Database{Slot: slot(5), Publications: published(2)}, want: stepGap, from: 5, why: "made again",
		},
		"a publication was made again, and the stream passed over that": {
			src: &outbox.Source{State: outbox.SourceStreaming, Checkpoint: 5, Verified: 3, Server: outbox.Server{Publications: "s_ins:1 s_upd:1 s_del:1"}},
			db:  cdc.Database{Slot: slot(5), Publications: published(2)}, want: stepGap, from: 3, why: "made again",
		},
		"the publications are the same": {
			src: on(at(5), outbox.Server{Publications: "s_ins:1 s_upd:1 s_del:1"}), db: cdc.Database{Slot: slot(5), Publications: published(1)}, want: stepResume,
		},
		"an older state of the server": {src: at(500), db: cdc.Database{Slot: slot(5), WALEnd: 499}, want: stepGap, from: 5, to: 5, why: "log ends before"},
		"an older state, and publications anew": {
			src: on(at(500), outbox.Server{Publications: "s_ins:1 s_upd:1 s_del:1"}), db: cdc.Database{Slot: slot(5), WALEnd: 499, Publications: published(2)}, want: stepGap, from: 5, why: "log ends before",
		},
		"an older state without a slot":           {src: at(500), db: cdc.Database{WALEnd: 499}, want: stepGap, from: 500, why: "log ends before"},
		"an older state that was written to":      {src: on(at(50), outbox.Server{Timeline: 1, Restart: 4}), db: cdc.Database{Timeline: 1, Slot: &cdc.SlotInfo{Confirmed: 5, Restart: 3}}, want: stepGap, from: 5, to: 5, why: "older copy"},
		"the slot has let go of more":             {src: on(at(50), outbox.Server{Timeline: 1, Restart: 4}), db: cdc.Database{Timeline: 1, Slot: &cdc.SlotInfo{Confirmed: 5, Restart: 5}}, want: stepResume},
		"promoted with all of it":                 {src: on(at(50), outbox.Server{Timeline: 1, Restart: 4}), db: cdc.Database{Timeline: 2, Slot: &cdc.SlotInfo{Confirmed: 40, Restart: 3}}, left: 50, want: stepResume},
		"promoted with all of it, without a slot": {src: on(at(50), outbox.Server{Timeline: 1}), db: cdc.Database{Timeline: 2}, left: 50, want: stepGap, from: 50, why: "slot is gone"},
		"promoted without some of it":             {src: on(at(50), outbox.Server{Timeline: 1}), db: cdc.Database{Timeline: 2, Slot: slot(40)}, left: 49, want: stepGap, from: 49, to: 49, why: "left timeline 1 at 0/31"},
		"promoted without what was committed":     {src: on(at(50), outbox.Server{Timeline: 1}), db: cdc.Database{Timeline: 2, Slot: slot(40)}, left: 49, bare: 50, want: stepGap, from: 49, to: 49, why: "left timeline 1 at 0/31"},
		"promoted without idle log alone":         {src: on(at(50), outbox.Server{Timeline: 1}), db: cdc.Database{Timeline: 2, Slot: slot(40)}, left: 49, bare: 49, want: stepTurn, to: 49},
		"promoted without idle log, shorter now":  {src: on(at(50), outbox.Server{Timeline: 1}), db: cdc.Database{Timeline: 2, Slot: slot(40), WALEnd: 49}, left: 49, bare: 41, want: stepTurn, to: 49},
		"promoted without idle log or a slot":     {src: on(at(50), outbox.Server{Timeline: 1}), db: cdc.Database{Timeline: 2}, left: 49, bare: 41, want: stepGap, from: 49, why: "left timeline 1 at 0/31"},
		"promoted without idle log, slot ahead":   {src: on(at(50), outbox.Server{Timeline: 1}), db: cdc.Database{Timeline: 2, Slot: slot(50)}, left: 49, bare: 41, want: stepGap, from: 49, to: 50, why: "left timeline 1 at 0/31"},
		"promoted without idle log, lost slot":    {src: on(at(50), outbox.Server{Timeline: 1}), db: cdc.Database{Timeline: 2, Slot: &cdc.SlotInfo{Confirmed: 40, WALStatus: "lost"}}, left: 49, bare: 41, want: stepGap, from: 49, why: "left timeline 1 at 0/31"},
		"an older state, and idle":                {src: on(at(50), outbox.Server{Timeline: 1}), db: cdc.Database{Timeline: 1, Slot: slot(40), WALEnd: 45}, bare: 41, want: stepGap, from: 40, to: 40, why: "log ends before"},
		"promoted without idle log, published anew": {
			src: on(at(50), outbox.Server{Timeline: 1, Publications: "s_ins:1 s_upd:1 s_del:1"}), db: cdc.Database{Timeline: 2, Slot: slot(40), Publications: published(2)}, left: 49, bare: 41, want: stepGap, from: 49, why: "left timeline 1",
		},
		"promoted without some of it, slot anew": {src: on(at(50), outbox.Server{Timeline: 1}), db: cdc.Database{Timeline: 2, Slot: slot(60)}, left: 49, want: stepGap, from: 49, to: 60, why: "left timeline 1 at 0/31"},
		"promoted without some of it or a slot":  {src: on(at(50), outbox.Server{Timeline: 1}), db: cdc.Database{Timeline: 2}, left: 49, want: stepGap, from: 49, why: "left timeline 1 at 0/31"},
		"another branch":                         {src: on(at(50), outbox.Server{Timeline: 2}), db: cdc.Database{Timeline: 3, Slot: slot(40)}, want: stepGap, from: 40, to: 40, why: "did not come from timeline 2"},
		"a timeline that was not known yet":      {src: at(50), db: cdc.Database{Timeline: 3, Slot: slot(40)}, want: stepResume},
		"moved, with a slot":                     {elsewhere: at(7), db: cdc.Database{Slot: slot(5)}, want: stepGap, to: 5, why: "on another server"},
		"never streamed, in another timeline":    {src: on(&outbox.Source{State: outbox.SourceIntended}, outbox.Server{Timeline: 1}), db: cdc.Database{Timeline: 2}, want: stepCreate},
	} {
		if c.db.WALEnd == 0 {
			c.db.WALEnd = 1 << 20
		}
		if c.db.Publications == nil {
			c.db.Publications = published(1)
		}
		got := adopt(situation{slot: "s", src: c.src, elsewhere: c.elsewhere, db: &c.db, left: c.left, bare: c.bare})
		if got.step != c.want || !strings.Contains(got.reason, c.why) {
			t.Errorf("%s: step %d, %q; want %d, %q", name, got.step, got.reason, c.want, c.why)
		}
		if got.step == stepTurn && got.to != c.to {
			t.Errorf("%s: it goes on at %s; want %s", name, got.to, c.to)
		}
		if got.step != stepGap {
			continue
		}
		if got.from != c.from || got.to != c.to {
			t.Errorf("%s: from %s to %s; want %s to %s", name, got.from, got.to, c.from, c.to)
		}
		text := (&GapError{"postman", got.from, got.to, got.reason}).Error()
		if got.reason == "" || !strings.Contains(text, "postman setup --accept-gap") || !strings.Contains(text, "DATABASE_URL") {
			t.Errorf("%s: no reason or no way out in %q", name, text)
		}
	}
}

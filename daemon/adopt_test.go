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
	if got := adopt(nil, at(7), nil); got.step != stepGap {
		t.Errorf("a server that the database was moved to: step %d; want a gap", got.step)
	}
	if got := adopt(nil, nil, &cdc.SlotInfo{Confirmed: 5, WALStatus: "lost"}); got.step != stepGap || got.to != 0 {
		t.Errorf("an invalidated slot beside an empty store: %+v; want a gap and a new slot", got)
	}
	for name, c := range map[string]struct {
		src  *outbox.Source
		slot *cdc.SlotInfo
		want step
	}{
		"first run":                                 {nil, nil, stepIntend},
		"died before the slot was made":             {intended, nil, stepCreate},
		"died after the slot was made":              {intended, slot(5), stepTake},
		"an empty store beside a stranger's slot":   {nil, slot(5), stepGap},
		"the slot was dropped":                      {at(5), nil, stepGap},
		"the slot was recreated or advanced":        {at(5), slot(6), stepGap},
		"died between storing and confirming":       {at(6), slot(5), stepResume},
		"a clean restart":                           {at(5), slot(5), stepResume},
		"the slot was invalidated":                  {at(5), &cdc.SlotInfo{Confirmed: 5, WALStatus: "lost"}, stepGap},
		"the slot was invalidated before we had it": {intended, &cdc.SlotInfo{WALStatus: "lost"}, stepGap},
	} {
		got := adopt(c.src, nil, c.slot)
		if got.step != c.want {
			t.Errorf("%s: step %d; want %d", name, got.step, c.want)
		}
		if got.step == stepGap {
			text := (&GapError{"postman", got.from, got.to, got.reason}).Error()
			if got.reason == "" || !strings.Contains(text, "postman setup --accept-gap") {
				t.Errorf("%s: no reason or no way out in %q", name, text)
			}
		}
	}
}

package daemon

import "testing"

func TestPercentFor(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		began int
		live  uint64
		want  int
	}{
		{100, 0, 100},
		{100, 5 << 20, 100},
		{100, 16 << 20, 100},
		{100, 32 << 20, 50},
		{100, 400 << 20, loadPercent},
		{200, 5 << 20, 200},
		{200, 16 << 20, 100},
		{20, 400 << 20, 20},
		{-1, 400 << 20, -1}, // GOGC=off
	} {
		if got := percentFor(test.began, test.live); got != test.want {
			t.Errorf("%d over %d bytes: %d, not %d", test.began, test.live, got, test.want)
		}
	}
}

// TestLiveHeap holds that the runtime knows the metric by its name.
func TestLiveHeap(t *testing.T) {
	t.Parallel()
	defer sparing()()
	sparing()() // a collection
	if n := liveHeap(); n == 0 {
		t.Error("nothing is live")
	}
}

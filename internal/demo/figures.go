package demo

import (
	"fmt"
	"slices"
	"time"
)

// figures sum up the mails that arrived.
type figures struct {
	Mails       int
	Median, Max time.Duration // from commit to accepted
}

func figure(all []*entry) (f figures) {
	var took []time.Duration
	for _, e := range all {
		if e.delivered() {
			took = append(took, e.Latency())
		}
	}
	if len(took) == 0 {
		return f
	}
	slices.Sort(took)
	return figures{len(took), took[len(took)/2], took[len(took)-1]}
}

// milliseconds prints with three digits that count.
func milliseconds(d time.Duration) string {
	ms := float64(d) / float64(time.Millisecond)
	switch {
	case ms < 10:
		return fmt.Sprintf("%.2f ms", ms)
	case ms < 100:
		return fmt.Sprintf("%.1f ms", ms)
	case ms < 10_000:
		return fmt.Sprintf("%.0f ms", ms)
	}
	return fmt.Sprintf("%.1f s", ms/1000)
}

func size(n int) string {
	if n < 1024 {
		return fmt.Sprintf("%d bytes", n)
	}
	return fmt.Sprintf("%.1f KiB", float64(n)/1024)
}

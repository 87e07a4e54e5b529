package daemon

import (
	"runtime/debug"
	"runtime/metrics"
	"sync"
)

// The garbage collector lets the heap grow by as much as is live before it runs (GOGC=100). That is too much here: loading rules makes
// twenty times as much garbage as it keeps, and what it keeps is never garbage until the next load, so that it says nothing about how
// much garbage there will be. The price is processor time: of each load, and of a daemon with thousands of rules whenever it allocates,
// a few hundredths.
const (
	loadPercent = 30       // how far the heap may grow over what is live while rules are loaded, and never less
	headroom    = 16 << 20 // bytes by which it may grow otherwise, or GOGC of what is live where that is less
)

// collector is the process's, as the garbage collector is.
var collector struct {
	sync.Mutex
	users int  // that want it to be sparing
	known bool // whether percent is
	// percent is what the process began with (GOGC). Where that is less than loadPercent, or says that there is to be no collection at
	// all, it stays.
	percent int
}

// sparing has the garbage collector keep the heap small until the function that it returns is called, which gives back to the system
// what is free then.
func sparing() (done func()) {
	collector.Lock()
	defer collector.Unlock()
	if collector.users++; collector.users == 1 {
		before := debug.SetGCPercent(loadPercent)
		if !collector.known {
			collector.known, collector.percent = true, before
		}
		if collector.percent < loadPercent {
			debug.SetGCPercent(collector.percent)
		}
	}
	return func() {
		collector.Lock()
		defer collector.Unlock()
		if collector.users--; collector.users == 0 {
			debug.FreeOSMemory() // after a collection
			debug.SetGCPercent(percentFor(collector.percent, liveHeap()))
		}
	}
}

// percentFor is the percentage that leaves headroom over so many bytes, between loadPercent and what the process began with.
func percentFor(began int, live uint64) int {
	if began < loadPercent || live == 0 {
		return began
	}
	return max(loadPercent, int(min(uint64(began), 100*headroom/live)))
}

// liveHeap is how many bytes the last collection found to be live.
func liveHeap() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

package daemon

import (
	"runtime/debug"
	"sync"
)

// loadPercent is how far the heap may grow over what is live while rules are loaded (GOGC is 100 otherwise). Loading makes twenty times
// as much garbage as it keeps: the process would stay as large as that made it, for rules that take half of it. The price is some
// processor time in each load.
const loadPercent = 30

// collector is the process's, as the garbage collector is: what was its percentage before it was to be sparing, and for how many.
var collector struct {
	sync.Mutex
	users, before int
}

// sparing has the garbage collector keep the heap small until the function that it returns is called, which gives back to the system
// what is free then. Who has asked for less than that, or for no collection at all (GOGC), gets that.
func sparing() (done func()) {
	collector.Lock()
	defer collector.Unlock()
	if collector.users++; collector.users == 1 {
		if collector.before = debug.SetGCPercent(loadPercent); collector.before < loadPercent {
			debug.SetGCPercent(collector.before)
		}
	}
	return func() {
		collector.Lock()
		defer collector.Unlock()
		if collector.users--; collector.users == 0 {
			debug.SetGCPercent(collector.before)
			debug.FreeOSMemory()
		}
	}
}

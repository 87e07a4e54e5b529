package dispatch

import (
	"errors"
	"sync"
	"time"
)

// zones keeps the time zones that were loaded: reading one is a file access. Only names that exist are kept, so that it stays
// as small as the zone database. The zero value is ready; safe for many goroutines.
type zones struct{ known sync.Map } // name to *time.Location

func (z *zones) named(name string) (*time.Location, error) {
	if zone, ok := z.known.Load(name); ok {
		return zone.(*time.Location), nil
	}
	if name == "" || name == "Local" { // which is the server's own, and nobody's
		return nil, errors.New("no time zone")
	}
	zone, err := time.LoadLocation(name)
	if err == nil {
		z.known.Store(name, zone)
	}
	return zone, err
}

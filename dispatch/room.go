package dispatch

import "postman/outbox"

// room is what a transport has claimed of the store and not started yet.
//
// Mails to one domain that has all that it may have at the same time ([Limits.PerDomain]) must not take all of it: others would wait behind them, beside
// free connections. So there are as many of them as may be under way, and the rest stays outside, known by its numbers alone. Whoever has the dispatcher's
// mu may use it.
type room struct {
	share  int // of a domain; 0: there is no limit
	all    int
	high   int // of all
	places map[string]int
	kept   map[string]*[3][]int64 // outside: by place, and by priority
	away   int                    // of kept
}

// mostAway is how many stay outside: so far behind them others are found. They are claimed, which takes some hundred bytes each.
const mostAway = 10_000

func newRoom(share int) room {
	return room{share: share, places: make(map[string]int), kept: make(map[string]*[3][]int64)}
}

// take counts in a message that was claimed; false: it stays outside until it is called.
func (r *room) take(id int64, p outbox.Priority, place string) bool {
	if place == "" || r.places[place] < r.share {
		r.enter(p, place)
		return true
	}
	if r.kept[place] == nil {
		r.kept[place] = new([3][]int64)
	}
	r.kept[place][p] = append(r.kept[place][p], id)
	r.away++
	return false
}

// enter counts in a message.
func (r *room) enter(p outbox.Priority, place string) {
	r.all++
	if p == outbox.High {
		r.high++
	}
	if place != "" {
		r.places[place]++
	}
}

// leave counts one out, and says whether others of its domain are to be called.
func (r *room) leave(p outbox.Priority, place string) (calls bool) {
	r.all--
	if p == outbox.High {
		r.high--
	}
	if place == "" {
		return false
	}
	if r.places[place]--; r.places[place] == 0 {
		delete(r.places, place)
	}
	return r.calls(place)
}

// calls says whether it is worth it to call those outside: half of the domain's share is free.
func (r *room) calls(place string) bool { return r.kept[place] != nil && r.places[place] <= r.share/2 }

// call takes the numbers of those that may come in, high priority first. Who comes is to be counted in.
func (r *room) call() (ids []int64) {
	for place, waiting := range r.kept {
		if !r.calls(place) {
			continue
		}
		free := r.share - r.places[place]
		for p := range waiting {
			n := min(free, len(waiting[p]))
			ids, waiting[p] = append(ids, waiting[p][:n]...), waiting[p][n:]
			free -= n
			r.away -= n
		}
		r.forget(place)
	}
	return ids
}

// turnAway takes the numbers of all that stay outside, of some priorities.
func (r *room) turnAway(of func(outbox.Priority) bool) (ids []int64) {
	for place, waiting := range r.kept {
		for p := range waiting {
			if of(outbox.Priority(p)) {
				ids = append(ids, waiting[p]...)
				r.away -= len(waiting[p])
				waiting[p] = nil
			}
		}
		r.forget(place)
	}
	return ids
}

// forget drops a place for which none waits.
func (r *room) forget(place string) {
	if waiting := r.kept[place]; len(waiting[0])+len(waiting[1])+len(waiting[2]) == 0 {
		delete(r.kept, place)
	}
}

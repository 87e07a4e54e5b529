package dispatch

import (
	"time"

	"postman/outbox"
)

// quota counts the mails that a relay took in a calendar month (UTC), against what it may have. The store knows the number: it is raised in
// the same commit as the mail is sent, and read when the daemon starts.
type quota struct {
	most  int64 // 0: any
	month string
	used  int64
	told  bool // that it comes to its end
}

// What of a month's quota is for high priority alone, and from when on people are told.
const (
	reservedShare = 0.05
	toldShare     = 0.8
)

// monthOf names a month: 2026-03.
func monthOf(t time.Time) string { return t.UTC().Format("2006-01") }

// roll begins a new month.
func (q *quota) roll(now time.Time) {
	if month := monthOf(now); q.month != month {
		q.begin(month, 0)
	}
}

// begin sets what was used in a month.
func (q *quota) begin(month string, used int64) { q.month, q.used, q.told = month, used, false }

// ended says whether mails of a priority have to wait for the next month, while so many are under way.
func (q *quota) ended(p outbox.Priority, underway int64, now time.Time) bool {
	if q.most == 0 || q.month != monthOf(now) {
		return false
	}
	most := q.most
	if p != outbox.High {
		most -= int64(reservedShare * float64(q.most))
	}
	return q.used+underway >= most
}

// sent counts a mail, and says whether people should be told now that little is left.
func (q *quota) sent(now time.Time) bool {
	q.roll(now)
	q.used++
	news := q.most > 0 && !q.told && float64(q.used) >= toldShare*float64(q.most)
	q.told = q.told || news
	return news
}

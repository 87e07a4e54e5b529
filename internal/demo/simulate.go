package demo

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
)

// act is something that people do in the CRM: one statement, which picks who does what at random and returns a sentence
// about it, or no row when there is nothing to do it with.
type act struct {
	often int // relative to the others
	sql   string
}

// acts are a broker's day. They write what the CRM would write, in one transaction each; postman is not in them.
var acts = []act{
	{6, `-- a colleague books with somebody that a colleague looks after, too
		with pair as (
			select c.id customer, c.name, a.staff_id, s.name as colleague, s.title
			  from assignments a join customers c on c.id = a.customer_id join staff s on s.id = a.staff_id
			 where s.left_on is null and (select count(*) from assignments o where o.customer_id = c.id) > 1
			 order by random() limit 1),
		slot as (select ` + slot + ` as starts_at),
		made as (
			insert into schedules (kind, customer_id, created_by, starts_at, ends_at, place)
			select 'meeting', customer, staff_id, starts_at, starts_at + interval '1 hour',
			       (array['마포 본점 2층 상담실', '강남점 상담실', '성수점 라운지'])[1 + floor(random() * 3)::int]
			  from pair, slot)
		select format('%s %s books a meeting with %s', colleague, title, name) from pair`},
	{4, `-- a viewing, for the customer to note
		with pair as (
			select c.id customer, c.name, a.staff_id, s.name as colleague, s.title, l.id as listing, l.title as home
			  from assignments a join customers c on c.id = a.customer_id join staff s on s.id = a.staff_id
			  join listings l on l.vacant and l.region = c.region
			 where s.left_on is null
			 order by random() limit 1),
		slot as (select ` + slot + ` as starts_at),
		made as (
			insert into schedules (kind, customer_id, listing_id, created_by, starts_at, ends_at, place)
			select 'viewing', customer, listing, staff_id, starts_at, starts_at + interval '40 minutes', '현장' from pair, slot)
		select format('%s %s shows %s to %s', colleague, title, home, name) from pair`},
	{3, `-- moved, by one who looks after the customer or by the customer
		with chosen as (
			select h.id, c.name, a.staff_id, s.name as colleague
			  from schedules h join customers c on c.id = h.customer_id
			  join assignments a on a.customer_id = c.id join staff s on s.id = a.staff_id
			 where h.status = 'booked' and h.starts_at > now()
			 order by random() limit 1),
		mover as (select case when random() < 0.4 then null else staff_id end as id from chosen),
		made as (
			update schedules h set starts_at = starts_at + days, ends_at = ends_at + days, updated_by = mover.id
			  from chosen, mover, (select make_interval(days => 1 + floor(random() * 3)::int) as days) d
			 where h.id = chosen.id)
		select case when mover.id is null then format('%s moves the appointment, on the site', name)
		            else format('%s moves the appointment with %s', colleague, name) end
		  from chosen, mover`},
	{1, `-- called off
		with chosen as (
			select h.id, c.name, a.staff_id, s.name as colleague
			  from schedules h join customers c on c.id = h.customer_id
			  join assignments a on a.customer_id = c.id join staff s on s.id = a.staff_id
			 where h.status = 'booked' and h.starts_at > now()
			 order by random() limit 1),
		made as (update schedules h set status = 'cancelled', updated_by = staff_id from chosen where h.id = chosen.id)
		select format('%s cancels the appointment with %s', colleague, name) from chosen`},
	{1, `-- a whole team hears of it
		with chosen as (
			select id, title, price, round(price * 0.96, -7) as cheaper from listings
			 where vacant and deal = 'sale' and price > 300000000 order by random() limit 1),
		made as (update listings l set price = cheaper, updated_at = now() from chosen where l.id = chosen.id)
		select format('%s costs %s억 now, %s억 before', title, trim_scale(cheaper / 100000000), trim_scale(price / 100000000)) from chosen`},
	{2, `-- somebody new looks after a VIP; who did so longest does no more
		with pair as (
			select c.id as customer, c.name, s.id as staff_id, s.name as colleague
			  from customers c join staff s on s.left_on is null
			 where c.grade = 'vip' and not exists (select from assignments where customer_id = c.id and staff_id = s.id)
			 order by random() limit 1),
		ended as (
			delete from assignments a using pair
			 where a.customer_id = pair.customer and a.staff_id in (
			       select o.staff_id from assignments o where o.customer_id = pair.customer order by o.since, o.staff_id
			       limit greatest((select count(*) from assignments n where n.customer_id = pair.customer) - 2, 0))),
		made as (insert into assignments (customer_id, staff_id) select customer, staff_id from pair)
		select format('%s looks after %s from now on', colleague, name) from pair`},
	{3, `-- the customer site says it with a message, in the transaction that stores the token
		select format('%s has forgotten the password', name)
		  from (select id, name from customers where email is not null order by random() limit 1) c,
		       lateral (select request_password_reset(c.id)) asked`},
}

// slot is an hour of an office day within the next two weeks.
const slot = `date_trunc('day', now(), 'Asia/Seoul') + make_interval(days => 1 + floor(random() * 14)::int, hours => 10 + floor(random() * 9)::int)`

// simulate has people do things in the CRM, every few seconds, until the context ends, and tells of each before it is
// done.
func simulate(ctx context.Context, db *pgx.Conn, tell func(time.Time, string)) error {
	pause := time.NewTimer(time.Second)
	defer pause.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-pause.C:
		}
		if err := perform(ctx, db, pick(acts), tell); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("simulating the CRM's people: %w", err)
		}
		pause.Reset(2*time.Second + rand.N(3*time.Second))
	}
}

// perform does one act. What it did is told before it commits, so that it stands above the mails that it causes.
func perform(ctx context.Context, db *pgx.Conn, a act, tell func(time.Time, string)) error {
	return pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		var what string
		err := tx.QueryRow(ctx, a.sql).Scan(&what)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		if err == nil {
			tell(time.Now(), what)
		}
		return err
	})
}

// pick chooses one by how often it happens.
func pick(acts []act) act {
	all := 0
	for _, a := range acts {
		all += a.often
	}
	n := rand.IntN(all)
	for _, a := range acts {
		if n -= a.often; n < 0 {
			return a
		}
	}
	panic("unreachable: n is below the sum")
}

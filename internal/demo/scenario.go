package demo

import (
	"slices"

	"postman/outbox"
)

// scene is something that happens in the CRM, in one transaction, and exactly what has to come of it.
type scene struct {
	does     string // for people
	sql      []string
	rollback bool
	mails    []expected
	// unsent are the messages that postman decides not to send.
	unsent []decided
	// matches are those that make no messages, by rule and state.
	matches map[ended]int
	// patient is for a scene whose end takes its time: the next one begins meanwhile.
	patient bool
}

// expected is a mail that has to arrive at each of the addresses, once, and nowhere else.
type expected struct {
	rule    string
	to      []string
	subject string
	body    []string // all of these, in the HTML and in the text
	secret  string   // a query: what it answers stands in the body, too
	ics     string   // stands in the calendar entry; empty: there is none
	thread  string   // what it is about: mails stand together where that is the same, and nowhere else; empty: it stands alone
}

// decided is a message that ends in another state than sent.
type decided struct {
	rule, to string
	state    outbox.MessageState
}

// ended is a state of a rule's matches.
type ended struct {
	rule  string
	state outbox.MatchState
}

// stale asks for a password in vain: the relay puts the mail off until it has expired. once.yaml has its rule.
const stale = "woojin.jeon@example.com"

// scenario is what `postman demo --once` plays. Nothing in it depends on today's date.
var scenario = []scene{
	{
		does: "전우진 has forgotten the password, and his mail server puts postman off for too long",
		sql: []string{`select pg_logical_emit_message(true, 'postman.stale_password_reset',
			'{"email": "` + stale + `", "name": "전우진", "token": "stale"}')`},
		unsent:  []decided{{"stale-password-reset", stale, outbox.MessageExpired}},
		patient: true,
	},
	{
		does: "박서준 books a meeting with 조현우, whom 이서연 looks after too",
		sql: []string{`insert into schedules (kind, customer_id, created_by, starts_at, ends_at, place)
			values ('meeting', 7, 2, '2027-03-04 15:00+09', '2027-03-04 16:00+09', '마포 본점 2층 상담실')`},
		mails: []expected{
			{
				rule: "schedule-co-assigned", to: []string{"seoyeon.lee@onmaru.example"}, // not 박서준
				subject: "조현우 고객님 미팅 등록 · 3월 4일 (목) 오후 3:00",
				thread:  "조현우's meeting",
				body: []string{
					"이서연 님", "박서준", "2027년 3월 4일 (목) 오후 3:00", "마포 본점 2층 상담실", "2897",
					"함께 담당하시는 고객님의 미팅을 동료가 등록했습니다.",
				},
			},
			{
				rule: "booking-confirmed", to: []string{"hyunwoo.cho@example.net"},
				subject: "예약이 확정되었습니다 · 3월 4일 (목) 오후 3:00",
				body:    []string{"조현우 고객님", "박서준 과장", "마포 본점 2층 상담실"},
				ics:     "DTSTART:20270304T060000Z",
			},
		},
	},
	{
		does: "박서준 moves the meeting with 조현우: 이서연 finds that beside the first mail",
		sql: []string{`update schedules set starts_at = '2027-03-04 16:00+09', ends_at = '2027-03-04 17:00+09', updated_by = 2
			where customer_id = 7 and starts_at = '2027-03-04 15:00+09'`},
		mails: []expected{{
			rule: "schedule-moved", to: []string{"seoyeon.lee@onmaru.example"},
			subject: "조현우 고객님 미팅 시간 변경 · 3월 4일 (목) 오후 4:00",
			thread:  "조현우's meeting",
			body:    []string{"이서연 님", "박서준", "2027년 3월 4일 (목) 오후 3:00"},
		}},
	},
	{
		does: "임수아 books a meeting with 이준서; her colleague Daniel Kim reads English",
		sql: []string{`insert into schedules (kind, customer_id, created_by, starts_at, ends_at, place)
			values ('meeting', 2, 7, '2027-03-05 10:30+09', '2027-03-05 11:30+09', '강남점 상담실')`},
		mails: []expected{
			{
				rule: "schedule-co-assigned", to: []string{"daniel.kim@onmaru.example"},
				subject: "New meeting with 이준서: Fri, March 5, 10:30 AM",
				thread:  "이준서's meeting",
				body:    []string{"Daniel Kim", "임수아", "강남점 상담실"},
			},
			{
				rule: "booking-confirmed", to: []string{"junseo.lee@example.org"},
				subject: "예약이 확정되었습니다 · 3월 5일 (금) 오전 10:30",
				body:    []string{"이준서 고객님", "임수아 과장"},
				ics:     "LOCATION:강남점 상담실",
			},
		},
	},
	{
		does: "강하윤 shows a home to Emily Carter, who reads English; no meeting, so no colleague hears of it",
		sql: []string{`insert into schedules (kind, customer_id, listing_id, created_by, starts_at, ends_at, place)
			values ('viewing', 38, 11, 5, '2027-03-05 11:00+09', '2027-03-05 11:40+09', '현장')`},
		mails: []expected{{
			rule: "booking-confirmed", to: []string{"emily.carter@example.org"},
			subject: "Your appointment is confirmed: Fri, March 5, 11:00 AM",
			body:    []string{"Dear Emily Carter", "viewing", "논현동 강변하늘 114㎡", "강하윤", "https://www.onmaru.example/listings/11"},
			ics:     "SUMMARY:Onmaru Realty: viewing",
		}},
	},
	{
		does: "Daniel Kim notes a call with Lucas Moreau, which is nobody else's business",
		sql: []string{`insert into schedules (kind, customer_id, created_by, starts_at, ends_at)
			values ('call', 39, 8, '2027-03-05 14:00+09', '2027-03-05 14:30+09')`},
	},
	{
		does: "최지우 moves her meeting with 임가은, whom 박서준 looks after too",
		sql:  []string{`update schedules set starts_at = '2026-12-14 10:00+09', ends_at = '2026-12-14 11:00+09', updated_by = 3 where id = 15`},
		mails: []expected{{
			rule: "schedule-moved", to: []string{"seojun.park@onmaru.example"},
			subject: "임가은 고객님 미팅 시간 변경 · 12월 14일 (월) 오전 10:00",
			thread:  "임가은's meeting",
			body:    []string{"박서준 님", "최지우", "2026년 12월 11일 (금) 오전 10:00"},
		}},
	},
	{
		does: "Emily Carter moves her contract, on the site: both who look after her hear of it, each in their language",
		sql:  []string{`update schedules set starts_at = '2026-12-15 16:00+09', ends_at = '2026-12-15 17:00+09', updated_by = null where id = 14`},
		mails: []expected{
			{
				rule: "schedule-moved", to: []string{"daniel.kim@onmaru.example"},
				subject: "Moved: contract signing with Emily Carter is now Tue, December 15, 4:00 PM",
				thread:  "Emily Carter's contract",
				body:    []string{"Daniel Kim", "Thu, December 10"},
			},
			{
				rule: "schedule-moved", to: []string{"hayun.kang@onmaru.example"},
				subject: "Emily Carter 고객님 계약 시간 변경 · 12월 15일 (화) 오후 4:00",
				thread:  "Emily Carter's contract",
				body:    []string{"강하윤 님", "고객님께서", "12월 10일 (목)"},
			},
		},
	},
	{
		does: "이서연 cancels a call with 황서아, whom 최지우 looks after too",
		sql:  []string{`update schedules set status = 'cancelled', updated_by = 1 where id = 12`},
		mails: []expected{{
			rule: "schedule-cancelled", to: []string{"jiwoo.choi@onmaru.example"},
			subject: "황서아 고객님 전화 상담 취소 · 12월 8일 (화) 오후 2:00",
			thread:  "황서아's call",
			body:    []string{"최지우 님", "이서연", "전화 상담"},
		}},
	},
	{
		does: "an apartment gets cheaper: the whole team of 성동·광진 hears of it, and 윤도현, who helps them",
		sql:  []string{`update listings set price = 1600000000 where id = 9`},
		mails: []expected{{
			rule:    "team-listing-price-cut",
			to:      []string{"jiwon.han@onmaru.example", "taekyung.oh@onmaru.example", "yerin.shin@onmaru.example", "eunwoo.cho@onmaru.example", "dohyun.yoon@onmaru.example"},
			subject: "성수동 은빛뜰 84㎡ 1억원 인하 · 16억원",
			body:    []string{"성동구", "1억원", "5.9%", "17억원", "16억원", "https://www.onmaru.example/listings/9"},
		}},
	},
	{
		does: "one listing gets dearer, one that is taken gets cheaper: no news for anybody",
		sql: []string{
			`update listings set price = price + 10000000 where id = 27`,
			`update listings set price = price - 10000000 where id = 24`,
		},
	},
	{
		does: "임수아 looks after a VIP from now on, 정민호 after somebody else",
		sql: []string{
			`insert into assignments (customer_id, staff_id, since) values (11, 7, '2026-11-23')`,
			`insert into assignments (customer_id, staff_id, since) values (1, 4, '2026-11-23')`,
		},
		mails: []expected{{
			rule: "vip-customer-assigned", to: []string{"sua.lim@onmaru.example"},
			subject: "VIP 한소율 고객님의 담당자로 지정되셨습니다",
			body:    []string{"임수아 님", "한소율", "25억원"},
		}},
		matches: map[ended]int{{"vip-customer-assigned", outbox.MatchNobody}: 1},
	},
	{
		does: "홍세아 has forgotten the password",
		sql:  []string{`select request_password_reset(20)`},
		mails: []expected{{
			rule: "password-reset", to: []string{"sea.hong@example.org"},
			subject: "비밀번호 재설정 안내",
			body:    []string{"홍세아 고객님", "15분"},
			secret:  `select 'https://www.onmaru.example/password?token=' || token from password_resets where customer_id = 20`,
		}},
	},
	{
		does:     "류태민 asks for a new password, but the site's transaction is rolled back",
		sql:      []string{`select request_password_reset(19)`},
		rollback: true,
	},
	{
		does: "이서연 books a meeting with 나경수, who has no address; 최지우 hears of it all the same",
		sql: []string{`insert into schedules (kind, customer_id, created_by, starts_at, ends_at, place)
			values ('meeting', 40, 1, '2027-03-08 17:00+09', '2027-03-08 18:00+09', '성수점 라운지')`},
		mails: []expected{{
			rule: "schedule-co-assigned", to: []string{"jiwoo.choi@onmaru.example"},
			subject: "나경수 고객님 미팅 등록 · 3월 8일 (월) 오후 5:00",
			thread:  "나경수's meeting",
			body:    []string{"최지우 님", "이서연"},
		}},
		unsent: []decided{{"booking-confirmed", "", outbox.MessageNoAddress}},
	},
	{
		does:    "an import makes 25 listings cheaper at once: more than hold_over, so the mails wait for somebody to look",
		sql:     []string{`update listings set price = price - 1000000 where deal = 'sale' and vacant`},
		matches: map[ended]int{{"team-listing-price-cut", outbox.MatchHeld}: 25},
	},
	{
		does: "a correction by hand moves all appointments and mutes itself",
		sql: []string{
			`select pg_logical_emit_message(true, 'postman.mute', 'the import of March had the wrong time zone')`,
			`update schedules set starts_at = starts_at + interval '1 hour', ends_at = ends_at + interval '1 hour'`,
		},
		matches: map[ended]int{{"schedule-moved", outbox.MatchMuted}: 13},
	},
}

// scenarioRules are the names of the rules that the scenario expects something of, in their order.
func scenarioRules(scenes []scene) (names []string) {
	add := func(name string) {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	for _, s := range scenes {
		for _, m := range s.mails {
			add(m.rule)
		}
		for _, u := range s.unsent {
			add(u.rule)
		}
	}
	return names
}

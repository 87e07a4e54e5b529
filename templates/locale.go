package templates

import (
	"strings"
	"time"
)

// locale is how a language writes numbers, money and times. Group and decimal signs are those of all the languages here.
type locale struct {
	tag                       string
	date, day, time, datetime string // layouts of package time, its English names replaced by names
	names                     *strings.Replacer
	weekdays                  [7]string
	plural                    func(one bool) bool // whether the form for one is used
	wonBefore, wonAfter       string
	why                       string // stands before the reason for a mail
	units                     bool   // large amounts of won are told in 억 and 만
}

var korean = &locale{
	tag:  "ko",
	date: "2006년 1월 2일", day: "1월 2일 (Mon)", time: "PM 3:04", datetime: "2006년 1월 2일 (Mon) PM 3:04",
	names: strings.NewReplacer("Mon", "월", "Tue", "화", "Wed", "수", "Thu", "목", "Fri", "금", "Sat", "토", "Sun", "일",
		"AM", "오전", "PM", "오후"),
	weekdays: [7]string{"일요일", "월요일", "화요일", "수요일", "목요일", "금요일", "토요일"},
	plural:   func(bool) bool { return false }, // CLDR: Korean has the category "other" only
	wonAfter: "원",
	why:      "이 메일을 받으신 이유: ",
	units:    true,
}

var english = &locale{
	tag:  "en",
	date: "January 2, 2006", day: "Mon, January 2", time: "3:04 PM", datetime: "Mon, January 2, 2006, 3:04 PM",
	names:     strings.NewReplacer(),
	weekdays:  [7]string{"Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"},
	plural:    func(one bool) bool { return one },
	wonBefore: "₩",
	why:       "Why you received this: ",
}

// localeFor is how mails in the language of a BCP 47 tag write. A language that is not known here writes as English does.
func localeFor(tag string) *locale {
	if language, _, _ := strings.Cut(normalTag(tag), "-"); language == korean.tag {
		return korean
	}
	return english
}

// normalTag lets ko_KR, KO-kr and ko-KR be one: file names and database columns write them all.
func normalTag(tag string) string {
	return strings.ToLower(strings.ReplaceAll(tag, "_", "-"))
}

// shorter is the tag without its last subtag (RFC 4647 §3.4), and in the end nothing.
func shorter(tag string) string {
	return tag[:max(strings.LastIndexAny(tag, "-_"), 0)]
}

func (l *locale) format(layout string, t time.Time) string {
	return l.names.Replace(t.Format(layout))
}

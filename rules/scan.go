package rules

import (
	"bytes"
	"math"
	"strconv"
)

// read takes a present value in as the stream has it, where it has the plain form that Postgres prints. Where it reports
// false, package value decodes: nothing is accepted here that would be refused or differ there.
func (s *scalar) read(f form, text []byte) bool {
	switch f {
	case formText:
		s.state, s.text = stateText, text
		return true
	case formPadded:
		s.state, s.text = stateText, bytes.TrimRight(text, " ")
		return true
	case formBool:
		s.state, s.n = stateInt, int64(b2i(string(text) == "t"))
		return s.n == 1 || string(text) == "f"
	case formWhole:
		s.state = stateInt
		return s.readWhole(text)
	case formNumber:
		s.state, s.big = stateNum, nil
		return s.readNumber(text)
	case formFloat:
		return s.readFloat(text)
	case formInstant:
		const utc = "+00"
		n := len(text) - len(utc)
		return n > 0 && string(text[n:]) == utc && s.readMoment(text[:n])
	case formLocal:
		return s.readMoment(text)
	case formDay:
		s.state = stateInt
		days, ok := readDay(text)
		s.n = days * 86_400_000_000
		return ok && len(text) == 10
	case formOther:
	}
	return false
}

// readWhole reads up to 18 digits with a sign.
func (s *scalar) readWhole(text []byte) bool {
	negative := len(text) > 0 && text[0] == '-'
	if negative {
		text = text[1:]
	}
	if len(text) == 0 || len(text) > exactDigits {
		return false
	}
	n := int64(0)
	for _, c := range text {
		if c < '0' || c > '9' {
			return false
		}
		n = n*10 + int64(c-'0')
	}
	if negative {
		n = -n
	}
	s.n = n
	return true
}

// readNumber reads digits with a sign and a point among them, and up to 18 that count.
func (s *scalar) readNumber(text []byte) bool {
	negative := len(text) > 0 && text[0] == '-'
	if negative {
		text = text[1:]
	}
	n, exp, digits, point := int64(0), int32(0), 0, false
	for i, c := range text {
		switch {
		case c == '.' && !point && i > 0 && i < len(text)-1:
			point = true
			continue
		case c < '0' || c > '9':
			return false
		case n != 0 || c != '0':
			digits++
		}
		if n = n*10 + int64(c-'0'); point {
			exp--
		}
		if digits > exactDigits {
			return false
		}
	}
	if len(text) == 0 {
		return false
	}
	if negative {
		n = -n
	}
	s.n, s.exp = canonical(n, exp)
	return true
}

// readFloat reads the number that a float stands for: the shortest that reads back as the same float (see value.Compare).
func (s *scalar) readFloat(text []byte) bool {
	f, err := strconv.ParseFloat(string(text), 64)
	if err != nil || math.Abs(f) >= 1e18 || f != 0 && math.Abs(f) < 1e-9 || f != f {
		return false
	}
	var digits [40]byte
	s.state, s.big = stateNum, nil
	return s.readNumber(strconv.AppendFloat(digits[:0], f, 'f', -1, 64))
}

// readMoment reads 2006-01-02 15:04:05.999999 of the years 1 to 9999.
func (s *scalar) readMoment(text []byte) bool {
	const whole = len("2006-01-02 15:04:05")
	days, ok := readDay(text)
	if !ok || len(text) < whole || text[10] != ' ' || text[13] != ':' || text[16] != ':' {
		return false
	}
	hour, ok1 := two(text[11:])
	minute, ok2 := two(text[14:])
	second, ok3 := two(text[17:])
	micros, ok4 := fraction(text[whole:])
	if !ok1 || !ok2 || !ok3 || !ok4 || hour > 23 || minute > 59 || second > 59 {
		return false
	}
	s.state, s.n = stateInt, (((days*24+hour)*60+minute)*60+second)*1_000_000+micros
	return true
}

// fraction reads what may follow the seconds, in microseconds.
func fraction(text []byte) (int64, bool) {
	const most = len(".999999")
	if len(text) == 0 {
		return 0, true
	}
	if text[0] != '.' || len(text) == 1 || len(text) > most {
		return 0, false
	}
	n := int64(0)
	for i := 1; i < most; i++ {
		digit := byte('0')
		if i < len(text) {
			digit = text[i]
		}
		if digit < '0' || digit > '9' {
			return 0, false
		}
		n = n*10 + int64(digit-'0')
	}
	return n, true
}

// readDay reads 2006-01-02 at the beginning of a text, of the years 1 to 9999, as days since 2000.
func readDay(text []byte) (int64, bool) {
	if len(text) < len("2006-01-02") || text[4] != '-' || text[7] != '-' {
		return 0, false
	}
	century, ok1 := two(text)
	rest, ok2 := two(text[2:])
	month, ok3 := two(text[5:])
	day, ok4 := two(text[8:])
	year := century*100 + rest
	if !ok1 || !ok2 || !ok3 || !ok4 || year < 1 || month < 1 || month > 12 || day < 1 || day > daysIn(year, month) {
		return 0, false
	}
	return daysSince2000(year, month, day), true
}

func two(text []byte) (int64, bool) {
	a, b := text[0]-'0', text[1]-'0'
	return int64(a)*10 + int64(b), a <= 9 && b <= 9
}

func daysIn(year, month int64) int64 {
	switch month {
	case 4, 6, 9, 11:
		return 30
	case 2:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	}
	return 31
}

// daysSince2000 counts days of the Gregorian calendar, in years that begin in March: then the leap day is the last one
// and a month's beginning is a linear function of its number.
func daysSince2000(year, month, day int64) int64 {
	if month <= 2 {
		year, month = year-1, month+12
	}
	const march2000 = 2000*365 + 2000/4 - 2000/100 + 2000/400 // days from March of year 0
	return year*365 + year/4 - year/100 + year/400 - march2000 + (153*(month-3)+2)/5 + day - 1 + 60
}

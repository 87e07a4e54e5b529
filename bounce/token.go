package bounce

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"strings"
)

// MostLocalPart is how long a local part may be (RFC 5321 §4.5.3.1.1).
const MostLocalPart = 64

// A token is a message's number and the first bytes of its HMAC, in base32: letters and digits alone, since what stands between may be changed
// on the way (SRS, BATV), and in either case, since servers fold it.
const (
	macBytes    = 10
	mostToken   = (8*(binary.MaxVarintLen64+macBytes) + 4) / 5
	leastToken  = (8*(1+macBytes) + 4) / 5
	placeholder = "*"
)

var encoding = base32.StdEncoding.WithPadding(base32.NoPadding)

// mac binds a number to the key. It says what for: the same key may sign other things.
func mac(key []byte, message int64) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte("bounce\x00"))
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(message)))
	return h.Sum(nil)[:macBytes]
}

// Token names a message, in letters and digits. [Message] reads it.
func Token(key []byte, message int64) string {
	return strings.ToLower(encoding.EncodeToString(append(binary.AppendUvarint(nil, uint64(message)), mac(key, message)...)))
}

// Sender is the envelope sender of a message: an address in whose local part a * stands for the message's token, as in *@bounces.example.com or
// bounces+*@example.com. Without one it is the same for all messages.
func Sender(address string, key []byte, message int64) string {
	before, after, found := cutPlaceholder(address)
	if !found {
		return address
	}
	return before + Token(key, message) + after
}

// CheckSender says what is wrong with an address for [Sender]; nil: nothing.
func CheckSender(address string) error {
	before, after, found := cutPlaceholder(address)
	if !found {
		return nil
	}
	local, _, _ := strings.Cut(address, "@")
	if strings.Count(local, placeholder) > 1 {
		return fmt.Errorf("%q has more than one *", address)
	}
	if n := len(local) - 1 + mostToken; n > MostLocalPart {
		return fmt.Errorf("%q: what stands before the @ would have %d characters with a token in the place of the *, and %d is the most", address, n, MostLocalPart)
	}
	if before != "" && alphanumeric(rune(before[len(before)-1])) || alphanumeric(rune(after[0])) {
		return fmt.Errorf("%q: beside the * must stand no letter or digit, but a + or a -", address)
	}
	return nil
}

// cutPlaceholder divides an address around the * of its local part.
func cutPlaceholder(address string) (before, after string, found bool) {
	at := strings.LastIndexByte(address, '@')
	if at < 0 {
		return "", "", false
	}
	before, after, found = strings.Cut(address[:at], placeholder)
	return before, after + address[at:], found
}

func alphanumeric(r rune) bool {
	return r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
}

// Message is the number of the message whose envelope sender an address is, or whose token it has, whatever a server has put around the token;
// false: it has none that was made with the key.
func Message(key []byte, address string) (message int64, ok bool) {
	local := address
	if at := strings.LastIndexByte(address, '@'); at >= 0 {
		local = address[:at]
	}
	for field := range strings.FieldsFuncSeq(local, func(r rune) bool { return !alphanumeric(r) }) {
		if len(field) < leastToken || len(field) > mostToken {
			continue
		}
		token, err := encoding.DecodeString(strings.ToUpper(field))
		if err != nil || len(token) <= macBytes {
			continue
		}
		number := token[:len(token)-macBytes]
		n, size := binary.Uvarint(number)
		if size == len(number) && hmac.Equal(mac(key, int64(n)), token[len(number):]) {
			return int64(n), true
		}
	}
	return 0, false
}

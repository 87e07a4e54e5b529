package dispatch

import (
	"bytes"
	"mime"
	"strings"
)

// redirected addresses a mail to one mailbox instead of its recipients: To, Cc and Reply-To are rewritten, the original
// ones are named in X-Postman-Original-To, and the subject says it. It is the last step before the wire, so that the bytes
// that are kept for retries stay those of the real mail. Its thread stays: it names nobody, and who tries rules out sees what stands together.
func redirected(body []byte, to string, original envelope) []byte {
	head, rest, _ := bytes.Cut(body, []byte("\r\n\r\n"))
	var out bytes.Buffer
	out.Grow(len(body) + 200)
	for _, field := range fields(head) {
		name, value, _ := strings.Cut(field, ":")
		switch strings.ToLower(name) {
		case "to", "cc", "reply-to":
		case "subject":
			out.WriteString(name + ": [redirected]" + spaced(value) + "\r\n")
		default:
			out.WriteString(field + "\r\n")
		}
	}
	out.WriteString("To: <" + to + ">\r\nReply-To: <" + to + ">\r\n")
	out.WriteString("X-Postman-Original-To: " + originally(original) + "\r\n")
	out.WriteString("\r\n")
	out.Write(rest)
	return out.Bytes()
}

// originally names the recipients. What is not ASCII is encoded: the mail goes to an address that is.
func originally(e envelope) string {
	names := append([]string{e.to}, e.cc...)
	for i := range names {
		names[i] = mime.QEncoding.Encode("utf-8", names[i])
	}
	return strings.Join(names, ",\r\n ")
}

// fields splits a header into its fields, each with its folded lines.
func fields(head []byte) []string {
	var list []string
	for line := range strings.SplitSeq(string(head), "\r\n") {
		if n := len(list); n > 0 && line != "" && (line[0] == ' ' || line[0] == '\t') {
			list[n-1] += "\r\n" + line
			continue
		}
		list = append(list, line)
	}
	return list
}

// spaced begins a value with the blank that keeps an encoded word apart from what was put before it.
func spaced(value string) string {
	if strings.HasPrefix(value, " ") || strings.HasPrefix(value, "\r\n") {
		return value
	}
	return " " + value
}

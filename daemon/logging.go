package daemon

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"unicode"
)

// NewLogger logs to w as the configuration says.
func NewLogger(w io.Writer, c Log) (*slog.Logger, error) {
	l, err := level(c.Level)
	if err != nil {
		return nil, err
	}
	options := &slog.HandlerOptions{Level: l}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, options)), nil
	}
	return slog.New(newReadable(w, options)), nil
}

// readable logs as a slog.TextHandler does, but for texts of several lines, such as a mistake in a rule with the line that it is in: in
// their place stands the first line, and the others follow below, as they are and indented, so that none of them passes for a record.
type readable struct {
	slog.Handler
	out *below
}

func newReadable(w io.Writer, options *slog.HandlerOptions) *readable {
	out := &below{w: w}
	return &readable{slog.NewTextHandler(out, options), out}
}

// below writes a record's line, and below it the lines of its texts.
type below struct {
	mu    sync.Mutex // held while a record is handled
	w     io.Writer
	lines []string
}

// Write is called once for a record, with all of its line.
func (b *below) Write(p []byte) (int, error) {
	if len(b.lines) == 0 {
		return b.w.Write(p)
	}
	text := slices.Clone(p)
	for _, line := range b.lines {
		text = append(append(text, "    "...), strings.TrimRight(printable(line), " ")...)
		text = append(text, '\n')
	}
	if _, err := b.w.Write(text); err != nil { // in one piece, as others may write there
		return 0, err
	}
	return len(p), nil
}

// printable is a line without what would move a terminal's cursor.
func printable(line string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case r == '\n', r == '\r':
			return -1
		case unicode.IsControl(r):
			return unicode.ReplacementChar
		}
		return r
	}, line)
}

// Handle writes a record.
func (h *readable) Handle(ctx context.Context, r slog.Record) error {
	h.out.mu.Lock()
	defer h.out.mu.Unlock()
	h.out.lines = h.out.lines[:0]
	short := slog.NewRecord(r.Time, r.Level, h.first(r.Message), r.PC)
	r.Attrs(func(a slog.Attr) bool {
		switch v := a.Value.Resolve(); v.Kind() {
		case slog.KindString:
			a.Value = slog.StringValue(h.first(v.String()))
		case slog.KindAny:
			if err, ok := v.Any().(error); ok {
				a.Value = slog.StringValue(h.first(err.Error()))
			}
		}
		short.AddAttrs(a)
		return true
	})
	return h.Handler.Handle(ctx, short)
}

// first is a text's first line. The others are written below the record.
func (h *readable) first(text string) string {
	line, rest, more := strings.Cut(strings.TrimRight(text, "\n"), "\n")
	if more {
		h.out.lines = slices.AppendSeq(h.out.lines, strings.Lines(rest))
	}
	return line
}

// WithAttrs is a handler of the same kind.
func (h *readable) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &readable{h.Handler.WithAttrs(attrs), h.out}
}

// WithGroup likewise.
func (h *readable) WithGroup(name string) slog.Handler {
	return &readable{h.Handler.WithGroup(name), h.out}
}

func level(name string) (slog.Level, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(name)); err != nil {
		return l, fmt.Errorf("%q; it is debug, info, warn or error", name)
	}
	return l, nil
}

// firstLine is what is wrong, without what is to be done about it.
func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}

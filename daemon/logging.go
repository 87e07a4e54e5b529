package daemon

import (
	"fmt"
	"io"
	"log/slog"
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
	return slog.New(slog.NewTextHandler(w, options)), nil
}

func level(name string) (slog.Level, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(name)); err != nil {
		return l, fmt.Errorf("%q; it is debug, info, warn or error", name)
	}
	return l, nil
}

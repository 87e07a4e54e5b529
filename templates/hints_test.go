package templates

import "testing"

// TestUsages holds that each function has a call to show, and that these are right.
func TestUsages(t *testing.T) {
	t.Parallel()
	row := map[string]any{
		"price": 5, "starts_at": sampleTime, "rooms": 1, "note": nil, "tags": []any{"a"}, "title": "a", "sold": false, "kind": "meeting", "vacant": true,
	}
	data := Data{"new": row, "message": map[string]any{}, "listings": []any{}}
	for _, name := range functionNames() {
		if usages[name] == "" {
			t.Errorf("%s has none", name)
			continue
		}
		s := load(t, map[string]string{"m.html": whole("{{if " + usages[name] + "}}{{end}}")})
		if _, err := s.Render("m", Context{}, data); err != nil {
			t.Error(err)
		}
	}
}

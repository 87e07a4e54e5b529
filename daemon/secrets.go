package daemon

import (
	"slices"

	"postman/rules"
	"postman/templates"
)

// secrets names the sensitive values that a rule reads, or that its mail shows. The journal has none of them.
func (l *live) secrets(r *rules.Rule) []string {
	if len(r.Sensitive) == 0 {
		return nil
	}
	names := r.Secrets()
	for use := range l.templates.Uses(r.Template, l.sight(r)) {
		name := use.Of + "." + use.Name
		if slices.Contains([]string{"new", "old", "message"}, use.Of) && r.Hides(use.Name) && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// sight is what a rule's template sees, as far as that matters to which of the change's values it shows.
func (l *live) sight(r *rules.Rule) templates.Data {
	d := templates.Data{
		"rule": r.Name, "about": r.About, "op": r.On.Ops[0].String(), "table": r.On.Table.String(), "commit_time": l.loaded, "row": nil,
		"message": nil, "to": templates.Unknown{},
	}
	for _, load := range r.Load {
		d[load.Name] = templates.Unknown{}
	}
	keys := make(map[string]any)
	for _, name := range r.Sensitive {
		keys[name] = nil
	}
	if t := l.catalog.Tables[r.On.Table]; t != nil {
		d["new"], d["old"] = templates.Sample(valueColumns(t.Columns), false), templates.Sample(valueColumns(t.Columns), false)
		return d
	}
	d["new"], d["old"], d["message"] = map[string]any{}, map[string]any{}, keys
	return d
}

package templates

import (
	"reflect"
	"slices"
)

// Use is a value that a template reads: Of is the name of what it is a part of, such as new, or empty for a name of the data
// itself. Block is the part of the mail that shows it: subject, body, text, preheader or ics.
type Use struct{ Block, Of, Name string }

// Uses tells which of the data's names a template reads, and which parts of these, in any language and any branch. d is a sample
// as [Set.Check] takes it.
func (s *Set) Uses(name string, d Data) map[Use]bool {
	uses := make(map[Use]bool)
	m := s.mails[name]
	if m == nil {
		return uses
	}
	for _, v := range m.variants {
		root := open(map[string]any(d)).(map[string]any)
		named := map[uintptr]string{address(root): ""}
		for name, part := range root {
			if at := address(part); at != 0 {
				named[at] = name
			}
			if at := address(elementOf(part)); at != 0 {
				named[at] = name
			}
		}
		for _, block := range known {
			w := &walker{variant: v, read: func(shape any, name string) {
				if of, ok := named[address(shape)]; ok && name != anyPart {
					uses[Use{block, of, name}] = true
				}
			}}
			w.block(block, root)
		}
	}
	return uses
}

// Reads says whether a template may read one of some names of the data itself, in any language and any branch.
func (s *Set) Reads(name string, of ...string) bool {
	m := s.mails[name]
	if m == nil {
		return false
	}
	of = append(of, anyPart)
	for _, v := range m.variants {
		if slices.ContainsFunc(known, func(block string) bool { return v.reads(block, of...) }) {
			return true
		}
	}
	return false
}

// address tells shapes apart that look the same; 0: it is no row, list or object.
func address(shape any) uintptr {
	switch v := reflect.ValueOf(shape); v.Kind() {
	case reflect.Map, reflect.Pointer:
		return v.Pointer()
	default:
		return 0
	}
}

package templates

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/template/parse"
)

// try checks the variant against samples: first every name that it reads, in all branches, against the samples' shapes; if these
// are there, by rendering. An empty subject is forgiven to all samples but the first.
func (v *variant) try(samples []Data) []error {
	w := &walker{variant: v}
	filled := make([]map[string]any, len(samples))
	for i, sample := range samples {
		shape := open(map[string]any(sample)).(map[string]any)
		for _, name := range known {
			w.block(name, shape)
		}
		closed(shape)
		filled[i] = shape
	}
	if len(w.errs.errs) > 0 {
		return w.errs.inOrder()
	}
	var errs mistakes
	left := v
	for i, data := range filled {
		left = left.tryRender(data, &errs, i > 0)
	}
	return errs.inOrder()
}

// undecided is the shape of what only the data can tell: NULL, and what functions yield.
type undecided struct{}

// anything is the shape of an [Unknown]: it learns which parts are read of it, and whether it is looped over.
type anything struct {
	parts   map[string]*anything
	element *anything
}

// open is a sample with each Unknown replaced by its own *anything.
func open(v any) any {
	switch v := v.(type) {
	case Unknown:
		return &anything{}
	case Data:
		return open(map[string]any(v))
	case map[string]any:
		m := make(map[string]any, len(v))
		for k, e := range v {
			m[k] = open(e)
		}
		return m
	case []any:
		list := make([]any, len(v))
		for i, e := range v {
			list[i] = open(e)
		}
		return list
	case []map[string]any:
		list := make([]map[string]any, len(v))
		for i, m := range v {
			list[i] = open(m).(map[string]any)
		}
		return list
	}
	return v
}

// closed is a sample again, with the parts that *anything has learned of.
func closed(v any) any {
	switch v := v.(type) {
	case *anything:
		return v.sample()
	case map[string]any:
		for k, e := range v {
			v[k] = closed(e)
		}
	case []any:
		for i, e := range v {
			v[i] = closed(e)
		}
	case []map[string]any:
		for _, m := range v {
			closed(m)
		}
	}
	return v
}

func (a *anything) sample() any {
	switch {
	case a.element != nil:
		return []any{a.element.sample()}
	case len(a.parts) > 0:
		m := make(map[string]any, len(a.parts))
		for k, p := range a.parts {
			m[k] = p.sample()
		}
		return m
	}
	return Unknown{}
}

func (a *anything) part(name string) *anything {
	if a.parts == nil {
		a.parts = make(map[string]*anything)
	}
	if a.parts[name] == nil {
		a.parts[name] = &anything{}
	}
	return a.parts[name]
}

func (a *anything) elements() *anything {
	if a.element == nil {
		a.element = &anything{}
	}
	return a.element
}

// maxSteps bounds the walk. Blocks that call others twice double at each level.
const maxSteps = 200_000

// walker goes through all branches of a template with the shapes of its data.
type walker struct {
	variant *variant
	at      *block
	vars    []variable
	errs    mistakes
	steps   int
	read    func(shape any, name string) // is told of each part that is read; may be nil
	// compared is told of each part that eq and ne compare with a text; may be nil.
	compared func(of any, part string, text *parse.StringNode)
}

// anyPart is the name of a part of which only the data can tell the name.
const anyPart = ""

type variable struct {
	name  string
	shape any
}

func (w *walker) block(name string, dot any) {
	b := w.variant.blocks[name]
	if b == nil {
		return
	}
	callerBlock, callerVars := w.at, w.vars
	w.at, w.vars = b, []variable{{"$", dot}}
	w.list(b.tree.Root, dot)
	w.at, w.vars = callerBlock, callerVars
}

func (w *walker) report(offset int, message, hint string) {
	if !w.errs.full() {
		w.errs.add(w.at.file.at(offset, message, hint))
	}
}

func (w *walker) list(l *parse.ListNode, dot any) {
	if l == nil {
		return
	}
	for _, n := range l.Nodes {
		if w.steps++; w.steps > maxSteps {
			w.errs.add(&mistake{file: w.variant.file, message: "the template is too large", hint: "its blocks call others again and again"})
			return
		}
		w.node(n, dot)
	}
}

func (w *walker) node(n parse.Node, dot any) {
	scope := len(w.vars)
	switch n := n.(type) {
	case *parse.ActionNode:
		w.pipe(n.Pipe, dot)
		return // what it declares stays
	case *parse.TemplateNode:
		w.block(n.Name, w.pipe(n.Pipe, dot))
	case *parse.IfNode:
		w.pipe(n.Pipe, dot)
		w.branches(n.List, dot, n.ElseList, dot)
	case *parse.WithNode:
		w.branches(n.List, w.pipe(n.Pipe, dot), n.ElseList, dot)
	case *parse.RangeNode:
		element := elementOf(w.pipe(n.Pipe, dot))
		w.loopVariables(n.Pipe, element)
		w.branches(n.List, element, n.ElseList, dot)
	}
	w.vars = w.vars[:scope]
}

func (w *walker) branches(list *parse.ListNode, dot any, elseList *parse.ListNode, elseDot any) {
	scope := len(w.vars)
	w.list(list, dot)
	w.vars = w.vars[:scope]
	w.list(elseList, elseDot)
	w.vars = w.vars[:scope]
}

// loopVariables gives {{range $element := …}} and {{range $index, $element := …}} their shapes.
func (w *walker) loopVariables(p *parse.PipeNode, element any) {
	for i, d := range p.Decl {
		if i == len(p.Decl)-1 {
			w.set(d.Ident[0], element)
		} else {
			w.set(d.Ident[0], undecided{})
		}
	}
}

func elementOf(list any) any {
	switch list := list.(type) {
	case *anything:
		return list.elements()
	case []any:
		if len(list) > 0 {
			return list[0]
		}
	case []map[string]any:
		if len(list) > 0 {
			return list[0]
		}
	}
	return undecided{}
}

// pipe is the shape of what a pipeline yields.
func (w *walker) pipe(p *parse.PipeNode, dot any) any {
	if p == nil {
		return undecided{}
	}
	var shape any = undecided{}
	for _, c := range p.Cmds {
		shape = w.command(c, dot)
	}
	for _, d := range p.Decl {
		if p.IsAssign {
			w.set(d.Ident[0], undecided{}) // which branch assigned last is the data's to say
		} else {
			w.vars = append(w.vars, variable{d.Ident[0], shape})
		}
	}
	return shape
}

func (w *walker) set(name string, shape any) {
	for i := range slices.Backward(w.vars) {
		if w.vars[i].name == name {
			w.vars[i].shape = shape
			return
		}
	}
}

func (w *walker) get(name string) any {
	for _, v := range slices.Backward(w.vars) {
		if v.name == name {
			return v.shape
		}
	}
	return undecided{}
}

func (w *walker) command(c *parse.CommandNode, dot any) any {
	shapes := make([]any, len(c.Args))
	for i, arg := range c.Args {
		shapes[i] = w.argument(arg, dot)
	}
	if id, ok := c.Args[0].(*parse.IdentifierNode); ok {
		if w.compared != nil && (id.Ident == "eq" || id.Ident == "ne") {
			w.comparison(c, dot)
		}
		switch {
		case id.Ident == "dict":
			return dictShape(c.Args[1:], shapes[1:])
		case id.Ident == "get" && w.read != nil && len(c.Args) > 2:
			name := anyPart
			if literal, ok := c.Args[2].(*parse.StringNode); ok {
				name = literal.Text
			}
			w.read(shapes[1], name)
		}
		return undecided{}
	}
	return shapes[0]
}

// dictShape is the shape of (dict "name" value …).
func dictShape(args []parse.Node, shapes []any) any {
	m := make(map[string]any, len(args)/2)
	for i := 0; i+1 < len(args); i += 2 {
		name, ok := args[i].(*parse.StringNode)
		if !ok {
			return undecided{}
		}
		m[name.Text] = shapes[i+1]
	}
	return m
}

func (w *walker) argument(n parse.Node, dot any) any {
	switch n := n.(type) {
	case *parse.DotNode:
		return dot
	case *parse.FieldNode:
		return w.chain(dot, n.Ident, int(n.Pos)-offsetOfSecond(n.Ident), "")
	case *parse.VariableNode:
		return w.chain(w.get(n.Ident[0]), n.Ident[1:], int(n.Pos), n.Ident[0]) // the parser gives the place of the first dot
	case *parse.ChainNode:
		return w.chain(w.argument(n.Node, dot), n.Field, int(n.Pos), "(…)")
	case *parse.PipeNode:
		return w.pipe(n, dot)
	case *parse.StringNode:
		return n.Text
	}
	return undecided{}
}

// offsetOfSecond: the parser gives .a.b.c the place of .b, and .a its own.
func offsetOfSecond(ident []string) int {
	if len(ident) < 2 {
		return 0
	}
	return len(".") + len(ident[0])
}

// chain follows .a.b.c from a shape. at is where the first dot stands; owner is what the source writes before it.
func (w *walker) chain(shape any, path []string, at int, owner string) any {
	for i, name := range path {
		if w.read != nil {
			w.read(shape, name)
		}
		part, message, hint := partOf(shape, name, owner+dotted(path[:i]))
		if message != "" {
			if i == 0 && owner == "" && w.atRoot(path) {
				hint = fmt.Sprintf("write $%s: inside of {{range}} and {{with}} the dot is what they are about, and $ is the whole", dotted(path))
			}
			w.report(at+len("."), message, hint)
			return undecided{}
		}
		shape = part
		at += len(".") + len(name)
	}
	return shape
}

// atRoot says whether the whole, which is $, has a path that the dot has not.
func (w *walker) atRoot(path []string) bool {
	root, ok := w.get("$").(map[string]any)
	if !ok {
		return false
	}
	if _, ok := root[path[0]]; !ok || len(path) < 2 {
		return ok
	}
	row, ok := root[path[0]].(map[string]any)
	_, has := row[path[1]]
	return !ok || has
}

func dotted(path []string) string {
	if len(path) == 0 {
		return ""
	}
	return "." + strings.Join(path, ".")
}

// partOf is the shape of a named part, or a message and a way out where there is none for sure.
func partOf(shape any, name, owner string) (part any, message, hint string) {
	switch shape := shape.(type) {
	case nil, undecided:
		return undecided{}, "", ""
	case *anything:
		return shape.part(name), "", ""
	case map[string]any:
		part, ok := shape[name]
		if !ok {
			return nil, fmt.Sprintf("there is no %s.%s", owner, name), cmp.Or(deeper(shape, name, owner), partHint(name, owner, slices.Sorted(maps.Keys(shape))))
		}
		return part, "", ""
	case []any, []map[string]any:
		return nil, orDot(owner) + " is a list", fmt.Sprintf("read .%s inside {{range %s}}", name, orDot(owner))
	}
	return nil, fmt.Sprintf("%s is %s and has no .%s", orDot(owner), kind(shape), name), ""
}

// deeper asks whether a part of a part was meant: .kind where there is .new.kind.
func deeper(shape map[string]any, name, owner string) string {
	for _, part := range slices.Sorted(maps.Keys(shape)) {
		if row, ok := shape[part].(map[string]any); ok && owner == "" {
			if _, ok := row[name]; ok && part != "old" {
				return fmt.Sprintf("did you mean .%s.%s?", part, name)
			}
		}
	}
	return ""
}

func orDot(owner string) string {
	if owner == "" {
		return "."
	}
	return owner
}

package templates

import (
	"crypto/sha256"
	"errors"
	"fmt"
	htmltemplate "html/template"
	"io"
	"maps"
	"slices"
	"strings"
	"text/template"
	"text/template/parse"
)

// The blocks that mean something.
const (
	blockSubject   = "subject"
	blockBody      = "body"
	blockText      = "text"
	blockPreheader = "preheader"
	blockICS       = "ics"
	blockAbout     = "about"  // the reason for the mail, in the file's own language
	blockLocale    = "locale" // of the shared files, or of a file whose name tells no language
)

// maxBlocks is the most that a mail and the shared files may define: what html/template takes to escape a chain of blocks that call
// each other grows with the square of its length.
const maxBlocks = 300

var known = []string{blockSubject, blockBody, blockText, blockPreheader, blockICS, blockAbout}

// keyAbout is the data's name for the rule's about.
const keyAbout = "about"

// variant is a template in one language, compiled.
type variant struct {
	file   *file
	locale *locale
	files  map[string]*file // by name, for the places of errors
	hash   Hash
	blocks map[string]*block
	html   *htmltemplate.Template // body, preheader
	plain  *template.Template     // subject, text, about
	ics    *template.Template     // ics: what it prints is escaped as RFC 5545 text
	tells  map[string]bool        // the blocks that have a place for .about
}

func (v *variant) has(name string) bool { return v.blocks[name] != nil }

// compile makes a variant of a file and the shared blocks, or reports why there is none.
func (l *folder) compile(f *file) *variant {
	tag := f.locale
	if own := f.blocks[blockLocale]; tag == "" && own != nil {
		tag = l.readLocale(&block{f, own})
	}
	if tag == "" {
		tag = l.locale
	}
	v := &variant{file: f, locale: localeFor(tag), files: l.files, hash: l.hash(f), blocks: maps.Clone(l.blocks)}
	for name, tree := range f.blocks {
		v.blocks[name] = &block{f, tree}
	}
	errs := v.checkBlocks()
	l.report(errs...)
	if len(errs) > 0 || len(l.errs.errs) > 0 {
		return v
	}
	l.report(v.build()...)
	return v
}

// hash is that of a file and the shared ones.
func (l *folder) hash(f *file) (h Hash) {
	sum := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(l.files)) {
		if of := l.files[name]; of == f || of.shared() {
			fmt.Fprintf(sum, "%d %s\n%d %s\n", len(name), name, len(of.text), of.text) //nolint:errcheck // a hash takes everything
		}
	}
	return Hash(sum.Sum(nil))
}

// checkBlocks finds what is missing, misspelt, or calls itself.
func (v *variant) checkBlocks() []error {
	if n := len(v.blocks); n > maxBlocks {
		return []error{&mistake{file: v.file, message: fmt.Sprintf("it has %d blocks, with those of the shared files; at most %d are taken", n, maxBlocks), hint: "a mail needs a dozen"}}
	}
	var errs mistakes
	for _, name := range []string{blockSubject, blockBody} {
		if !v.has(name) {
			errs.add(&mistake{file: v.file, message: fmt.Sprintf("block %q is missing", name), hint: addBlock(name, v.file.blocks)})
		}
	}
	used := map[string]bool{blockLocale: v.file.locale == ""}
	for _, name := range known {
		errs.add(v.reach(name, used, nil)...)
	}
	for _, name := range slices.Sorted(maps.Keys(v.file.blocks)) {
		if !used[name] {
			errs.add(v.file.at(int(v.file.blocks[name].Root.Pos), fmt.Sprintf("block %q is never used", name), useBlock(name)))
		}
	}
	return errs.inOrder()
}

func addBlock(name string, blocks map[string]*parse.Tree) string {
	if best, ok := nearest(name, slices.Sorted(maps.Keys(blocks))); ok {
		return fmt.Sprintf("is that what {{define %q}} was to be?", best)
	}
	return fmt.Sprintf("add {{define %q}}…{{end}}", name)
}

func useBlock(name string) string {
	if best, ok := nearest(name, known); ok {
		return fmt.Sprintf("did you mean %q?", best)
	}
	return fmt.Sprintf("postman takes %s and what these call: call it with {{template %q .}}, or delete it", strings.Join(known, ", "), name)
}

// reach marks a block and all that it calls. Calls that lead back to a caller are errors: a mail has no need of recursion, and
// without it every template ends.
func (v *variant) reach(name string, used map[string]bool, callers []string) []error {
	b := v.blocks[name]
	if b == nil || used[name] {
		return nil
	}
	var errs []error
	for call := range calls(b.tree.Root) {
		if len(errs) >= maxMistakes {
			break
		}
		switch {
		case v.blocks[call.Name] == nil:
			errs = append(errs, b.file.at(int(call.Pos), fmt.Sprintf("there is no block %q", call.Name), didYouMean(call.Name, v.names())))
		case call.Name == name || slices.Contains(callers, call.Name):
			errs = append(errs, b.file.at(int(call.Pos), fmt.Sprintf("block %q calls itself and would never end: %s",
				call.Name, strings.Join(append(append(slices.Clone(callers), name), call.Name), " calls ")), "use {{range}} for lists"))
		default:
			errs = append(errs, v.reach(call.Name, used, append(callers, name))...)
		}
	}
	used[name] = true
	return errs
}

func (v *variant) names() []string { return slices.Sorted(maps.Keys(v.blocks)) }

// build makes the three sets. An error of html/template's escaper, which runs at the first use, is found here.
func (v *variant) build() []error {
	v.html = htmltemplate.New("").Funcs(v.locale.functions(show)).Option("missingkey=error")
	v.plain = template.New("").Funcs(v.locale.functions(show)).Option("missingkey=error")
	v.ics = template.New("").Funcs(v.locale.functions(showICS)).Option("missingkey=error")
	var errs []error
	for name, tree := range v.trees(blockBody, blockPreheader) {
		_, err := v.html.AddParseTree(name, tree)
		errs = append(errs, err)
	}
	for name, tree := range v.trees(blockSubject, blockText, blockAbout) {
		_, err := v.plain.AddParseTree(name, tree)
		errs = append(errs, err)
	}
	for name, tree := range v.trees(blockICS) {
		_, err := v.ics.AddParseTree(name, tree)
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return []error{fmt.Errorf("%s: %w", v.file.name, err)}
	}
	v.tells = map[string]bool{blockBody: v.reads(blockBody, keyAbout), blockText: v.reads(blockText, keyAbout)}
	return v.escape()
}

// trees are our own copies of the trees that the roots reach, prepared for execution.
func (v *variant) trees(roots ...string) map[string]*parse.Tree {
	used := make(map[string]bool)
	for _, root := range roots {
		v.reach(root, used, nil)
	}
	trees := make(map[string]*parse.Tree, len(used))
	for name := range used {
		tree := v.blocks[name].tree.Copy()
		prepare(tree, tree.Root)
		trees[name] = tree
	}
	return trees
}

// errStop ends an execution that was begun for the sake of html/template's escaper only.
var errStop = errors.New("stop")

// escape has html/template work out the context of each place, which it does before it executes anything.
func (v *variant) escape() (errs []error) {
	probes := make(map[string]*htmltemplate.Template)
	for _, name := range []string{blockBody, blockPreheader} {
		if v.has(name) {
			probes[name] = htmltemplate.Must(v.html.New("_" + name).Parse(`{{_stop}}{{template "` + name + `" .}}`))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(probes)) {
		if err := probes[name].Execute(io.Discard, nil); !errors.Is(err, errStop) {
			errs = append(errs, v.escapeMistake(name, err))
		}
	}
	return errs
}

func (v *variant) escapeMistake(name string, err error) error {
	e, ok := errors.AsType[*htmltemplate.Error](err)
	if !ok {
		return fmt.Errorf("%s: block %q: %w", v.file.name, name, err)
	}
	message, hint := escapeMessage(e)
	if e.Node != nil {
		location, _ := (*parse.Tree)(nil).ErrorContext(e.Node)
		source, _, _ := strings.Cut(location, ":")
		if f := v.files[source]; f != nil {
			return f.at(int(e.Node.Position()), message, hint)
		}
	}
	return &mistake{file: v.file, message: fmt.Sprintf("block %q: %s", name, message), hint: hint}
}

// escapeMessage leaves out the escaper's inner states.
func escapeMessage(e *htmltemplate.Error) (message, hint string) {
	if e.ErrorCode == htmltemplate.ErrBranchEnd {
		return "the branches end in different places of the HTML", "let each close the brackets and quotes that it opens"
	}
	if e.ErrorCode == htmltemplate.ErrEndContext {
		return "it ends in the middle of a tag, a quoted attribute or a script", "close the bracket or quote"
	}
	message, _, _ = strings.Cut(e.Description, ": {state")
	return message, ""
}

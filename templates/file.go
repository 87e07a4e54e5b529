package templates

import (
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"regexp"
	"slices"
	"strings"
	"text/template/parse"
	"unicode/utf8"
)

// maxFile is far above any mail that a client shows whole (Gmail cuts at 102 KB), and low enough for the parser, which recurses.
const maxFile = 1 << 20

// file is one template file, parsed.
type file struct {
	name   string // schedule.ko.html
	mail   string // schedule; empty for a shared file
	locale string // ko; empty for schedule.html
	text   string
	blocks map[string]*parse.Tree // what it defines
}

func (f *file) shared() bool { return strings.HasPrefix(f.name, "_") }

// place turns an offset into the text into line and column, both from 1, the column in characters.
func (f *file) place(offset int) (line, column int) {
	before := f.text[:min(max(offset, 0), len(f.text))]
	start := strings.LastIndexByte(before, '\n') + 1
	return 1 + strings.Count(before, "\n"), 1 + utf8.RuneCountInString(before[start:])
}

// at is a mistake at an offset into the text.
func (f *file) at(offset int, message, hint string) error {
	line, column := f.place(offset)
	return &mistake{file: f, line: line, column: column, message: message, hint: hint}
}

// lineText is a line without its end; line counts from 1.
func (f *file) lineText(line int) string {
	text := f.text
	for range line - 1 {
		_, text, _ = strings.Cut(text, "\n")
	}
	text, _, _ = strings.Cut(text, "\n")
	return strings.TrimSuffix(text, "\r")
}

// lineStart is the offset of a line, in bytes; line counts from 1.
func (f *file) lineStart(line int) int {
	at := 0
	for range line - 1 {
		_, rest, _ := strings.Cut(f.text[at:], "\n")
		at = len(f.text) - len(rest)
	}
	return at
}

// runeColumn turns a column in bytes from 0 into one in characters from 1.
func (f *file) runeColumn(line, bytes int) int {
	text := f.lineText(line)
	return 1 + utf8.RuneCountInString(text[:min(bytes, len(text))])
}

// folder is what Load reads before it compiles.
type folder struct {
	mails  []*file
	files  map[string]*file  // all of them, by name
	blocks map[string]*block // of the shared files
	locale string            // the language of files whose names tell none
	errs   mistakes
}

// block is a named piece of a file.
type block struct {
	file *file
	tree *parse.Tree
}

func (l *folder) report(errs ...error) { l.errs.add(errs...) }

// readFolder reads and parses every file. The error is one of the folder itself; those of files are gathered.
func readFolder(dir fs.FS) (*folder, error) {
	entries, err := fs.ReadDir(dir, ".")
	if err != nil {
		return nil, fmt.Errorf("reading the templates: %w", err)
	}
	l := &folder{files: make(map[string]*file), blocks: make(map[string]*block), locale: "en"}
	for _, e := range entries {
		if name := e.Name(); strings.HasSuffix(name, ".html") && !strings.HasPrefix(name, ".") && !e.IsDir() {
			l.read(dir, name)
		}
	}
	l.share()
	return l, nil
}

func (l *folder) read(dir fs.FS, name string) {
	f, err := newFile(name)
	if err != nil {
		l.report(err)
		return
	}
	text, err := fs.ReadFile(dir, name)
	if err != nil {
		l.report(fmt.Errorf("%s: reading the template: %w", name, err))
		return
	}
	l.files[name] = f
	if err := f.parse(text); err != nil {
		l.report(err)
		return
	}
	l.report(f.checkTop()...)
	if errs := f.checkDepth(); len(errs) > 0 {
		l.report(errs...)
		return
	}
	l.report(f.checkFunctions()...)
	l.report(f.checkTexts()...)
	if !f.shared() {
		l.mails = append(l.mails, f)
	}
}

// fileName is name.html or name.ko-KR.html.
var fileName = regexp.MustCompile(`^([A-Za-z0-9_-]+)(?:\.([A-Za-z]{2,3}(?:-[A-Za-z0-9]{2,8})*))?\.html$`)

func newFile(name string) (*file, error) {
	m := fileName.FindStringSubmatch(name)
	if m == nil {
		return nil, &mistake{
			file: &file{name: name}, message: "this is no name of a template",
			hint: "call it name.html or, for a language, name.ko.html, with the letters a-z, digits, _ and -",
		}
	}
	f := &file{name: name, mail: m[1], locale: normalTag(m[2])}
	if f.shared() && m[2] != "" {
		return nil, &mistake{file: f, message: "a shared file serves all languages", hint: fmt.Sprintf("let it ask {{if eq locale %q}}", f.locale)}
	}
	return f, nil
}

func (f *file) parse(text []byte) error {
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	f.text = string(text)
	switch {
	case len(text) > maxFile:
		return &mistake{file: f, message: fmt.Sprintf("the file is larger than %d bytes", maxFile), hint: "no mail is; link to what is big"}
	case !utf8.Valid(text):
		return f.at(firstInvalid(f.text), "the file is not UTF-8", "save it as UTF-8")
	}
	tree := parse.New(f.name)
	tree.Mode = parse.SkipFuncCheck // ours names all unknown functions at once, with their columns
	f.blocks = make(map[string]*parse.Tree)
	if _, err := tree.Parse(f.text, "", "", f.blocks); err != nil {
		return parseMistake(f, err)
	}
	f.blocks[f.name] = tree
	return nil
}

func firstInvalid(s string) int {
	for i, r := range s {
		if r == utf8.RuneError {
			if _, size := utf8.DecodeRuneInString(s[i:]); size == 1 {
				return i
			}
		}
	}
	return 0
}

// checkTop refuses what stands outside of blocks, since nothing would ever print it, and forgets the file's own tree.
func (f *file) checkTop() (errs []error) {
	top := f.blocks[f.name]
	delete(f.blocks, f.name)
	for _, n := range top.Root.Nodes {
		switch n := n.(type) {
		case *parse.TextNode:
			if trimmed := strings.TrimLeft(string(n.Text), " \t\r\n"); trimmed != "" {
				return []error{f.at(int(n.Pos)+len(n.Text)-len(trimmed), "this stands outside of a block and would never be sent", `put it between {{define "body"}} and {{end}}`)}
			}
		case *parse.CommentNode:
		default:
			return []error{f.at(int(n.Position()), "this stands outside of a block and would never run", `put it between {{define "body"}} and {{end}}`)}
		}
	}
	return nil
}

// checkTexts finds what other template languages take for theirs: here it would be sent as it stands.
func (f *file) checkTexts() (errs []error) {
	for _, name := range slices.Sorted(maps.Keys(f.blocks)) {
		for n := range nodes(f.blocks[name].Root) {
			text, ok := n.(*parse.TextNode)
			if !ok {
				continue
			}
			if i := bytes.Index(text.Text, []byte("{%")); i >= 0 {
				errs = append(errs, f.at(int(text.Pos)+i, "{% means nothing here and would be sent as it stands", `write {{if …}}, {{range …}}, {{end}}; for the two signs themselves {{"{%"}}`))
			}
		}
	}
	return errs
}

// share gathers the blocks of the shared files, and the folder's language among them.
func (l *folder) share() {
	for _, name := range slices.Sorted(maps.Keys(l.files)) {
		f := l.files[name]
		if !f.shared() {
			continue
		}
		for _, b := range slices.Sorted(maps.Keys(f.blocks)) {
			if first, taken := l.blocks[b]; taken {
				l.report(f.at(int(f.blocks[b].Root.Pos), fmt.Sprintf("block %q is defined in %s too", b, first.file.name), "rename one of them"))
				continue
			}
			l.blocks[b] = &block{f, f.blocks[b]}
		}
	}
	if b := l.blocks[blockLocale]; b != nil {
		l.locale = l.readLocale(b)
	}
}

var localeTag = regexp.MustCompile(`^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$`)

func (l *folder) readLocale(b *block) string {
	text := strings.TrimSpace(b.tree.Root.String())
	if !localeTag.MatchString(text) {
		l.report(b.file.at(int(b.tree.Root.Pos), `block "locale" names the language of files whose names tell none`, `write {{define "locale"}}ko{{end}}`))
	}
	return normalTag(text)
}

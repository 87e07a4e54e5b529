package templates

import (
	"slices"
	"strconv"
	"strings"
	"unicode"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"
)

// PlainText says in plain text what a page of HTML says: paragraphs keep apart, the cells of a row stand in one line, and a link
// is followed by its address. Spaces stand only where the page has them, since Korean particles follow a name without one.
func PlainText(page string) (string, error) {
	doc, err := html.Parse(strings.NewReader(page))
	if err != nil {
		return "", err
	}
	var w textWriter
	w.node(doc)
	return strings.TrimSpace(w.b.String()) + "\n", nil
}

// textWriter writes text and remembers what has to come before the next character.
type textWriter struct {
	b     strings.Builder
	lines int  // line ends that are due
	space bool // a space is due
	mid   bool // the line has text
	pre   bool
}

func (w *textWriter) node(n *html.Node) {
	switch n.Type {
	case html.TextNode:
		w.text(n.Data)
	case html.ElementNode:
		w.element(n)
	default:
		w.children(n)
	}
}

func (w *textWriter) children(n *html.Node) {
	for c := range n.ChildNodes() {
		w.node(c)
	}
}

func (w *textWriter) element(n *html.Node) {
	switch n.DataAtom {
	case atom.Head, atom.Style, atom.Script, atom.Title, atom.Template:
		return
	case atom.Br:
		w.newline()
		return
	case atom.Img:
		w.text(attribute(n, "alt"))
		return
	case atom.A:
		w.link(n)
		return
	case atom.Li:
		w.item(n)
		return
	case atom.Td, atom.Th:
		w.cell(n)
		return
	case atom.Pre:
		defer func(was bool) { w.pre = was }(w.pre)
		w.pre = true
	}
	if hidden(n) {
		return
	}
	gap := margin(n.DataAtom)
	w.due(gap)
	w.children(n)
	w.due(gap)
}

// margin is how many line ends an element keeps to what stands around it: 2 leave an empty line.
func margin(a atom.Atom) int {
	switch a {
	case atom.P, atom.Table, atom.Ul, atom.Ol, atom.Blockquote, atom.Pre, atom.Hr,
		atom.H1, atom.H2, atom.H3, atom.H4, atom.H5, atom.H6:
		return 2
	case atom.Div, atom.Tr, atom.Li, atom.Section, atom.Article, atom.Header, atom.Footer, atom.Dt, atom.Dd, atom.Center:
		return 1
	default:
		return 0
	}
}

func hidden(n *html.Node) bool {
	style := strings.ReplaceAll(strings.ToLower(attribute(n, "style")), " ", "")
	return strings.Contains(style, "display:none")
}

// link writes the address behind the words, unless they are the address.
func (w *textWriter) link(n *html.Node) {
	start := w.b.Len()
	w.children(n)
	words := strings.TrimSpace(w.b.String()[start:])
	href := attribute(n, "href")
	bare := strings.TrimPrefix(strings.TrimPrefix(href, "mailto:"), "tel:")
	if href == "" || strings.HasPrefix(href, "#") || words == href || words == bare {
		return
	}
	if words != "" {
		w.space = true
		href = "<" + href + ">"
	}
	w.text(href)
}

func (w *textWriter) item(n *html.Node) {
	w.due(1)
	mark := "-"
	if p := n.Parent; p != nil && p.DataAtom == atom.Ol {
		mark = strconv.Itoa(place(n)) + "."
	}
	w.text(mark + " ")
	w.children(n)
	w.due(1)
}

// place counts an item among its list's, from 1.
func place(n *html.Node) int {
	i := 1
	for s := n.PrevSibling; s != nil; s = s.PrevSibling {
		if s.DataAtom == atom.Li {
			i++
		}
	}
	return i
}

// cell keeps a cell's text apart from the one before it: a heading at the line's beginning with a colon, others with a bar.
func (w *textWriter) cell(n *html.Node) {
	if w.mid && w.lines == 0 {
		w.space = true
		if before := previousCell(n); before != nil && before.DataAtom == atom.Th && n.DataAtom == atom.Td {
			w.space = false
			w.text(": ")
		} else {
			w.text("| ")
		}
	}
	w.children(n)
}

func previousCell(n *html.Node) *html.Node {
	for s := n.PrevSibling; s != nil; s = s.PrevSibling {
		if s.Type == html.ElementNode {
			return s
		}
	}
	return nil
}

// due asks for line ends before what comes next.
func (w *textWriter) due(lines int) {
	if lines == 0 || w.b.Len() == 0 {
		return
	}
	w.lines, w.space, w.mid = max(w.lines, lines), false, false
}

// newline ends the line now; two of them leave an empty line.
func (w *textWriter) newline() { w.due(min(w.lines+1, 2)) }

func (w *textWriter) text(s string) {
	for _, r := range s {
		switch {
		case w.pre && r == '\n':
			w.newline()
		case unicode.IsSpace(r):
			w.space = true
		default:
			w.flush()
			w.b.WriteRune(r)
			w.mid = true
		}
	}
}

func (w *textWriter) flush() {
	if w.lines > 0 {
		w.b.WriteString(strings.Repeat("\n", w.lines))
	} else if w.space && w.mid {
		w.b.WriteByte(' ')
	}
	w.lines, w.space = 0, false
}

func attribute(n *html.Node, name string) string {
	if i := slices.IndexFunc(n.Attr, func(a html.Attribute) bool { return a.Key == name }); i >= 0 {
		return n.Attr[i].Val
	}
	return ""
}

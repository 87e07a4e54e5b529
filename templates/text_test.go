package templates

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPlainText(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ html, want string }{
		"paragraphs":                {"<p>one</p><p>two<br>three</p>four", "one\n\ntwo\nthree\n\nfour\n"},
		"spaces are the page's own": {"<p><b>박서준</b>님이 \n <b>9억</b>으로</p>", "박서준님이 9억으로\n"},
		"spaces at the edges":       {"<p> a <b> b </b> c </p>", "a b c\n"},
		"headings":                  {"<h1>Title</h1><p>text</p>", "Title\n\ntext\n"},
		"lists":                     {"<ul><li>a</li><li><b>b</b> c</li></ul><ol><li>x</li><li>y</li></ol>", "- a\n- b c\n\n1. x\n2. y\n"},
		"rows":                      {"<table><tr><th>장소</th><td>마포</td></tr><tr><th> 일시</th><td>3월</td></tr></table>", "장소: 마포\n일시: 3월\n"},
		"columns":                   {"<table><tr><th>a</th><th>b</th></tr><tr><td>1</td><td>2</td></tr></table>", "a | b\n1 | 2\n"},
		"tables for layout":         {"<table><tr><td><p>a</p></td><td><table><tr><td>b</td></tr></table></td></tr></table>", "a\n\nb\n"},
		"an empty cell":             {"<table><tr><td></td><td>b</td></tr></table>", "b\n"},
		"links":                     {`<p>see <a href="https://x.example/a?b=1&amp;c">the page</a>.</p>`, "see the page <https://x.example/a?b=1&c>.\n"},
		"a link that is its text":   {`<a href="https://x.example">https://x.example</a> <a href="mailto:a@x.example">a@x.example</a> <a href="tel:02">02</a>`, "https://x.example a@x.example 02\n"},
		"links within the page":     {`<a href="#x">up</a> <a name="y">here</a>`, "up here\n"},
		"a picture in a link":       {`<a href="https://x.example"><img src="a.png" alt="Logo"></a>`, "Logo <https://x.example>\n"},
		"a picture without words":   {`<a href="https://x.example"><img src="a.png"></a>`, "https://x.example\n"},
		"what is not shown":         {`<head><title>t</title><style>p{}</style></head><script>x</script><div style="Display: none">pre</div><p>a</p>`, "a\n"},
		"preformatted":              {"<pre>a\n  b\n\nc</pre>d", "a\nb\n\nc\n\nd\n"},
		"entities":                  {"<p>&lt;a&gt; &amp;&nbsp;b</p>", "<a> & b\n"},
		"many breaks":               {"a<br><br><br><br>b", "a\n\nb\n"},
		"divs":                      {"<div>a<div>b</div></div><div>c</div>", "a\nb\nc\n"},
		"nothing":                   {"", "\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := PlainText(c.html)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("text (-want +got):\n%s", diff)
			}
		})
	}
}

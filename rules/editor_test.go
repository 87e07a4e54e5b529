package rules

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"gopkg.in/yaml.v3"

	"postman/cdc"
)

// editor compiles the schema of a catalog, which checks it against draft-07 itself.
func editor(t *testing.T, c *cdc.Catalog) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(EditorSchema(c, []string{"x", "visit"})))
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource("rules.json", doc); err != nil {
		t.Fatal(err)
	}
	schema, err := compiler.Compile("rules.json")
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

// asJSON is a YAML node as editors see it.
func asJSON(n *yaml.Node) any {
	switch n.Kind {
	case yaml.DocumentNode:
		return asJSON(n.Content[0])
	case yaml.MappingNode:
		m := make(map[string]any)
		for i := 0; i+1 < len(n.Content); i += 2 {
			m[n.Content[i].Value] = asJSON(n.Content[i+1])
		}
		return m
	case yaml.SequenceNode:
		list := []any{}
		for _, item := range n.Content {
			list = append(list, asJSON(item))
		}
		return list
	}
	var v any
	if slices.Contains([]string{"!!int", "!!float", "!!bool", "!!null"}, n.ShortTag()) && n.Decode(&v) == nil {
		return v
	}
	return n.Value
}

// TestEditorSchema holds the schema against every golden file: it finds what is a matter of form and of names, and takes no
// offence at the rest.
func TestEditorSchema(t *testing.T) {
	t.Parallel()
	schema, lints := editor(t, catalog()), editor(t, lintCatalog())
	// Mistakes of form and of names, and what a schema may catch besides.
	form := []string{"PM005", "PM006", "PM007", "PM008", "PM009", "PM013", "PM014", "PM015", "PM017", "PM401", "PM405"}
	besides := []string{"PM003", "PM004", "PM010", "PM012", "PM019", "PM103", "PM301", "PM402"}
	beyond := []string{
		"key-expires-zero",    // 0s is a duration
		"key-expires-forever", // and so is 6000w
		"key-to-row",          // an expression by its form
		"sql-names",           // in a query
	}
	caught := 0
	for _, path := range slices.Concat(glob(t, "testdata/mistakes/*.yaml"), glob(t, "testdata/lints/*.yaml")) {
		name := strings.TrimSuffix(filepath.Base(path), ".yaml")
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var doc yaml.Node
		if yaml.Unmarshal(text, &doc) != nil || doc.Kind == 0 {
			continue // no YAML, which every editor says
		}
		golden, err := os.ReadFile(strings.TrimSuffix(path, ".yaml") + ".golden")
		if err != nil {
			t.Fatal(err)
		}
		has := func(id string) bool { return bytes.Contains(golden, []byte("["+id+"]")) }
		of := schema
		if strings.Contains(path, "lints") {
			of = lints
		}
		err = of.Validate(asJSON(&doc))
		switch want := slices.ContainsFunc(form, has); {
		case want && err == nil && !slices.Contains(beyond, name):
			t.Errorf("%s: the schema finds nothing in what is\n%s", name, golden)
		case err != nil && slices.Contains(beyond, name):
			t.Errorf("%s is caught after all", name)
		case want && err != nil:
			caught++
		case err != nil && !slices.ContainsFunc(besides, has):
			t.Errorf("%s: %v", name, err)
		}
	}
	if caught < 25 {
		t.Errorf("only %d mistakes are caught", caught)
	}
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: %d files, %v", pattern, len(files), err)
	}
	return files
}

// TestEditorKeys holds that the schema has a meaning for every key of a rule, and for no other.
func TestEditorKeys(t *testing.T) {
	t.Parallel()
	forms := keyForms(catalog(), nil)
	for _, k := range ruleKeys {
		if text, _ := forms[k.name]["description"].(string); text == "" {
			t.Errorf("%s has no description", k.name)
		}
		delete(forms, k.name)
	}
	if len(forms) > 0 {
		t.Errorf("no rule has %v", slices.Collect(maps.Keys(forms)))
	}
}

// TestEditorTestKeys holds that the schema knows what a step of a test can say.
func TestEditorTestKeys(t *testing.T) {
	t.Parallel()
	if diff := cmp.Diff(slices.Sorted(slices.Values(stepKeys)), slices.Sorted(maps.Keys(stepForms()))); diff != "" {
		t.Error(diff)
	}
}

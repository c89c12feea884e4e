package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"html"
	"html/template"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const (
	referencePath     = "../../docs/api/index.html"
	referenceTemplate = "testdata/reference.html.tmpl"
)

// The reference is made of openapi.json, which other tests hold against the code.
func TestReferenceIsGeneratedFromTheDescription(t *testing.T) {
	var want bytes.Buffer
	page := template.Must(template.New(filepath.Base(referenceTemplate)).Funcs(template.FuncMap{
		"prose": prose, "kind": kindOf, "pretty": pretty, "required": isRequired,
	}).ParseFiles(referenceTemplate))
	if err := page.Execute(&want, newReference(t)); err != nil {
		t.Fatal(err)
	}
	wantGenerated(t, referencePath, want.String())
}

// wantGenerated holds a committed file against what it is generated as.
func wantGenerated(t *testing.T, path, want string) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s is not up to date; run: go test ./loader/api -run Generated -update", path)
	}
}

func TestReferenceNeedsNothingFromElsewhere(t *testing.T) {
	text, err := os.ReadFile(referencePath)
	if err != nil {
		t.Fatal(err)
	}
	if found := regexp.MustCompile(`(?i)(src|href)="?(https?:)?//|<script|@import|url\(`).Find(text); found != nil {
		t.Errorf("the page loads %q", found)
	}
	anchors := map[string]bool{}
	for _, id := range regexp.MustCompile(` id="([^"]+)"`).FindAllSubmatch(text, -1) {
		if anchors[string(id[1])] {
			t.Errorf("two elements have the id %s", id[1])
		}
		anchors[string(id[1])] = true
	}
	for _, link := range regexp.MustCompile(`href="#([^"]+)"`).FindAllSubmatch(text, -1) {
		if !anchors[string(link[1])] {
			t.Errorf("a link leads to #%s, which is nowhere", link[1])
		}
	}
}

// ordered is a JSON value whose objects keep the order of the file.
type ordered struct {
	keys   []string
	fields map[string]*ordered
	items  []*ordered
	raw    json.RawMessage
}

// UnmarshalJSON implements json.Unmarshaler.
func (o *ordered) UnmarshalJSON(text []byte) error {
	o.raw = slices.Clone(text)
	switch text[0] {
	case '[':
		return json.Unmarshal(text, &o.items)
	case '{':
		if err := json.Unmarshal(text, &o.fields); err != nil {
			return err
		}
		return o.readKeys(json.NewDecoder(bytes.NewReader(text)))
	}
	return nil
}

func (o *ordered) readKeys(decoder *json.Decoder) error {
	if _, err := decoder.Token(); err != nil {
		return err
	}
	for decoder.More() {
		key, err := decoder.Token()
		if err != nil {
			return err
		}
		o.keys = append(o.keys, key.(string))
		var skipped json.RawMessage
		if err := decoder.Decode(&skipped); err != nil {
			return err
		}
	}
	return nil
}

// At follows keys; what is not there is empty.
func (o *ordered) At(keys ...string) *ordered {
	for _, key := range keys {
		if o = o.fields[key]; o == nil {
			return &ordered{}
		}
	}
	return o
}

// Text is a string, or the value as it is written.
func (o *ordered) Text() string {
	var text string
	if json.Unmarshal(o.raw, &text) == nil {
		return text
	}
	return string(o.raw)
}

// Fields are an object's, in order.
func (o *ordered) Fields() []field {
	var fields []field
	for _, key := range o.keys {
		fields = append(fields, field{Key: key, Value: o.fields[key]})
	}
	return fields
}

// Items are an array's.
func (o *ordered) Items() []*ordered { return o.items }

type field struct {
	Key   string
	Value *ordered
}

// reference is what the page shows.
type reference struct {
	Document *ordered
	Groups   []group
	Common   []answered // that every operation may give
}

type group struct {
	Tag        *ordered
	Operations []operation
}

type operation struct {
	Method, Path, Curl string
	About              *ordered
	Parameters         []*ordered
	Body               *ordered   // nil: none
	Answers            []answered // but the common ones
}

type answered struct {
	Status string
	About  *ordered
}

func newReference(t *testing.T) reference {
	t.Helper()
	r := reference{Document: &ordered{}}
	if err := json.Unmarshal(openAPI, r.Document); err != nil {
		t.Fatal(err)
	}
	answers := r.answersOfAll()
	for _, tag := range r.Document.At("tags").Items() {
		g := group{Tag: tag}
		for _, path := range r.Document.At("paths").Fields() {
			for _, method := range path.Value.Fields() {
				if method.Value.At("tags").Items()[0].Text() == tag.At("name").Text() {
					g.Operations = append(g.Operations, r.operation(method, path.Key, answers))
				}
			}
		}
		r.Groups = append(r.Groups, g)
	}
	return r
}

// answersOfAll finds what all operations answer alike.
func (r *reference) answersOfAll() map[string]bool {
	uses, operations := map[string]int{}, 0
	for _, path := range r.Document.At("paths").Fields() {
		for _, method := range path.Value.Fields() {
			operations++
			for _, answer := range method.Value.At("responses").Fields() {
				uses[answer.Value.At("$ref").Text()]++
			}
		}
	}
	everywhere := map[string]bool{}
	for _, shared := range r.Document.At("components", "responses").Fields() {
		place := "#/components/responses/" + shared.Key
		if uses[place] == operations {
			everywhere[place] = true
		}
		if uses[place] == operations || uses[place] == 0 { // 405 belongs to no operation
			r.Common = append(r.Common, answered{r.statusOf(shared.Value), shared.Value})
		}
	}
	slices.SortFunc(r.Common, func(a, b answered) int { return strings.Compare(a.Status, b.Status) })
	return everywhere
}

func (r *reference) statusOf(response *ordered) string {
	return response.At("content", "application/problem+json", "example", "status").Text()
}

func (r *reference) operation(method field, path string, common map[string]bool) operation {
	o := operation{Method: strings.ToUpper(method.Key), Path: path, About: method.Value}
	verb := ""
	if o.Method != "GET" {
		verb = "-X " + o.Method + " "
	}
	filled := path
	for _, parameter := range method.Value.At("parameters").Items() {
		found := r.Document.At("components", "parameters", lastSegment(parameter.At("$ref").Text()))
		o.Parameters = append(o.Parameters, found)
		filled = strings.ReplaceAll(filled, "{"+found.At("name").Text()+"}", found.At("example").Text())
	}
	o.Curl = "curl " + verb + "--unix-socket $XDG_RUNTIME_DIR/stoker/api.sock http://localhost" + filled
	if body := method.Value.At("requestBody"); len(body.keys) > 0 {
		o.Body = body.At("content", "application/json")
		o.Curl += " -d '" + string(o.Body.At("example").raw) + "'"
	}
	for _, answer := range method.Value.At("responses").Fields() {
		place := answer.Value.At("$ref").Text()
		if common[place] {
			continue
		}
		about := answer.Value
		if place != "" {
			about = r.Document.At("components", "responses", lastSegment(place))
		}
		o.Answers = append(o.Answers, answered{answer.Key, about})
	}
	return o
}

func lastSegment(place string) string { return place[strings.LastIndexByte(place, '/')+1:] }

// kindOf says a schema's type in a few words.
func kindOf(schema *ordered) template.HTML {
	if place := schema.At("$ref").Text(); place != "" {
		name := html.EscapeString(lastSegment(place))
		return template.HTML(fmt.Sprintf(`<a href="#%s">%s</a>`, name, name)) //nolint:gosec // escaped
	}
	kind, format := schema.At("type").Text(), schema.At("format").Text()
	switch {
	case kind == "array":
		return "list of " + kindOf(schema.At("items"))
	case len(schema.At("additionalProperties").keys) > 0:
		return "object: name → " + kindOf(schema.At("additionalProperties"))
	case format != "":
		return template.HTML(html.EscapeString(kind + ", " + format)) //nolint:gosec // escaped
	}
	return template.HTML(html.EscapeString(kind)) //nolint:gosec // escaped
}

func isRequired(required *ordered, key string) bool {
	return slices.ContainsFunc(required.Items(), func(name *ordered) bool { return name.Text() == key })
}

func pretty(value *ordered) (string, error) {
	var out bytes.Buffer
	if value.raw[0] == '"' {
		return value.Text(), nil
	}
	err := json.Indent(&out, value.raw, "", "  ")
	return out.String(), err
}

var quoted = regexp.MustCompile("`([^`]+)`")

// prose makes HTML of paragraphs, lists and `code`.
func prose(text *ordered) template.HTML {
	var out strings.Builder
	for block := range strings.SplitSeq(text.Text(), "\n\n") {
		block = quoted.ReplaceAllString(html.EscapeString(block), "<code>$1</code>")
		switch {
		case block == "":
		case strings.HasPrefix(block, "- "):
			items := strings.ReplaceAll(strings.TrimPrefix(block, "- "), "\n- ", "</li>\n<li>")
			out.WriteString("<ul>\n<li>" + items + "</li>\n</ul>\n")
		default:
			out.WriteString("<p>" + block + "</p>\n")
		}
	}
	return template.HTML(out.String()) //nolint:gosec // escaped
}

package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/stokerio/stoker/loader/config"
)

// loadDocument parses openapi.json once, and closes its objects: what a real answer
// holds besides the described fields is then an error, though clients must expect
// it of a later release.
var loadDocument = sync.OnceValues(func() (*openapi3.T, error) {
	loaded, err := openapi3.NewLoader().LoadFromData(openAPI)
	if err != nil {
		return nil, err
	}
	closed := false
	for _, schema := range loaded.Components.Schemas {
		if schema.Value.Type.Is("object") {
			schema.Value.AdditionalProperties.Has = &closed
		}
	}
	return loaded, nil
})

func document(t testing.TB) *openapi3.T {
	t.Helper()
	loaded, err := loadDocument()
	if err != nil {
		t.Fatalf("openapi.json: %v", err)
	}
	return loaded
}

// operations maps "GET /v1/version" to its description.
func operations(t testing.TB) map[string]*openapi3.Operation {
	found := map[string]*openapi3.Operation{}
	for path, item := range document(t).Paths.Map() {
		for method, operation := range item.Operations() {
			found[method+" "+path] = operation
		}
	}
	return found
}

func TestTheDescriptionIsValidOpenAPI(t *testing.T) {
	loaded, err := openapi3.NewLoader().LoadFromData(openAPI)
	if err != nil {
		t.Fatal(err)
	}
	if err := loaded.Validate(t.Context(), openapi3.EnableExamplesValidation()); err != nil {
		t.Error(err)
	}
	if !strings.HasPrefix(loaded.OpenAPI, "3.1.") {
		t.Errorf("openapi %s", loaded.OpenAPI)
	}
	for name, schema := range loaded.Components.Schemas {
		for _, example := range schema.Value.Examples {
			if err := loaded.ValidateSchemaJSON(schema.Value, example, openapi3.EnableJSONSchema2020()); err != nil {
				t.Errorf("example of %s: %v", name, err)
			}
		}
	}
}

func TestTheDescriptionIsServedAsItIs(t *testing.T) {
	s := serveInMemory(t, access{})
	status, header, body := s.do(t, "GET", "/v1/openapi.json")
	if status != 200 || header.Get("Content-Type") != "application/json" || body != string(openAPI) {
		t.Errorf("%d %s, %d bytes of %d", status, header.Get("Content-Type"), len(body), len(openAPI))
	}
}

func TestLimitsAreDescribedAsTheyAre(t *testing.T) {
	text := document(t).Info.Description
	for _, want := range []string{
		fmt.Sprintf("(%d unless configured)", RequestsPerSecond),
		fmt.Sprintf("%d requests are worked on at a time, and %d of the three", requestsMax, watchesMax),
		fmt.Sprintf("; %d connections", connsMax),
		fmt.Sprintf("%d KiB for request line and headers, %d KiB of it for path and query; %d KiB for a body, %d MiB for that of a hint",
			headerBytesMax>>10, uriBytesMax>>10, bodyBytesMax>>10, hintBytesMax>>20),
		fmt.Sprintf("%.0f seconds to arrive, an answer %.0f to be taken", readTimeout.Seconds(), writeTimeout.Seconds()),
		fmt.Sprintf("closed after %.0f minutes", idleTimeout.Minutes()),
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the description does not say %q", want)
		}
	}
	if configured := config.Default().API.RequestsPerSecond; configured != RequestsPerSecond {
		t.Errorf("%d requests a second are configured unless told otherwise, and %d are the package's own default", configured, RequestsPerSecond)
	}
	var watched []string
	for _, r := range routes() {
		if r.watch {
			watched = append(watched, "`"+r.pattern+"`")
		}
	}
	slices.Sort(watched)
	if got := fmt.Sprint(watched); got != "[`/healthz` `/metrics` `/readyz`]" {
		t.Errorf("the description does not say that %s have bounds of their own", got)
	}
	stalls := document(t).Components.Schemas["SessionStalls"].Value.Properties["worst"].Value
	if stalls.MaxItems == nil || *stalls.MaxItems != WorstKept {
		t.Errorf("worst is described with at most %v, and has %d", stalls.MaxItems, WorstKept)
	}
}

func TestRoutesAndDescriptionAgree(t *testing.T) {
	described := operations(t)
	ids := map[string]bool{}
	for _, r := range routes() {
		name := r.method + " " + r.pattern
		operation := described[name]
		if operation == nil {
			t.Errorf("%s is served and not described", name)
			continue
		}
		delete(described, name)
		if operation.OperationID == "" || ids[operation.OperationID] || operation.Summary == "" || len(operation.Tags) != 1 {
			t.Errorf("%s: id %q, summary %q, tags %q", name, operation.OperationID, operation.Summary, operation.Tags)
		}
		ids[operation.OperationID] = true
		var parameters, query []string
		for _, p := range operation.Parameters {
			if p.Value.In == "query" && !p.Value.Required && p.Value.Description != "" {
				query = append(query, p.Value.Name)
				continue
			}
			parameters = append(parameters, "{"+p.Value.Name+"}")
			if p.Value.In != "path" || !p.Value.Required || p.Value.Description == "" || p.Value.Example == nil {
				t.Errorf("%s: parameter %+v", name, p.Value)
			}
		}
		segments := slices.DeleteFunc(strings.Split(r.pattern, "/"), func(s string) bool { return !strings.HasPrefix(s, "{") })
		if !slices.Equal(parameters, segments) {
			t.Errorf("%s: described parameters %q", name, parameters)
		}
		if !slices.Equal(query, r.query) {
			t.Errorf("%s: described query parameters %q, taken are %q", name, query, r.query)
		}
		if (operation.RequestBody != nil) != r.body {
			t.Errorf("%s: a body is described: %v, taken: %v", name, operation.RequestBody != nil, r.body)
		}
	}
	for name := range described {
		t.Errorf("%s is described and not served", name)
	}
}

// answerTypes are the Go types of answers, by operation; nil: not made of one.
func answerTypes() map[string]any {
	return map[string]any{
		"getHealth": status{}, "getReadiness": status{}, "getVersion": Version{}, "getMetrics": nil, "getDescription": nil,
		"listDatasets": datasetList{}, "getDataset": Dataset{}, "removeDataset": nil,
		"listSessions": sessionList{}, "getSession": Session{}, "listStalls": stallList{}, "recordTrace": nil,
		"listHints": hintList{}, "addHint": Hint{}, "getHint": Hint{}, "renewHint": Hint{}, "endHint": nil,
		"getCache": Cache{}, "listChunks": CachePage{}, "evictCache": CacheEvicted{}, "limitCache": Cache{},
	}
}

// bodyTypes are the Go types of requests' bodies, by operation.
func bodyTypes() map[string]any {
	return map[string]any{"addHint": HintRequest{}, "renewHint": HintRenewal{}, "evictCache": CacheEvict{}, "limitCache": CacheLimit{}}
}

func TestTypesAndSchemasAgree(t *testing.T) {
	seen := map[string]bool{"Code": true} // TestCodesAndDescriptionAgree looks at it
	for name, operation := range operations(t) {
		example, ok := answerTypes()[operation.OperationID]
		if !ok {
			t.Errorf("%s: give answerTypes the type of its answer", name)
		}
		if body := operation.RequestBody; body != nil {
			wantSchema(t, name+" body", body.Value.Content["application/json"].Schema, reflect.TypeOf(bodyTypes()[operation.OperationID]), seen)
		}
		for status, response := range operation.Responses.Map() {
			for kind, media := range response.Value.Content {
				switch {
				case kind == "application/problem+json":
					wantSchema(t, name+" "+status, media.Schema, reflect.TypeFor[Error](), seen)
				case example != nil:
					wantSchema(t, name+" "+status, media.Schema, reflect.TypeOf(example), seen)
				}
			}
		}
	}
	for name := range document(t).Components.Schemas {
		if !seen[name] {
			t.Errorf("schema %s describes nothing that is answered", name)
		}
	}
}

// wantSchema holds a schema against a Go type and what encoding/json makes of it.
func wantSchema(t *testing.T, where string, schema *openapi3.SchemaRef, of reflect.Type, seen map[string]bool) {
	t.Helper()
	if of.Kind() == reflect.Pointer {
		of = of.Elem()
	}
	value := schema.Value
	is := func(kind, format string) {
		t.Helper()
		if !value.Type.Is(kind) || value.Format != format {
			t.Errorf("%s: described as %v %q, and is %s %q of Go's %s", where, value.Type, value.Format, kind, format, of)
		}
	}
	switch {
	case of == reflect.TypeFor[time.Time]():
		is("string", "date-time")
	case of == reflect.TypeFor[Code]():
		if schema.Ref != "#/components/schemas/Code" {
			t.Errorf("%s: %s is no Code", where, schema.Ref)
		}
	case of.Kind() == reflect.Struct:
		wantObject(t, where, schema, of, seen)
	case of.Kind() == reflect.Slice:
		is("array", "")
		wantSchema(t, where+"[]", value.Items, of.Elem(), seen)
	case of.Kind() == reflect.Map:
		is("object", "")
		wantSchema(t, where+"{}", value.AdditionalProperties.Schema, of.Elem(), seen)
	case of.Kind() == reflect.Bool:
		is("boolean", "")
	case of.Kind() == reflect.Float64:
		is("number", "double")
	case of.Kind() == reflect.Uint64 || of.Kind() == reflect.Uint32:
		is("integer", of.Kind().String())
		if limit := float64(^uint64(0) >> (64 - of.Bits())); value.Min == nil || *value.Min != 0 || value.Max == nil || *value.Max != limit {
			t.Errorf("%s: from %v to %v, and is from 0 to %v", where, value.Min, value.Max, limit)
		}
	case of.Kind() == reflect.Int || of.Kind() == reflect.Int64:
		is("integer", "int64")
	default:
		is("string", "")
	}
}

func wantObject(t *testing.T, where string, schema *openapi3.SchemaRef, of reflect.Type, seen map[string]bool) {
	t.Helper()
	name := strings.ToUpper(of.Name()[:1]) + of.Name()[1:]
	if of == reflect.TypeFor[Error]() {
		name = "Problem"
	}
	if schema.Ref != "#/components/schemas/"+name {
		t.Errorf("%s: described by %q, and is a %s", where, schema.Ref, name)
		return
	}
	if seen[name] {
		return
	}
	seen[name] = true
	var fields, required []string
	for i := range of.NumField() {
		field, options, _ := strings.Cut(of.Field(i).Tag.Get("json"), ",")
		if field == "-" {
			continue
		}
		fields = append(fields, field)
		if options != "omitempty" {
			required = append(required, field)
		}
		property := schema.Value.Properties[field]
		if property == nil {
			t.Errorf("%s.%s is answered and not described", name, field)
			continue
		}
		if property.Value.Description == "" {
			t.Errorf("%s.%s has no description", name, field)
		}
		wantSchema(t, name+"."+field, property, of.Field(i).Type, seen)
	}
	for field := range schema.Value.Properties {
		if !slices.Contains(fields, field) {
			t.Errorf("%s.%s is described and never answered", name, field)
		}
	}
	if !slices.Equal(required, schema.Value.Required) {
		t.Errorf("%s: required are %q, and always there %q", name, schema.Value.Required, required)
	}
}

func TestCodesAndDescriptionAgree(t *testing.T) {
	described := document(t).Components.Schemas["Code"].Value.OneOf
	if len(described) != len(Codes()) {
		t.Errorf("%d codes are described, and there are %d", len(described), len(Codes()))
	}
	for i, code := range Codes() {
		alternative := described[i].Value
		if alternative.Const != string(code) || fmt.Sprint(alternative.Extensions["x-status"]) != strconv.Itoa(code.status()) || alternative.Description == "" {
			t.Errorf("code %v with status %v is described; there is %s with %d", alternative.Const, alternative.Extensions["x-status"], code, code.status())
		}
	}
	for name, response := range document(t).Components.Responses {
		if codes := codesOf(response.Value); len(codes) == 0 {
			t.Errorf("response %s names no codes", name)
		}
	}
}

// codesOf are the codes that a described response may bear.
func codesOf(response *openapi3.Response) []Code {
	var codes []Code
	if list, ok := response.Extensions["x-codes"].([]any); ok {
		for _, code := range list {
			codes = append(codes, Code(fmt.Sprint(code)))
		}
	}
	return codes
}

// wantDescribed checks that an answer is one that the description knows. It returns
// the name of its operation, "" if the path or method has none.
func wantDescribed(t testing.TB, method, path string, status int, header http.Header, body []byte) string {
	t.Helper()
	path, _, _ = strings.Cut(path, "?")
	for _, r := range routes() {
		if _, ok := match(r.pattern, path); !ok || (r.method != method && (r.method != http.MethodGet || method != http.MethodHead)) {
			continue
		}
		name := r.method + " " + r.pattern
		response := operations(t)[name].Responses.Status(status)
		if response == nil {
			t.Errorf("%s is answered %d, which is not described: %s", name, status, body)
			return name
		}
		wantResponse(t, name, response.Value, method, header, body)
		return name
	}
	if status == http.StatusMethodNotAllowed {
		wantResponse(t, method+" "+path, document(t).Components.Responses["MethodNotAllowed"].Value, method, header, body)
	}
	return ""
}

func wantResponse(t testing.TB, where string, response *openapi3.Response, method string, header http.Header, body []byte) {
	t.Helper()
	for name := range response.Headers {
		if header.Get(name) == "" {
			t.Errorf("%s: no header %s", where, name)
		}
	}
	if method == http.MethodHead {
		return
	}
	kind, _, _ := mime.ParseMediaType(header.Get("Content-Type"))
	media := response.Content[kind]
	if media == nil {
		if len(response.Content) > 0 || len(body) > 0 {
			t.Errorf("%s is answered with %q, and that is not described: %.200s", where, header.Get("Content-Type"), body)
		}
		return
	}
	if !strings.HasSuffix(kind, "json") {
		return
	}
	var value any
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber()
	if err := decoder.Decode(&value); err != nil {
		t.Fatalf("%s: %v in %q", where, err, body)
	}
	if err := document(t).ValidateSchemaJSON(media.Schema.Value, value, openapi3.EnableJSONSchema2020()); err != nil {
		t.Errorf("%s is answered with what is not described: %v in %s", where, err, body)
	}
	if kind == "application/problem+json" {
		var problem Error
		if err := json.Unmarshal(body, &problem); err != nil || !slices.Contains(codesOf(response), problem.Code) {
			t.Errorf("%s is answered with code %q, described are %q (%v)", where, problem.Code, codesOf(response), err)
		}
	}
}

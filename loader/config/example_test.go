package config

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"reflect"
	"strconv"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the annotated example anew")

const examplePath = "../../deploy/stokerd.yaml"

// The example is made from the field comments and Default, so neither can say
// something else than the other.
func TestExampleIsGeneratedFromTheFields(t *testing.T) {
	want := annotatedExample(t)
	if *update {
		if err := os.WriteFile(examplePath, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(examplePath)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s is not what the fields say; run: go test ./loader/config -run Example -update", examplePath)
	}
}

func TestExampleLoadsToTheDefaults(t *testing.T) {
	env := testEnvironment(map[string]string{"HOME": "/home/ada"})
	got, err := Load(examplePath, env)
	if err != nil {
		t.Fatal(err)
	}
	want, err := Load("", env)
	if err != nil {
		t.Fatal(err)
	}
	if want.Pyroscope.Tags == nil {
		want.Pyroscope.Tags = map[string]string{}
	}
	if want.Flash.Devices == nil {
		want.Flash.Devices = []FlashDevice{}
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("example loads to\n%+v, want the defaults\n%+v", got, want)
	}
	if err := got.Validate(); err != nil {
		t.Error(err)
	}
}

func TestEveryFieldIsDocumented(t *testing.T) {
	comments := fieldComments(t)
	var visit func(reflect.Type)
	visit = func(in reflect.Type) {
		for i := range in.NumField() {
			field := in.Field(i)
			if comments[in.Name()+"."+field.Name] == "" {
				t.Errorf("%s.%s has no comment", in.Name(), field.Name)
			}
			switch inner := field.Type; {
			case inner.Kind() == reflect.Struct:
				visit(inner)
			case inner.Kind() == reflect.Slice:
				visit(inner.Elem())
			}
		}
	}
	visit(reflect.TypeFor[Config]())
}

// annotatedExample writes every field with its comment and default.
func annotatedExample(t *testing.T) string {
	t.Helper()
	var out strings.Builder
	out.WriteString("# stokerd's configuration: every field with its default. All of it is optional.\n" +
		"# Generated from loader/config; use it with: stokerd --config FILE\n")
	writeFields(t, &out, reflect.ValueOf(Default()), fieldComments(t), "")
	return out.String()
}

func writeFields(t *testing.T, out *strings.Builder, of reflect.Value, comments map[string]string, indent string) {
	t.Helper()
	for i := range of.NumField() {
		field := of.Type().Field(i)
		if indent == "" || i > 0 {
			out.WriteString("\n")
		}
		for line := range strings.Lines(comments[of.Type().Name()+"."+field.Name]) {
			out.WriteString(indent + "# " + line)
		}
		name := field.Tag.Get("yaml")
		if field.Type.Kind() == reflect.Struct {
			out.WriteString(indent + name + ":\n")
			writeFields(t, out, of.Field(i), comments, indent+"  ")
			continue
		}
		out.WriteString(indent + name + ": " + literal(of.Field(i)) + "\n")
	}
}

func literal(value reflect.Value) string {
	switch value.Kind() {
	case reflect.String:
		if value.Len() > 0 {
			return value.String()
		}
		return strconv.Quote("")
	case reflect.Map:
		return "{}"
	case reflect.Slice:
		return "[]"
	}
	return fmt.Sprint(value.Interface())
}

// fieldComments maps "Type.Field" to the comment above it in this package.
func fieldComments(t *testing.T) map[string]string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "config.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	comments := map[string]string{}
	ast.Inspect(file, func(node ast.Node) bool {
		spec, ok := node.(*ast.TypeSpec)
		if !ok {
			return true
		}
		if structure, ok := spec.Type.(*ast.StructType); ok {
			for _, field := range structure.Fields.List {
				comments[spec.Name.Name+"."+field.Names[0].Name] = field.Doc.Text()
			}
		}
		return false
	})
	return comments
}

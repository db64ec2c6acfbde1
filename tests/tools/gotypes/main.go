// Command gotypes writes what an API server's Go types say about JSON and its OpenAPI document does not: which fields
// are written although empty, which are left out when zero, which integers have 32 bits; and, in a second file, the
// numbers of fields in protocol buffers. One line per type; the letters are explained in src/sandbox/typed/table.rs,
// the numbers in src/sandbox/protobuf.rs.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"reflect"
	"sort"
	"strconv"
	"strings"

	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes/scheme"
	aggregator "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
)

// Types with a JSON form of their own.
var opaque = map[reflect.Type]bool{
	reflect.TypeFor[metav1.Time]():          true,
	reflect.TypeFor[metav1.MicroTime]():     true,
	reflect.TypeFor[metav1.FieldsV1]():      true,
	reflect.TypeFor[resource.Quantity]():    true,
	reflect.TypeFor[intstr.IntOrString]():   true,
	reflect.TypeFor[runtime.RawExtension](): true,
	reflect.TypeFor[apiextensions.JSON]():   true,
}

var types = map[string]map[string]string{}

// Field numbers by type and JSON name. What JSON inlines is a message of its own there: "+" and the name of its type.
var numbers = map[string]map[string]int{}

// Types that others inline.
var inlined = map[string]bool{}

func name(t reflect.Type) string {
	path := t.PkgPath()
	for _, prefix := range []string{"k8s.io/api/", "k8s.io/apimachinery/pkg/apis/", "k8s.io/apiextensions-apiserver/pkg/apis/", "k8s.io/kube-aggregator/pkg/apis/"} {
		path = strings.TrimPrefix(path, prefix)
	}
	return strings.ReplaceAll(path, "/", ".") + "." + t.Name()
}

func visit(t reflect.Type) {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map:
		visit(t.Elem())
	case reflect.Struct:
		if opaque[t] || types[name(t)] != nil {
			return
		}
		fields := map[string]string{}
		types[name(t)] = fields
		collect(t, fields)
		number(t)
	}
}

func collect(t reflect.Type, fields map[string]string) {
	for i := range t.NumField() {
		f := t.Field(i)
		tag := strings.Split(f.Tag.Get("json"), ",")
		options := strings.Join(tag[1:], ",")
		if strings.Contains(options, "inline") || f.Anonymous && tag[0] == "" {
			collect(f.Type, fields)
			continue
		}
		if tag[0] == "-" || tag[0] == "" {
			continue
		}
		visit(f.Type)
		if code := code(f.Type, strings.Contains(options, "omitempty"), strings.Contains(options, "omitzero")); code != "" {
			fields[tag[0]] = code
		}
	}
}

func number(t reflect.Type) {
	if numbers[name(t)] != nil {
		return
	}
	fields := map[string]int{}
	numbers[name(t)] = fields
	for i := range t.NumField() {
		f := t.Field(i)
		parts := strings.Split(f.Tag.Get("protobuf"), ",")
		if len(parts) < 2 {
			continue
		}
		tagged, err := strconv.Atoi(parts[1])
		if err != nil {
			log.Fatal(err)
		}
		tag := strings.Split(f.Tag.Get("json"), ",")
		if strings.Contains(f.Tag.Get("json"), "inline") {
			inner := f.Type
			if inner.Kind() == reflect.Pointer {
				inner = inner.Elem()
			}
			fields["+"+name(inner)] = tagged
			inlined[name(inner)] = true
			number(inner)
		} else {
			fields[tag[0]] = tagged
		}
	}
}

func code(t reflect.Type, omitEmpty, omitZero bool) string {
	code := ""
	switch t.Kind() {
	case reflect.Struct:
		switch {
		case omitZero:
			code = "o"
		default:
			code = "s"
		}
		if opaque[t] && code == "s" {
			code = "q"
		}
	case reflect.Pointer, reflect.Slice, reflect.Map, reflect.Interface:
		if !omitEmpty && !omitZero {
			code = "n"
		}
		if t.Kind() == reflect.Pointer {
			if !omitEmpty {
				code = "n"
			} else {
				code = "p"
			}
			t = t.Elem()
		}
	default:
		code = "r"
		if omitEmpty || omitZero {
			code = "z"
		}
	}
	if t.Kind() == reflect.Int32 {
		code += "i"
	}
	return code
}

func main() {
	if err := apiextensions.AddToScheme(scheme.Scheme); err != nil {
		log.Fatal(err)
	}
	if err := aggregator.AddToScheme(scheme.Scheme); err != nil {
		log.Fatal(err)
	}
	// The table of src/manifest decides which types matter.
	text, err := os.ReadFile(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	var table struct {
		Types map[string]json.RawMessage `json:"types"`
	}
	if err := json.Unmarshal(text, &table); err != nil {
		log.Fatal(err)
	}
	for _, t := range scheme.Scheme.AllKnownTypes() {
		visit(t)
	}
	write(os.Args[2], types, func(name string) bool { return table.Types[name] != nil })
	write(os.Args[3], numbers, func(name string) bool {
		return (table.Types[name] != nil || inlined[name]) && len(numbers[name]) > 0
	})
}

func write[T any](path string, types map[string]T, wanted func(string) bool) {
	var names []string
	for name := range types {
		if wanted(name) {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	var out bytes.Buffer
	out.WriteString("{\n")
	for i, name := range names {
		line, err := json.Marshal(types[name])
		if err != nil {
			log.Fatal(err)
		}
		end := ","
		if i == len(names)-1 {
			end = ""
		}
		fmt.Fprintf(&out, "%q:%s%s\n", name, line, end)
	}
	out.WriteString("}\n")
	if err := os.WriteFile(path, out.Bytes(), 0o644); err != nil {
		log.Fatal(err)
	}
}

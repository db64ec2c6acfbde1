// Records what Flux's own packages make of the cases beside this folder: the trees of cases/ as kustomize-controller
// builds them, and the expressions of expressions.txt as its substitution evaluates them.
//
//	recorder FOLDER
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/fluxcd/pkg/envsubst"
	"github.com/fluxcd/pkg/kustomize"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

func main() {
	folder := os.Args[1]
	check(expressions(folder))
	files, err := filepath.Glob(filepath.Join(folder, "cases", "*.txt"))
	check(err)
	for _, file := range files {
		check(trees(file, filepath.Join(folder, "answers", filepath.Base(file))))
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// One line of expressions.json.
type answer struct {
	Text  string  `json:"text"`
	Gives *string `json:"gives,omitempty"`
	Error string  `json:"error,omitempty"`
}

// `name=value` above the line `---`, below it one text a line.
func expressions(folder string) error {
	text, err := os.ReadFile(filepath.Join(folder, "expressions.txt"))
	if err != nil {
		return err
	}
	head, body, _ := strings.Cut(string(text), "\n---\n")
	values := map[string]string{}
	for _, line := range strings.Split(head, "\n") {
		if name, value, found := strings.Cut(line, "="); found {
			values[name] = value
		}
	}
	var lines []string
	for _, line := range strings.Split(strings.TrimSuffix(body, "\n"), "\n") {
		given := evaluate(line, values)
		encoded, err := marshal(given)
		if err != nil {
			return err
		}
		lines = append(lines, encoded)
	}
	encoded, err := marshal(values)
	if err != nil {
		return err
	}
	out := fmt.Sprintf("{\"variables\": %s,\n\"answers\": [\n%s\n]}\n", encoded, strings.Join(lines, ",\n"))
	return os.WriteFile(filepath.Join(folder, "expressions.json"), []byte(out), 0o644)
}

func marshal(value any) (string, error) {
	var out strings.Builder
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(value)
	return strings.TrimSuffix(out.String(), "\n"), err
}

func evaluate(text string, values map[string]string) (given answer) {
	given.Text = text
	defer func() {
		if problem := recover(); problem != nil {
			given.Error = fmt.Sprint("panic: ", problem)
		}
	}()
	result, err := envsubst.Eval(text, func(name string) (string, bool) {
		value, found := values[name]
		return value, found
	})
	if err != nil {
		given.Error = err.Error()
	} else {
		given.Gives = &result
	}
	return given
}

// `=== name` begins a case, `--- path` a file of it; `--- spec` is the spec of the Kustomization.
func trees(file, out string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var answers strings.Builder
	for _, section := range sections(string(text), "=== ") {
		built, err := build(section.body)
		if err != nil {
			built = "error: " + strings.ReplaceAll(err.Error(), "\n", " ") + "\n"
		}
		fmt.Fprintf(&answers, "=== %s\n%s", section.title, built)
	}
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return err
	}
	return os.WriteFile(out, []byte(answers.String()), 0o644)
}

type section struct{ title, body string }

func sections(text, mark string) (found []section) {
	for _, line := range strings.SplitAfter(text, "\n") {
		if title, begins := strings.CutPrefix(line, mark); begins {
			found = append(found, section{title: strings.TrimSpace(title)})
		} else if len(found) > 0 {
			found[len(found)-1].body += line
		}
	}
	return found
}

// The steps of kustomize-controller between the artifact and the API server.
func build(body string) (out string, err error) {
	root, err := os.MkdirTemp("", "case")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(root)
	defer func() {
		if problem := recover(); problem != nil {
			err = fmt.Errorf("panic: %v", problem)
		}
		if err != nil {
			err = fmt.Errorf("%s", strings.ReplaceAll(err.Error(), root, "."))
		}
	}()
	spec := map[string]any{}
	for _, file := range sections(body, "--- ") {
		if file.title == "spec" {
			if err := yaml.Unmarshal([]byte(file.body), &spec); err != nil {
				return "", err
			}
			continue
		}
		path := filepath.Join(root, file.title)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return "", err
		}
		if err := os.WriteFile(path, []byte(file.body), 0o644); err != nil {
			return "", err
		}
	}
	object := unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "kustomize.toolkit.fluxcd.io/v1",
		"kind":       "Kustomization",
		"metadata":   map[string]any{"name": "app", "namespace": "default"},
		"spec":       spec,
	}}
	path, _ := spec["path"].(string)
	directory := filepath.Join(root, path)
	if _, err := kustomize.NewGenerator(root, object).WriteFile(directory); err != nil {
		return "", err
	}
	resources, err := kustomize.SecureBuild(root, directory, false)
	if err != nil {
		return "", err
	}
	if postBuild, found := spec["postBuild"].(map[string]any); found {
		always := postBuild["substituteStrategy"] == "Always"
		for _, resource := range resources.Resources() {
			changed, err := kustomize.SubstituteVariables(context.Background(), nil, object, resource,
				kustomize.SubstituteWithStrict(true), kustomize.SubstituteWithAlways(always))
			if err != nil {
				return "", fmt.Errorf("post build failed for '%s': %w", resource.GetName(), err)
			}
			if changed != nil {
				if _, err := resources.Replace(resource); err != nil {
					return "", err
				}
			}
		}
	}
	text, err := resources.AsYaml()
	return string(text), err
}

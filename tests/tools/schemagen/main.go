// Command schemagen asks a kube-apiserver that it starts for itself what it serves, and reduces the answer to the
// compact table src/manifest/schema.json: see README.md beside the go.mod for the format.
package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"time"
)

// The groups and versions that the table covers, in the order in which its kinds are written.
var served = []struct{ group, version string }{
	{"", "v1"},
	{"apps", "v1"},
	{"batch", "v1"},
	{"autoscaling", "v2"},
	{"policy", "v1"},
	{"networking.k8s.io", "v1"},
	{"rbac.authorization.k8s.io", "v1"},
	{"storage.k8s.io", "v1"},
	{"scheduling.k8s.io", "v1"},
	{"node.k8s.io", "v1"},
	{"coordination.k8s.io", "v1"},
	{"discovery.k8s.io", "v1"},
	{"events.k8s.io", "v1"},
	{"certificates.k8s.io", "v1"},
	{"authorization.k8s.io", "v1"},
	{"admissionregistration.k8s.io", "v1"},
	{"apiextensions.k8s.io", "v1"},
	{"apiregistration.k8s.io", "v1"},
}

// Types that no kind above refers to and that its subresources exchange.
var extraRoots = []string{
	"io.k8s.api.autoscaling.v1.Scale",
	"io.k8s.api.policy.v1.Eviction",
	"io.k8s.api.authentication.v1.TokenRequest",
}

// Scalars and free-form values that the API describes as types of their own.
var special = map[string]string{
	"io.k8s.apimachinery.pkg.api.resource.Quantity":                                         "quantity",
	"io.k8s.apimachinery.pkg.util.intstr.IntOrString":                                       "intorstring",
	"io.k8s.apimachinery.pkg.apis.meta.v1.Time":                                             "time",
	"io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime":                                        "microtime",
	"io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1":                                         "any",
	"io.k8s.apimachinery.pkg.runtime.RawExtension":                                          "any",
	"io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON":                         "any",
	"io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray":       "any",
	"io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool":        "any",
	"io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray": "any",
}

// What the table calls the packages, longest prefix first.
var packages = []struct{ long, short string }{
	{"io.k8s.apiextensions-apiserver.pkg.apis.", ""},
	{"io.k8s.kube-aggregator.pkg.apis.", ""},
	{"io.k8s.apimachinery.pkg.apis.", ""},
	{"io.k8s.api.", ""},
}

func short(name string) string {
	for _, p := range packages {
		if rest, found := strings.CutPrefix(name, p.long); found {
			return p.short + rest
		}
	}
	return name
}

// schema is the part of an OpenAPI v3 schema that Kubernetes' documents use and the table needs.
type schema struct {
	Ref                  string             `json:"$ref"`
	AllOf                []*schema          `json:"allOf"`
	OneOf                []*schema          `json:"oneOf"`
	Type                 string             `json:"type"`
	Format               string             `json:"format"`
	Properties           map[string]*schema `json:"properties"`
	AdditionalProperties *schema            `json:"additionalProperties"`
	Items                *schema            `json:"items"`
	Required             []string           `json:"required"`
	Enum                 []any              `json:"enum"`
	Default              any                `json:"default"`
	ListType             string             `json:"x-kubernetes-list-type"`
	ListMapKeys          []string           `json:"x-kubernetes-list-map-keys"`
	MapType              string             `json:"x-kubernetes-map-type"`
	PatchMergeKey        string             `json:"x-kubernetes-patch-merge-key"`
	PatchStrategy        string             `json:"x-kubernetes-patch-strategy"`
	Kinds                []gvk              `json:"x-kubernetes-group-version-kind"`
}

type gvk struct {
	Group   string `json:"group"`
	Version string `json:"version"`
	Kind    string `json:"kind"`
}

// field and typ are what is written. The order of the struct fields is the order in the file.
type field struct {
	T        string   `json:"t,omitempty"`
	Ref      string   `json:"ref,omitempty"`
	Item     *field   `json:"item,omitempty"`
	List     string   `json:"list,omitempty"`
	Keys     []string `json:"keys,omitempty"`
	Atomic   bool     `json:"atomic,omitempty"`
	Merge    string   `json:"merge,omitempty"`
	Strategy string   `json:"strategy,omitempty"`
	Enum     []any    `json:"enum,omitempty"`
	Default  any      `json:"default,omitempty"`
}

type typ struct {
	Fields   map[string]*field `json:"fields"`
	Required []string          `json:"required,omitempty"`
	Atomic   bool              `json:"atomic,omitempty"`
}

type kind struct {
	Group        string   `json:"group"`
	Version      string   `json:"version"`
	Kind         string   `json:"kind"`
	Plural       string   `json:"plural"`
	Singular     string   `json:"singular"`
	Short        []string `json:"short"`
	Namespaced   bool     `json:"namespaced"`
	Categories   []string `json:"categories"`
	Subresources []string `json:"subresources"`
	Verbs        []string `json:"verbs"`
	Type         string   `json:"type"`
}

type table struct {
	schemas map[string]*schema
	types   map[string]*typ
	// Fields, as "type\x00field", that identify an entry of some list: for them a default of "" has a meaning.
	keys map[string]bool
}

func (t *table) add(name string) {
	if t.types[short(name)] != nil {
		return
	}
	s := t.schemas[name]
	if s == nil {
		log.Fatalf("the server describes no type %s", name)
	}
	out := &typ{Fields: map[string]*field{}, Required: s.Required, Atomic: s.MapType == "atomic"}
	t.types[short(name)] = out
	for property, p := range s.Properties {
		out.Fields[property] = t.field(name+"."+property, p)
	}
}

func (t *table) field(where string, s *schema) *field {
	f := &field{
		Merge:    s.PatchMergeKey,
		Strategy: s.PatchStrategy,
		Enum:     s.Enum,
		Default:  s.Default,
		Atomic:   s.MapType == "atomic",
	}
	ref := s.Ref
	// A reference with a default or an extension of its own is wrapped, because siblings of $ref are ignored.
	if len(s.AllOf) == 1 {
		ref = s.AllOf[0].Ref
	}
	if name, found := strings.CutPrefix(ref, "#/components/schemas/"); found {
		if scalar := special[name]; scalar != "" {
			f.T = scalar
			return f
		}
		t.add(name)
		f.Ref = short(name)
		return f
	}
	switch {
	case s.Type == "array":
		f.T, f.Item = "list", t.field(where+"[]", s.Items)
		f.List, f.Keys = s.ListType, s.ListMapKeys
		for _, key := range s.ListMapKeys {
			t.keys[f.Item.Ref+"\x00"+key] = true
		}
		// The item's default is its type's zero value and says nothing.
		f.Item.Default = nil
	case s.Type == "object" && s.AdditionalProperties != nil:
		f.T, f.Item = "map", t.field(where+"{}", s.AdditionalProperties)
		f.Item.Default = nil
	case s.Type == "object" && len(s.Properties) == 0:
		f.T = "any"
	case s.Type == "string" && s.Format == "byte":
		f.T = "bytes"
	case s.Type == "string" && s.Format == "", s.Type == "integer", s.Type == "number", s.Type == "boolean":
		f.T = s.Type
	default:
		log.Fatalf("%s: no word for type %q, format %q", where, s.Type, s.Format)
	}
	return f
}

// dropZeroDefaults removes the defaults that only repeat Go's zero value: the server sets no such field. They stay on
// keys of lists, where a missing key counts as one of that value.
func (t *table) dropZeroDefaults() {
	for name, ty := range t.types {
		for property, f := range ty.Fields {
			if t.keys[name+"\x00"+property] {
				continue
			}
			switch d := f.Default.(type) {
			case string:
				if d == "" {
					f.Default = nil
				}
			case float64:
				if d == 0 {
					f.Default = nil
				}
			case bool:
				if !d {
					f.Default = nil
				}
			case map[string]any:
				if len(d) == 0 {
					f.Default = nil
				}
			}
		}
	}
}

// discovery is apidiscovery.k8s.io/v2.
type discovery struct {
	Items []struct {
		Metadata struct{ Name string }
		Versions []struct {
			Version   string
			Resources []struct {
				Resource         string
				ResponseKind     gvk
				Scope            string
				SingularResource string
				ShortNames       []string
				Categories       []string
				Verbs            []string
				Subresources     []struct{ Subresource string }
			}
		}
	}
}

const aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"

func run(assets, out, recordings string) error {
	server, err := start(assets)
	if err != nil {
		return err
	}
	defer server.stop()

	t := table{schemas: map[string]*schema{}, types: map[string]*typ{}, keys: map[string]bool{}}
	names := map[gvk]string{}
	for _, s := range append(slices.Clone(served), struct{ group, version string }{"autoscaling", "v1"}) {
		path := "/openapi/v3/apis/" + s.group + "/" + s.version
		if s.group == "" {
			path = "/openapi/v3/api/" + s.version
		}
		var document struct {
			Components struct{ Schemas map[string]*schema }
		}
		if err := server.get(path, "application/json", &document); err != nil {
			return err
		}
		for name, sch := range document.Components.Schemas {
			t.schemas[name] = sch
			// Options and meta types are of every group's kinds; a kind of its own has exactly one.
			if len(sch.Kinds) == 1 {
				names[sch.Kinds[0]] = name
			}
		}
	}

	var kinds []kind
	var core, groups discovery
	if err := server.get("/api", aggregated, &core); err != nil {
		return err
	}
	if err := server.get("/apis", aggregated, &groups); err != nil {
		return err
	}
	all := append(core.Items, groups.Items...)
	for _, s := range served {
		before := len(kinds)
		for _, group := range all {
			if group.Metadata.Name != s.group {
				continue
			}
			for _, version := range group.Versions {
				if version.Version != s.version {
					continue
				}
				for _, r := range version.Resources {
					id := gvk{s.group, s.version, r.ResponseKind.Kind}
					name := names[id]
					if name == "" {
						return fmt.Errorf("no type for %v", id)
					}
					t.add(name)
					k := kind{
						Group: s.group, Version: s.version, Kind: id.Kind,
						Plural: r.Resource, Singular: r.SingularResource, Namespaced: r.Scope == "Namespaced",
						Short: sorted(r.ShortNames), Categories: sorted(r.Categories), Verbs: sorted(r.Verbs),
						Subresources: []string{}, Type: short(name),
					}
					for _, sub := range r.Subresources {
						k.Subresources = append(k.Subresources, sub.Subresource)
					}
					sort.Strings(k.Subresources)
					kinds = append(kinds, k)
				}
			}
		}
		if len(kinds) == before {
			return fmt.Errorf("nothing served for %q %s", s.group, s.version)
		}
	}
	for _, name := range extraRoots {
		t.add(name)
	}
	t.dropZeroDefaults()
	if err := write(out, &t, kinds); err != nil {
		return err
	}
	return record(server, recordings)
}

// write puts every type and every kind on a line of its own, so that a diff between two releases is readable.
func write(path string, t *table, kinds []kind) error {
	var b bytes.Buffer
	b.WriteString("{\"types\":{\n")
	names := make([]string, 0, len(t.types))
	for name := range t.types {
		names = append(names, name)
	}
	sort.Strings(names)
	for i, name := range names {
		fmt.Fprintf(&b, "%s:%s%s\n", line(name), line(t.types[name]), comma(i, len(names)))
	}
	b.WriteString("},\"kinds\":[\n")
	for i, k := range kinds {
		fmt.Fprintf(&b, "%s%s\n", line(k), comma(i, len(kinds)))
	}
	b.WriteString("]}\n")
	return os.WriteFile(path, b.Bytes(), 0o644)
}

// record keeps answers of the real server's discovery as they are, indented, for comparison with the embedded one.
func record(server *server, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, r := range []struct{ path, accept, file string }{
		{"/api", "application/json", "api.json"},
		{"/apis", "application/json", "apis.json"},
		{"/api", aggregated, "api.aggregated.json"},
		{"/apis", aggregated, "apis.aggregated.json"},
		{"/api/v1", "application/json", "api_v1.json"},
		{"/apis/apps/v1", "application/json", "apis_apps_v1.json"},
	} {
		var answer any
		if err := server.get(r.path, r.accept, &answer); err != nil {
			return err
		}
		if m := answer.(map[string]any); m["serverAddressByClientCIDRs"] != nil {
			// The only part that differs from one run to the next.
			m["serverAddressByClientCIDRs"] = []any{
				map[string]any{"clientCIDR": "0.0.0.0/0", "serverAddress": "127.0.0.1:6443"},
			}
		}
		text, err := json.MarshalIndent(answer, "", " ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, r.file), append(text, '\n'), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// line is compact JSON without Go's escapes for HTML.
func line(v any) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		log.Fatal(err)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func comma(i, n int) string {
	if i+1 < n {
		return ","
	}
	return ""
}

func sorted(s []string) []string {
	out := append([]string{}, s...)
	sort.Strings(out)
	return out
}

// server is an etcd and a kube-apiserver in a folder that vanishes with them. The controllers are not needed here.
type server struct {
	dir      string
	url      string
	client   *http.Client
	commands []*exec.Cmd
}

const token = "schemagen"

func start(assets string) (_ *server, err error) {
	dir, err := os.MkdirTemp("", "afresh-schemagen-")
	if err != nil {
		return nil, err
	}
	s := &server{dir: dir}
	defer func() {
		if err != nil {
			s.stop()
		}
	}()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	port := listener.Addr().(*net.TCPAddr).Port
	listener.Close()
	s.url = fmt.Sprintf("https://127.0.0.1:%d", port)

	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	file := func(name string) string { return filepath.Join(dir, name) }
	private := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})
	if err := os.WriteFile(file("accounts.key"), private, 0o600); err != nil {
		return nil, err
	}
	if err := os.WriteFile(file("tokens.csv"), []byte(token+",admin,admin,system:masters\n"), 0o600); err != nil {
		return nil, err
	}
	socket := "unix://" + file("etcd.sock")
	// Nobody joins this etcd, which insists on a host and a port all the same.
	nobody := "http://127.0.0.1:0"
	if err := s.spawn(assets, "etcd", "--data-dir="+file("etcd"), "--unsafe-no-fsync", "--log-level=warn",
		"--listen-client-urls="+socket, "--advertise-client-urls="+nobody, "--listen-peer-urls="+nobody,
		"--initial-advertise-peer-urls="+nobody, "--initial-cluster=default="+nobody); err != nil {
		return nil, err
	}
	if err := s.spawn(assets, "kube-apiserver", "--etcd-servers="+socket, "--bind-address=127.0.0.1",
		fmt.Sprintf("--secure-port=%d", port), "--advertise-address=127.0.0.1", "--endpoint-reconciler-type=none",
		"--cert-dir="+file("certs"), "--token-auth-file="+file("tokens.csv"), "--authorization-mode=RBAC",
		"--service-account-issuer=https://kubernetes.default.svc", "--service-account-key-file="+file("accounts.key"),
		"--service-account-signing-key-file="+file("accounts.key"), "--service-cluster-ip-range=10.0.0.0/24",
	); err != nil {
		return nil, err
	}

	deadline := time.Now().Add(2 * time.Minute)
	for {
		// The server makes its own certificate while it starts.
		if authority, readErr := os.ReadFile(file("certs/apiserver.crt")); readErr == nil {
			pool := x509.NewCertPool()
			pool.AppendCertsFromPEM(authority)
			s.client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
			// The aggregator joins the groups a moment after the server calls itself ready.
			var d discovery
			if s.get("/readyz", "*/*", nil) == nil && s.get("/apis", aggregated, &d) == nil && len(d.Items) >= len(served)-1 {
				return s, nil
			}
		}
		if time.Now().After(deadline) {
			logs, _ := os.ReadFile(file("kube-apiserver.log"))
			return nil, fmt.Errorf("the API server is not ready in time:\n%s", logs[max(0, len(logs)-4000):])
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func (s *server) spawn(assets, name string, flags ...string) error {
	logs, err := os.Create(filepath.Join(s.dir, name+".log"))
	if err != nil {
		return err
	}
	defer logs.Close()
	command := exec.Command(filepath.Join(assets, name), flags...)
	command.Stdout, command.Stderr = logs, logs
	if err := command.Start(); err != nil {
		return err
	}
	s.commands = append(s.commands, command)
	return nil
}

func (s *server) stop() {
	for _, command := range slices.Backward(s.commands) {
		_ = command.Process.Kill()
		_ = command.Wait()
	}
	_ = os.RemoveAll(s.dir)
}

func (s *server) get(path, accept string, into any) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+path, nil)
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+token)
	request.Header.Set("Accept", accept)
	response, err := s.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return errors.New(path + ": " + response.Status + ": " + string(body))
	}
	if into == nil {
		return nil
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func main() {
	log.SetFlags(0)
	if len(os.Args) != 4 {
		log.Fatal("usage: schemagen ASSETS SCHEMA_FILE RECORDINGS_FOLDER")
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		log.Fatal(err)
	}
}

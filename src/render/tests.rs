//! Trees in, objects or errors out.

use std::collections::BTreeMap;

use serde_json::json;

use super::*;
use crate::manifest::{Entry, EntryId, EntryKind, MemoryTree, TreeError};

fn shop() -> AppRef {
    AppRef { name: "shop".to_owned(), namespace: "flux-system".to_owned() }
}

/// A rendering with everything at its default.
pub(super) struct Case<'a> {
    pub(super) tree: &'a MemoryTree,
    pub(super) path: &'a str,
    pub(super) overlay: Overlay<'a>,
    pub(super) common_metadata: Option<CommonMetadata<'a>>,
    pub(super) substitution: Substitution<'a>,
}

impl<'a> Case<'a> {
    pub(super) fn new(tree: &'a MemoryTree, path: &'a str) -> Self {
        Self { tree, path, overlay: Overlay::default(), common_metadata: None, substitution: Substitution::Off }
    }

    pub(super) fn render(&self) -> Result<Rendered, Failed> {
        render(&Request {
            overlay: self.overlay,
            common_metadata: self.common_metadata,
            substitution: self.substitution,
            ..Request::of(self.tree, self.path, &shop())
        })
    }

    pub(super) fn ids(&self) -> Vec<String> {
        match self.render() {
            Ok(rendered) => rendered.objects.iter().map(|object| object.id.to_string()).collect(),
            Err(failed) => panic!("{}", failed.error.render(false)),
        }
    }

    pub(super) fn error(&self) -> String {
        match self.render() {
            Ok(rendered) => panic!("{rendered:?}"),
            Err(failed) => failed.error.to_string(),
        }
    }
}

fn config_map(name: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\n  namespace: shop\n")
}

#[test]
fn every_yaml_file_below_the_path_is_read_in_a_stable_order() {
    let tree = MemoryTree::new()
        .with("apps/b.yaml", config_map("b"))
        .with("apps/a/z.yml", config_map("az"))
        .with("apps/a/readme.md", "no: [manifest")
        .with("apps/.hidden.yaml", config_map("hidden"))
        .with("apps/multi.yaml", format!("---\n# nothing\n---\n{}---\n{}", config_map("m1"), config_map("m2")))
        .with(
            "apps/list.yaml",
            "kind: List\napiVersion: v1\nitems:\n- {apiVersion: v1, kind: ConfigMap, metadata: {name: l1}}\n- apiVersion: v1\n  kind: ConfigMap\n  metadata: {name: l2}\n",
        )
        .with("apps/empty.yaml", "")
        .with("apps/tool.yaml", "apiVersion: v1\nkind: Tool\nmetadata:\n  name: t\n  annotations: {config.kubernetes.io/local-config: 'true'}\n")
        .with("apps-too/c.yaml", config_map("c"))
        .with_symlink("apps/link.yaml", "../shared/s.yaml")
        .with_symlink("apps/dir", "../shared")
        .with("shared/s.yaml", config_map("s"));
    for path in ["apps", "./apps", "/apps/"] {
        let rendered = Case::new(&tree, path).render().expect("rendered");
        let found: Vec<_> = rendered.objects.iter().map(|o| (o.id.name.as_str(), o.origin.to_string())).collect();
        assert_eq!(
            found,
            [
                ("hidden", "apps/.hidden.yaml:1".to_owned()),
                ("az", "apps/a/z.yml:1".to_owned()),
                ("b", "apps/b.yaml:1".to_owned()),
                ("s", "apps/link.yaml:1".to_owned()),
                ("l1", "apps/list.yaml:4".to_owned()),
                ("l2", "apps/list.yaml:5".to_owned()),
                ("m1", "apps/multi.yaml:4".to_owned()),
                ("m2", "apps/multi.yaml:10".to_owned()),
            ]
        );
        let field: [crate::manifest::yaml::PathSegment; 2] = ["metadata".into(), "name".into()];
        assert_eq!(rendered.error_at(5, &field, "x").to_string(), "apps/list.yaml:7:14: x");
        assert_eq!(rendered.error_at(7, &field, "x").to_string(), "apps/multi.yaml:13:3: x");
    }
}

#[test]
fn what_is_no_object_is_refused_with_its_place() {
    for (content, wanted) in [
        ("- a\n", "a.yaml:1:1: a list is not a Kubernetes object"),
        ("hello\n", "a.yaml:1:1: text is not a Kubernetes object"),
        ("kind: A\n", "a.yaml:1:1: the object has no `apiVersion`"),
        ("apiVersion: v1\n---\nkind: A\n", "a.yaml:1:1: the object has no `kind`"),
        ("apiVersion: v1\nkind: A\n", "a.yaml:1:1: the object has no `metadata.name`"),
        ("apiVersion: v1\nkind: A\nmetadata:\n  labels: {}\n", "a.yaml:3:1: the object has no `metadata.name`"),
        (
            "apiVersion: v1\nkind: A\nmetadata:\n  name: 1\n",
            "a.yaml:4:3: `metadata.name` must be a string, not a number",
        ),
        ("apiVersion: v1\nkind: yes\nmetadata: {name: a}\n", "a.yaml:2:1: `kind` must be a string, not a boolean"),
        (
            "apiVersion: a/b/c\nkind: A\nmetadata: {name: a}\n",
            "a.yaml:1:1: `apiVersion` is neither `version` nor `group/version`",
        ),
        (
            "apiVersion: v1\nkind: A\nmetadata: {name: a, labels: [x]}\n",
            "a.yaml:3:21: `metadata.labels` must be a mapping, not a list",
        ),
        (
            "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: A, metadata: {name: a}}\n- kind: B\n",
            "a.yaml:5:3: the object has no `apiVersion`",
        ),
        ("a: [\n", "a.yaml:2:1: did not find expected node content while parsing a flow node that begins in line 2"),
        ("a: 1\na: 2\n", "a.yaml:2:1: key `a` is given twice, first in line 1"),
    ] {
        let tree = MemoryTree::new().with("a.yaml", content);
        assert_eq!(Case::new(&tree, "").error(), wanted, "{content}");
    }
    let tree = MemoryTree::new().with("a.yaml", &b"a: \xff\n"[..]);
    assert_eq!(Case::new(&tree, "").error(), "a.yaml:1:4: the file is not UTF-8 text: byte 0xff");
}

#[test]
fn an_object_declared_twice_names_both_places() {
    let tree =
        MemoryTree::new().with("x/a.yaml", config_map("a")).with("x/b.yaml", format!("---\n{}", config_map("a")));
    let failed = Case::new(&tree, "x").render().expect_err("twice");
    assert_eq!(failed.error.to_string(), "x/b.yaml:2:1: ConfigMap/shop/a is declared twice, first in x/a.yaml:1");
    insta::assert_snapshot!(failed.error.render(false), @r"
    error: ConfigMap/shop/a is declared twice, first in x/a.yaml:1
     --> x/b.yaml:2:1
      |
    1 | ---
    2 | apiVersion: v1
      | ^^^^^^^^^^
      |
     ::: x/a.yaml:1:1
      |
    1 | apiVersion: v1
      | ---------- first declared here
    ");
}

#[test]
fn a_kustomization_below_the_path_is_built_as_one_of_its_resources() {
    let tree = MemoryTree::new()
        .with("x/a.yaml", config_map("a"))
        .with("x/y/kustomization.yml", "namePrefix: p-\nresources: [b.yaml]\n")
        .with("x/y/b.yaml", config_map("b"))
        .with("x/y/ignored.yaml", config_map("c"));
    assert_eq!(Case::new(&tree, "x").ids(), ["ConfigMap/shop/a", "ConfigMap/shop/p-b"]);
}

#[test]
fn paths_that_lead_nowhere_or_out_are_refused() {
    let tree = MemoryTree::new()
        .with("envs/dev/a.yaml", config_map("a"))
        .with("envs/prod/a.yaml", config_map("a"))
        .with("out/ok.yaml", config_map("a"))
        .with_symlink("out/passwd.yaml", "/etc/passwd")
        .with_symlink("climb/up.yaml", "../../x.yaml")
        .with_symlink("sneaky/s", "..")
        .with_symlink("sneaky/up.yaml", "s/../x.yaml")
        .with_symlink("loop/a.yaml", "b.yaml")
        .with_symlink("loop/b.yaml", "a.yaml")
        .with_symlink("dangling/a.yaml", "../nothing.yaml")
        .with_submodule("sub/module");
    for (path, wanted) in [
        ("envs/stage", "path `envs/stage` not found: `envs` has `dev`, `prod`"),
        (
            "env/dev",
            "path `env/dev` not found: the repository has `climb`, `dangling`, `envs`, `loop`, `out`, `sneaky`, `sub`",
        ),
        ("envs/dev/a.yaml", "path `envs/dev/a.yaml` is not a directory"),
        ("envs/../envs/dev", "path `envs/../envs/dev` leaves the repository"),
        ("..", "path `..` leaves the repository"),
        ("out", "symlink `out/passwd.yaml` leads out of the repository, to `/etc/passwd`"),
        ("climb", "symlink `climb/up.yaml` leads out of the repository, to `../../x.yaml`"),
        ("sneaky", "symlink `sneaky/s` leads out of the repository, to `..`"),
        ("loop", "symlink `loop/a.yaml` leads through more than 40 others"),
        ("dangling", "dangling/a.yaml: this symlink leads to nothing"),
        ("sub/module", "`sub/module` is a submodule, and submodules are not fetched"),
        ("sub/module/x", "`sub/module` is a submodule, and submodules are not fetched"),
    ] {
        assert_eq!(Case::new(&tree, path).error(), wanted);
    }
    let tree = MemoryTree::new().with("envs/dev/a.yaml", config_map("a")).with_symlink("current", "envs/dev");
    assert_eq!(Case::new(&tree, "current").ids(), ["ConfigMap/shop/a"]);
    assert_eq!(Case::new(&MemoryTree::new(), "").ids(), Vec::<String>::new());
    assert_eq!(Case::new(&MemoryTree::new(), "x").error(), "path `x` not found: the repository is empty");
}

#[test]
fn a_target_namespace_moves_what_is_namespaced_and_what_refers_to_it() {
    let tree = MemoryTree::new().with(
        "a.yaml",
        r#"
{apiVersion: v1, kind: Namespace, metadata: {name: old}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: runner}}
---
{apiVersion: v1, kind: Service, metadata: {name: hook, namespace: old}}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: role}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: binding}
subjects:
- {kind: ServiceAccount, name: runner}
- {kind: ServiceAccount, name: default}
- {kind: ServiceAccount, name: foreign, namespace: any}
- {kind: User, name: runner}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: hooks}
webhooks:
- {name: a, clientConfig: {service: {name: hook, namespace: old}}}
- {name: b, clientConfig: {service: {name: hook, namespace: elsewhere}}}
- {name: c, clientConfig: {url: "https://x"}}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: things.example.org}
spec: {group: example.org, scope: Cluster, names: {kind: Thing}}
---
{apiVersion: example.org/v1, kind: Thing, metadata: {name: one}}
---
{apiVersion: other.org/v1, kind: Thing, metadata: {name: two}}
"#,
    );
    let case =
        Case { overlay: Overlay { target_namespace: Some("new"), ..Overlay::default() }, ..Case::new(&tree, "") };
    assert_eq!(
        case.ids(),
        [
            "Namespace/new",
            "ServiceAccount/new/runner",
            "Service/new/hook",
            "ClusterRole/role",
            "ClusterRoleBinding/binding",
            "ValidatingWebhookConfiguration/hooks",
            "CustomResourceDefinition/things.example.org",
            "Thing/one",
            "Thing/new/two",
        ]
    );
    let rendered = case.render().expect("rendered");
    let namespaces = |index: usize, list: &str, pointer: &str| -> Vec<Option<String>> {
        let items = rendered.objects[index].value[list].as_array().expect("a list");
        items.iter().map(|item| item.pointer(pointer).and_then(|v| v.as_str()).map(str::to_owned)).collect()
    };
    let new = || Some("new".to_owned());
    // a user of the same name, too: so does kubectl kustomize
    assert_eq!(namespaces(4, "subjects", "/namespace"), [new(), new(), Some("any".to_owned()), new()]);
    assert_eq!(
        namespaces(5, "webhooks", "/clientConfig/service/namespace"),
        [new(), Some("elsewhere".to_owned()), None]
    );
}

#[test]
fn common_metadata_wins_over_the_files() {
    let tree = MemoryTree::new().with(
        "a.yaml",
        "apiVersion: v1\nkind: A\nmetadata: {name: a, labels: {x: file, q: file}, annotations: null}\n",
    );
    let labels = BTreeMap::from([("x".to_owned(), "common".to_owned())]);
    let annotations = BTreeMap::from([("z".to_owned(), "common".to_owned())]);
    let metadata = CommonMetadata { labels: &labels, annotations: &annotations };
    let rendered = Case { common_metadata: Some(metadata), ..Case::new(&tree, "") }.render().expect("rendered");
    assert_eq!(
        rendered.objects[0].value["metadata"],
        json!({"name": "a", "labels": {"x": "common", "q": "file"}, "annotations": {"z": "common"}})
    );
}

#[test]
fn substitution_works_on_the_text_of_each_object() {
    let tree = MemoryTree::new().with(
        "a.yaml",
        r#"
apiVersion: v1
kind: Thing
metadata: {name: "${name}"}
spec: {port: "${port}", text: 'x ${port} $${kept}', default: "${none:=fallback}", list: "${list}"}
---
apiVersion: v1
kind: Thing
metadata:
  name: b
  annotations: {kustomize.toolkit.fluxcd.io/substitute: disabled}
spec: {script: "${BASH^^}"}
"#,
    );
    let variables = BTreeMap::from(
        [("name", "a"), ("port", "8080"), ("list", "[1, 2]")].map(|(k, v)| (k.to_owned(), v.to_owned())),
    );
    let case = Case { substitution: Substitution::WithVariables(&variables), ..Case::new(&tree, "") };
    let rendered = case.render().expect("rendered");
    assert_eq!(rendered.objects[0].id.name, "a");
    assert_eq!(
        rendered.objects[0].value["spec"],
        json!({"port": 8080, "text": "x 8080 ${kept}", "default": "fallback", "list": [1, 2]})
    );
    assert_eq!(rendered.objects[1].value["spec"], json!({"script": "${BASH^^}"}));
    // Without variables nothing is substituted, as in Flux.
    let none = BTreeMap::new();
    let case = Case { substitution: Substitution::WithVariables(&none), ..Case::new(&tree, "") };
    assert_eq!(case.render().expect("rendered").objects[0].value["spec"]["port"], "${port}");
}

#[test]
fn failed_substitutions_name_the_variable_the_object_and_the_place_but_no_value() {
    let secret =
        BTreeMap::from([("given".to_owned(), "*hunter2".to_owned()), ("colon".to_owned(), "hunter2: x".to_owned())]);
    for (spec, wanted) in [
        ("${none}", "a.yaml:5:8: variable `none` has no value, in Thing/shop/a"),
        ("${given-x}", "a.yaml:5:8: `${given-…` is no form of substitution, in Thing/shop/a"),
        ("${given", "a.yaml:5:8: `${given` lacks its closing brace, in Thing/shop/a"),
        ("${given}", "a.yaml:2:1: Thing/shop/a is no YAML mapping any more after substitution"),
        ("a ${colon}", "a.yaml:2:1: Thing/shop/a is no YAML mapping any more after substitution"),
    ] {
        let content =
            format!("\napiVersion: v1\nkind: Thing\nmetadata: {{name: a, namespace: shop}}\nspec: \"{spec}\"\n");
        let tree = MemoryTree::new().with("a.yaml", content);
        let case = Case { substitution: Substitution::Always(&secret), ..Case::new(&tree, "") };
        let failed = case.render().expect_err("refused");
        assert_eq!(failed.error.to_string(), wanted);
        assert!(!failed.error.render(false).contains("hunter2"));
    }
    let bad = BTreeMap::from([("a-b".to_owned(), String::new())]);
    let tree = MemoryTree::new().with("a.yaml", config_map("a"));
    let case = Case { substitution: Substitution::WithVariables(&bad), ..Case::new(&tree, "") };
    assert!(case.error().starts_with("variable `a-b` can't be substituted"));
}

#[test]
fn the_digest_is_of_the_objects_not_of_how_they_are_written() {
    let one = MemoryTree::new().with("a.yaml", config_map("a")).with("b.yaml", config_map("b"));
    let other = MemoryTree::new().with("x/all.yaml", format!("# same\n{}---\n{}", config_map("b"), config_map("a")));
    let changed = MemoryTree::new().with("a.yaml", config_map("a")).with("b.yaml", config_map("c"));
    let digest = |tree: &MemoryTree| Case::new(tree, "").render().expect("rendered").digest;
    assert_eq!(digest(&one), digest(&other));
    assert_ne!(digest(&one), digest(&changed));
}

#[test]
fn a_cancelled_rendering_ends_and_is_not_final() {
    let tree = MemoryTree::new().with("a.yaml", config_map("a"));
    let failed = render(&Request { cancelled: &|| true, ..Request::of(&tree, "", &shop()) }).expect_err("cancelled");
    assert!(matches!(failed.error, RenderError::Cancelled) && !failed.error.is_final());
}

/// Ten directories in each directory, eight levels deep: what a repository of a few kilobytes can be.
struct Bomb;

impl Tree for Bomb {
    fn entry(&self, path: &str) -> Result<Option<Entry>, TreeError> {
        let name = path.rsplit('/').next().unwrap_or_default();
        let is_directory = name.is_empty() || name.parse::<u32>().is_ok();
        Ok(is_directory.then(|| directory(name)))
    }

    fn list(&self, path: &str) -> Result<Option<Vec<Entry>>, TreeError> {
        let names = if path.matches('/').count() < 7 { 0..10 } else { 0..0 };
        Ok(Some(names.map(|name| directory(&name.to_string())).collect()))
    }

    fn read(&self, _: &str, _: u64) -> Result<Option<bytes::Bytes>, TreeError> {
        Ok(None)
    }
}

fn directory(name: &str) -> Entry {
    Entry { name: name.to_owned(), kind: EntryKind::Directory, id: EntryId([1; 20]) }
}

#[test]
fn a_hundred_million_directories_are_refused() {
    let failed = render(&Request::of(&Bomb, "", &shop())).expect_err("refused");
    assert!(failed.error.to_string().starts_with("more than 20000 directories are read, the last is `"));
}

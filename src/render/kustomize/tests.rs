//! What a person is told: errors name the entry that failed and what is there instead. That the results are kustomize's
//! own is shown by tests/kustomize.

use crate::manifest::MemoryTree;
use crate::render::{AppRef, Failed, Overlay, RenderError, Rendered, Request, render};

const CONFIG_MAP: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {a: b}\n";

fn build(tree: &MemoryTree, target_namespace: Option<&str>) -> Result<Rendered, Failed> {
    let app = AppRef { name: "app".into(), namespace: "default".into() };
    let overlay = Overlay { target_namespace, ..Overlay::default() };
    render(&Request { overlay, ..Request::of(tree, "app", &app) })
}

#[test]
fn an_error_names_its_place_and_what_is_there_instead() {
    let base = || MemoryTree::new().with("app/settings.yaml", CONFIG_MAP);
    for (kustomization, wanted) in [
        (
            "resources:\n- settings.yml\n",
            "app/kustomization.yaml:2:3: there is no file or directory `app/settings.yml`, but `settings.yaml`",
        ),
        (
            "resources: [settings.yaml]\nbases:\n- ../nowhere\n",
            "app/kustomization.yaml:3:3: there is no file or directory `nowhere`",
        ),
        ("resources: []\nresorces: [a]\n", "app/kustomization.yaml:2:1: a kustomization has no field `resorces`"),
        (
            "helmCharts: [{name: a}]\n",
            "app/kustomization.yaml:1:1: `helmCharts` is not served by this version of Afresh",
        ),
        (
            "vars:\n- name: A\n  objref: {kind: Service, name: s, apiVersion: v1}\n",
            "app/kustomization.yaml:2:3: variable `A`: there is no `Service/s`",
        ),
        (
            "resources: [settings.yaml]\nvars:\n- name: A\n  objref: {kind: ConfigMap, name: settings, apiVersion: v1}\n  fieldref: {fieldPath: data.z}\n",
            "app/kustomization.yaml:3:3: variable `A`: `ConfigMap/settings` has no field `data.z`",
        ),
        (
            "transformers:\n- |\n  apiVersion: example.com/v1\n  kind: Robot\n  metadata: {name: r}\n",
            "app/kustomization.yaml:2:3: `Robot` is not builtin: programs and containers are never run",
        ),
        (
            "transformers:\n- |\n  apiVersion: builtin\n  kind: LabelTransformer\n  metadata: {name: r}\n  lables: {a: b}\n",
            "app/kustomization.yaml:2:3: `LabelTransformer`: unknown field `lables`",
        ),
        ("crds:\n- nowhere.json\n", "app/kustomization.yaml:2:3: there is no file `app/nowhere.json`"),
        (
            "resources:\n- https://example.com/base.yaml\n",
            "app/kustomization.yaml:2:3: `https://example.com/base.yaml` is not in this repository",
        ),
        ("resources: [../../x.yaml]\n", "app/kustomization.yaml:1:13: `../../x.yaml` leads out of the repository"),
        (
            "resources: [settings.yaml]\npatches:\n- patch: |\n    kind: ConfigMap\n    apiVersion: v1\n    metadata: {name: other}\n",
            "app/kustomization.yaml:3:3: there is no `ConfigMap/other`, but `ConfigMap/settings`",
        ),
        (
            "resources: [settings.yaml]\npatches:\n- target: {kind: ConfigMap}\n  patch: '[{\"op\": \"remove\", \"path\": \"/data/x\"}]'\n",
            "app/kustomization.yaml:3:3: `ConfigMap/settings`: operation 1 at `/data/x`: ",
        ),
        (
            "replacements:\n- source: {kind: Secret, name: s}\n  targets: [{select: {kind: ConfigMap}}]\n",
            "app/kustomization.yaml:2:3: the source `Secret//s` selects nothing",
        ),
    ] {
        let error = build(&base().with("app/kustomization.yaml", kustomization), None).expect_err(kustomization);
        let said = error.error.to_string();
        assert!(said.starts_with(wanted), "{kustomization}\n  said:   {said}\n  wanted: {wanted}");
    }
}

#[test]
fn the_target_namespace_stands_in_for_that_of_the_kustomization() {
    let tree = MemoryTree::new()
        .with("app/kustomization.yaml", "namespace: own\nresources: [settings.yaml]\n")
        .with("app/settings.yaml", CONFIG_MAP);
    for (target, wanted) in [(None, "own"), (Some("target"), "target")] {
        let rendered = build(&tree, target).expect("it is built");
        assert_eq!(rendered.objects[0].id.namespace, wanted);
    }
}

#[test]
fn what_a_build_did_not_read_does_not_change_it() {
    let tree = MemoryTree::new()
        .with(
            "app/kustomization.yaml",
            "resources: [../base]\nconfigMapGenerator: [{name: m, files: [f.txt]}]\npatches: [{path: patches/p.yaml}]\n",
        )
        .with("app/patches/p.yaml", CONFIG_MAP)
        .with("app/f.txt", "f")
        .with("app/other.txt", "o")
        .with("base/kustomization.yaml", "resources: [settings.yaml]\n")
        .with("base/settings.yaml", CONFIG_MAP);
    let read_set = build(&tree, None).expect("it is built").read_set;
    for (path, changes) in [
        ("elsewhere/x.yaml", false),
        ("app/patches/beside.yaml", false),
        ("app/patches/p.yaml", true),
        ("base/settings.yaml", true),
        ("app/f.txt", true),
        ("base/kustomization.yaml", true),
    ] {
        let changed = tree.clone().with(path, "changed: 1\n");
        assert_eq!(read_set.unchanged(&changed).expect("a tree"), !changes, "{path}");
    }
}

#[test]
fn templates_are_a_resource() {
    let tree = MemoryTree::new()
        .with("app/kustomization.yaml", "namePrefix: p-\nresources: [../templates]\n")
        .with("templates/afresh.yaml", "render: template\nvalues: values.yaml\n")
        .with("templates/values.yaml", "name: made\n")
        .with("templates/c.yaml.j2", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: '{{ values.name }}'}\n");
    assert_eq!(build(&tree, None).expect("it is built").objects[0].id.name, "p-made");
}

/// Asked again and again, whatever it does: reading, patching, following names.
#[test]
fn a_build_that_is_preempted_stops_where_it_is() {
    let mut tree = MemoryTree::new().with(
        "app/kustomization.yaml",
        "namespace: n1\nnamePrefix: p-\nlabels: [{pairs: {a: b}}]\nresources: [all.yaml]\npatches:\n- target: {kind: ConfigMap}\n  patch: |\n    - {op: add, path: /data/x, value: y}\n",
    );
    let objects: Vec<String> = (0..300).map(|i| CONFIG_MAP.replace("settings", &format!("c{i}"))).collect();
    tree.insert("app/all.yaml", objects.join("---\n"));
    let asked = std::cell::Cell::new(0_u32);
    let request = |cancelled: &dyn Fn() -> bool| {
        let app = AppRef { name: "app".into(), namespace: "default".into() };
        render(&Request { cancelled, ..Request::of(&tree, "app", &app) })
    };
    let whole = request(&|| {
        asked.set(asked.get() + 1);
        false
    });
    assert_eq!(whole.expect("it is built").objects.len(), 300);
    let questions = asked.get();
    assert!(questions > 1000, "asked {questions} times");
    for stop in (1..questions).step_by(97) {
        asked.set(0);
        let failed = request(&|| {
            asked.set(asked.get() + 1);
            asked.get() >= stop
        });
        let error = failed.expect_err("it is stopped").error;
        assert!(matches!(error, crate::render::RenderError::Cancelled), "{stop}: {error}");
        assert_eq!(asked.get(), stop, "it went on after it was told to stop");
    }
}

#[test]
fn a_base_in_another_repository_is_asked_for_then_seen_and_leads_nowhere_else() {
    let kustomization = "resources:\n- https://example.com/org/repo//maps?ref=v1\n";
    let tree = MemoryTree::new().with("app/kustomization.yaml", kustomization).with("app/own.yaml", CONFIG_MAP);
    let failed = build(&tree, None).expect_err("it is not there");
    let said = failed.to_string();
    assert!(
        said.starts_with("app/kustomization.yaml:2:3: `https://example.com/org/repo//maps?ref=v1` is not"),
        "{said}"
    );
    let RenderError::RemoteBase { base, .. } = &failed.error else { panic!("{said}") };

    let within = |path: &str| format!("{}/{path}", base.mount());
    let tree = tree.with(&within("shared/m.yaml"), CONFIG_MAP);
    let tree = tree.with(&within("maps/kustomization.yaml"), "resources: [../shared/m.yaml]\n");
    assert_eq!(build(&tree, None).expect("it is built").objects[0].id.name, "settings");

    let climbing = tree.with(&within("maps/kustomization.yaml"), "resources: [../../../app/own.yaml]\n");
    let said = build(&climbing, None).expect_err("it climbs").to_string();
    assert!(said.contains("leads out of the repository"), "{said}");
}

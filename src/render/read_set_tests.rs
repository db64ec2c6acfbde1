//! The promise of a read set: while it is unchanged, a rendering gives the same.

use proptest::prelude::*;

use super::tests::Case;
use super::{ReadSet, Rendered};
use crate::manifest::{MemoryTree, changed_paths};
use crate::policy::{Document, PolicySet, Subject, place};

/// What a rendering gave: its digest or its error.
fn outcome(tree: &MemoryTree, path: &str) -> (Result<[u8; 32], String>, ReadSet) {
    match Case::new(tree, path).render() {
        Ok(rendered) => (Ok(rendered.digest), rendered.read_set),
        Err(failed) => (Err(failed.error.render(false)), failed.read_set),
    }
}

fn base() -> MemoryTree {
    MemoryTree::new()
        .with("apps/web/a.yaml", "apiVersion: v1\nkind: Thing\nmetadata: {name: a}\n")
        .with("apps/web/deep/b.yaml", "apiVersion: v1\nkind: Thing\nmetadata: {name: b}\n")
        .with("apps/web/readme.md", "text")
        .with("apps/web/hidden/deep/x.md", "text")
        .with("apps/other/c.yaml", "apiVersion: v1\nkind: Thing\nmetadata: {name: c}\n")
        .with_symlink("apps/web/link.yaml", "../../shared/s.yaml")
        .with("shared/s.yaml", "apiVersion: v1\nkind: Thing\nmetadata: {name: s}\n")
        .with("shared/t.yaml", "apiVersion: v1\nkind: Thing\nmetadata: {name: t}\n")
        .with("envs/prod/afresh.yaml", "render: template\ntemplates: ../../templates\nvalues: values.yaml\n")
        .with("envs/prod/values.yaml", "x: 1\n")
        .with("envs/dev/values.yaml", "x: 1\n")
        .with("templates/a.yaml", "apiVersion: v1\nkind: Thing\nmetadata: {name: a}\nspec: {{ values.x }}\n")
}

#[test]
fn only_what_was_read_and_what_could_be_found_instead_counts() {
    let tree = base();
    for (path, edit, wanted) in [
        ("apps/web", "apps/other/c.yaml", true),
        ("apps/web", "elsewhere/new.yaml", true),
        ("apps/web", "apps/new.yaml", true),
        ("apps/web", "shared/t.yaml", true),
        ("apps/web", "shared/s.yaml", false),
        ("apps/web", "apps/web/a.yaml", false),
        ("apps/web", "apps/web/deep/b.yaml", false),
        ("apps/web", "apps/web/deep/new.yaml", false),
        ("apps/web", "apps/web/deep/kustomization.yaml", false),
        // Its content wasn't read.
        ("apps/web", "apps/web/readme.md", true),
        // May hide files.
        ("apps/web", ".sourceignore", false),
        ("apps/web", "apps/.sourceignore", false),
        ("apps/web", "shared/.sourceignore", false),
        ("apps/web", "apps/other/.sourceignore", true),
        ("apps/web", "apps/web/hidden/.sourceignore", false),
        ("envs/prod", "templates/a.yaml", false),
        ("envs/prod", "templates/_new.txt", false),
        ("envs/prod", "envs/prod/values.yaml", false),
        ("envs/prod", "envs/dev/values.yaml", true),
        ("envs/stage", "envs/stage/a.yaml", false),
        ("envs/stage", "envs/dev/values.yaml", true),
        ("envs/dev", "envs/dev/values.yaml", false),
    ] {
        let (_, read_set) = outcome(&tree, path);
        assert!(read_set.unchanged(&tree).expect("a tree in memory"));
        let edited = tree.clone().with(edit, "changed: [");
        assert_eq!(read_set.unchanged(&edited).expect("a tree in memory"), wanted, "{path}, {edit}");
        let changed = changed_paths(&tree, &edited, 1).expect("a tree in memory").expect("one edit");
        // a directory that was listed may hold what is new in it
        assert!(wanted || read_set.may_hold(&changed), "{path}, {edit}");
    }
    let (_, read_set) = outcome(&tree, "apps/web");
    for (path, counts) in [("apps/other/c.yaml", false), ("shared", true), ("apps", true), ("shared/t.yaml", false)] {
        assert_eq!(read_set.may_hold(&[path.to_owned()]), counts, "{path}");
    }
}

#[test]
fn below_an_unchanged_directory_nothing_is_looked_up() {
    use crate::manifest::{Entry, Tree, TreeError};
    use std::sync::atomic::{AtomicUsize, Ordering};

    struct Counting(MemoryTree, AtomicUsize);
    impl Tree for Counting {
        fn entry(&self, path: &str) -> Result<Option<Entry>, TreeError> {
            self.1.fetch_add(1, Ordering::Relaxed);
            self.0.entry(path)
        }
        fn list(&self, path: &str) -> Result<Option<Vec<Entry>>, TreeError> {
            self.1.fetch_add(1, Ordering::Relaxed);
            self.0.list(path)
        }
        fn read(&self, path: &str, limit: u64) -> Result<Option<bytes::Bytes>, TreeError> {
            self.0.read(path, limit)
        }
    }

    let mut tree = base();
    for index in 0..100 {
        tree.insert(
            &format!("apps/web/many/{index}.yaml"),
            format!("apiVersion: v1\nkind: Thing\nmetadata: {{name: x{index}}}\n"),
        );
    }
    let (_, read_set) = outcome(&tree, "apps/web");
    assert!(read_set.len() > 100);
    let count = |tree: MemoryTree| {
        let counting = Counting(tree, AtomicUsize::new(0));
        assert!(read_set.unchanged(&counting).expect("a tree in memory"));
        counting.1.load(Ordering::Relaxed)
    };
    assert_eq!(count(tree.clone()), 1);
    // The root and `apps` changed: their `.sourceignore`, `apps/web` and what the symlink leads to are looked up.
    assert!(count(tree.with("apps/other/c.yaml", "").with("x", "")) <= 8);
}

#[derive(Clone, Debug)]
enum Edit {
    Write(String, &'static str),
    Link(String, &'static str),
    Remove(String),
}

fn paths() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "a.yaml",
        "apps/web/a.yaml",
        "apps/web/new.yaml",
        "apps/web/deep",
        "apps/web/deep/b.yaml",
        "apps/web/deep/n.yml",
        "apps/web/link.yaml",
        "apps/web/kustomization.yaml",
        "apps/web/afresh.yaml",
        "apps/other/c.yaml",
        "apps/web",
        "apps",
        "shared/s.yaml",
        "shared",
        "envs/prod/afresh.yaml",
        "envs/prod/values.yaml",
        "envs/prod",
        "templates",
        "templates/a.yaml",
        "templates/_p.txt",
        "templates/sub/x.j2",
        ".sourceignore",
        "apps/.sourceignore",
    ])
    .prop_map(str::to_owned)
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let contents = prop::sample::select(vec![
        "apiVersion: v1\nkind: Thing\nmetadata: {name: new}\n",
        "apiVersion: v1\nkind: Thing\nmetadata: {name: a}\nspec: 2\n",
        "x: 2\n",
        "a: [",
        "",
        "render: plain\n",
        "render: template\nvalues: [a.yaml, ../../shared/s.yaml]\n",
        "{{ values.x }}",
    ]);
    let targets = prop::sample::select(vec![
        "../../shared",
        "../shared/s.yaml",
        "../../shared/s.yaml",
        "b.yaml",
        "/etc",
        "../../..",
        "deep",
    ]);
    let edit = prop_oneof![
        3 => (paths(), contents).prop_map(|(path, content)| Edit::Write(path, content)),
        1 => (paths(), targets).prop_map(|(path, target)| Edit::Link(path, target)),
        1 => paths().prop_map(Edit::Remove),
    ];
    prop::collection::vec(edit, 0..6)
}

fn apply(mut tree: MemoryTree, edits: &[Edit]) -> MemoryTree {
    for edit in edits {
        let (Edit::Write(path, _) | Edit::Link(path, _) | Edit::Remove(path)) = edit;
        tree.remove(path);
        // A file can't be in a file.
        let mut parent = path.as_str();
        while let Some((up, _)) = parent.rsplit_once('/') {
            if tree.paths().any(|file| file == up) {
                tree.remove(up);
            }
            parent = up;
        }
        tree = match edit {
            Edit::Write(path, content) => tree.with(path, *content),
            Edit::Link(path, target) => tree.with_symlink(path, target),
            Edit::Remove(_) => tree,
        };
    }
    tree
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn a_remembered_rendering_agrees_with_a_fresh_one(first in edits(), second in edits()) {
        let before = apply(base(), &first);
        let after = apply(before.clone(), &second);
        for path in ["apps/web", "envs/prod", "", "apps/web/deep"] {
            let (old, read_set) = outcome(&before, path);
            prop_assert!(read_set.unchanged(&before).expect("a tree in memory"));
            let changed = changed_paths(&before, &after, usize::MAX).expect("a tree in memory").expect("any number");
            if !read_set.may_hold(&changed) {
                prop_assert!(read_set.unchanged(&after).expect("a tree in memory"), "{}: {:?}", path, changed);
            }
            if read_set.unchanged(&after).expect("a tree in memory") {
                prop_assert_eq!(&old, &outcome(&after, path).0, "{}", path);
            }
        }
    }
}

/// An application of every way of rendering, whose parts lie all over the tree.
fn kustomized() -> MemoryTree {
    MemoryTree::new()
        .with(
            "overlays/prod/kustomization.yaml",
            "resources: [../../bases/web, more.yaml]\ncomponents: [../../components/extra]\nnamePrefix: prod-\n\
             patches: [{path: patch.yaml}]\n\
             configMapGenerator: [{name: settings, files: [data.txt], envs: [settings.env]}]\n\
             replacements: [{path: replacement.yaml}]\n",
        )
        .with("overlays/prod/more.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: more}\ndata: {a: \"${colour}\"}\n")
        .with("overlays/prod/patch.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: web}\ndata: {patched: really}\n")
        .with("overlays/prod/data.txt", "one ${colour:=red}\n")
        .with("overlays/prod/settings.env", "A=1\nB=${size}\n")
        .with(
            "overlays/prod/replacement.yaml",
            "source: {kind: ConfigMap, name: web, fieldPath: data.key}\n\
             targets: [{select: {kind: ConfigMap, name: more}, fieldPaths: [data.a]}]\n",
        )
        .with("bases/web/kustomization.yaml", "resources: [web.yaml, ../deep]\n")
        .with("bases/web/web.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: web}\ndata: {key: \"${colour}\"}\n")
        .with("bases/deep/kustomization.yaml", "secretGenerator: [{name: token, literals: [t=1]}]\n")
        .with(
            "components/extra/kustomization.yaml",
            "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\nresources: [extra.yaml]\nlabels: [{pairs: {x: z}}]\n",
        )
        .with("components/extra/extra.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: extra}\n")
        .with("plain/a.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {a: \"${colour}\"}\n")
        .with_symlink("plain/b.yaml", "../bases/web/web.yaml")
        .with("templated/afresh.yaml", "render: template\ntemplates: ../plain\nvalues: [values.yaml]\n")
        .with("templated/values.yaml", "x: 1\n")
        .with("elsewhere/readme.md", "text")
}

fn edits_of_parts() -> impl Strategy<Value = Edit> {
    let places = prop::sample::select(vec![
        "overlays/prod/kustomization.yaml",
        "overlays/prod/more.yaml",
        "overlays/prod/patch.yaml",
        "overlays/prod/data.txt",
        "overlays/prod/settings.env",
        "overlays/prod/replacement.yaml",
        "overlays/prod/unused.yaml",
        "bases/web/kustomization.yaml",
        "bases/web/kustomization.yml",
        "bases/web/web.yaml",
        "bases/web",
        "bases/deep/kustomization.yaml",
        "bases/deep/Kustomization",
        "components/extra/kustomization.yaml",
        "components/extra/extra.yaml",
        "components/more/kustomization.yaml",
        "plain/a.yaml",
        "plain/b.yaml",
        "plain/c.yaml",
        "plain/.sourceignore",
        "templated/values.yaml",
        "templated/afresh.yaml",
        "elsewhere/readme.md",
        "overlays/.sourceignore",
    ])
    .prop_map(str::to_owned);
    let contents = prop::sample::select(vec![
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: web}\ndata: {key: \"${size}\"}\n",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: more}\ndata: {a: b}\n",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: extra}\ndata: {a: \"${nothing:-default}\"}\n",
        "resources: []\n",
        "resources: [web.yaml]\n",
        "resources: [web.yaml, ../deep]\nnameSuffix: -x\n",
        "configMapGenerator: [{name: made, literals: [a=b]}]\n",
        "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\nnameSuffix: -c\n",
        "resources: [../../bases/web, more.yaml]\ncomponents: [../../components/more]\n",
        "x: 2\n",
        "A=2\n",
        "a: [",
        "",
        "*.yaml\n",
        "!a.yaml\nb.yaml\n",
    ]);
    let targets = prop::sample::select(vec!["../../bases/web/web.yaml", "more.yaml", "../plain/a.yaml", "../../.."]);
    prop_oneof![
        5 => (places.clone(), contents).prop_map(|(path, content)| Edit::Write(path, content)),
        1 => (places.clone(), targets).prop_map(|(path, target)| Edit::Link(path, target)),
        2 => places.prop_map(Edit::Remove),
    ]
}

/// What a Kustomization may ask for, by number.
fn requested<'a>(case: &mut Case<'a>, how: u8, variables: &'a std::collections::BTreeMap<String, String>) {
    static COMPONENTS: std::sync::LazyLock<Vec<String>> =
        std::sync::LazyLock::new(|| vec!["../../components/more".to_owned()]);
    if how & 1 != 0 {
        case.substitution = super::Substitution::WithVariables(variables);
    }
    if how & 2 != 0 {
        case.overlay.target_namespace = Some("shop");
        case.overlay.name_prefix = Some("p-");
    }
    if how & 4 != 0 {
        case.overlay.components = &COMPONENTS;
        case.overlay.ignore_missing_components = true;
    }
}

/// A policy that some of what is declared offends against.
fn short_values() -> PolicySet {
    let documents = [
        serde_json::json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": "short"},
            "spec": {
                "matchConstraints": {"resourceRules": [{
                    "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["configmaps"],
                }]},
                "validations": [{
                    "expression": "!has(object.data) || object.data.all(key, object.data[key].size() < 4)",
                    "messageExpression": "'`data` of ' + object.metadata.name + ' is too long'",
                }],
            },
        }),
        serde_json::json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": "short"}, "spec": {"policyName": "short", "validationActions": ["Deny"]},
        }),
    ];
    let documents = documents.map(|value| Document { path: "p.yaml".into(), line: 1, value });
    PolicySet::compile(documents.into()).expect("it compiles")
}

/// What the policies say of a rendering, each with its place.
fn findings(policies: &PolicySet, rendered: &Rendered) -> Vec<String> {
    let mut said = Vec::new();
    for (index, object) in rendered.objects.iter().enumerate().filter(|(_, object)| object.id.kind == "ConfigMap") {
        let subject = Subject {
            group: "",
            version: "v1",
            kind: "ConfigMap",
            resource: "configmaps",
            namespaced: true,
            object: &object.value,
            old_object: None,
            namespace_object: None,
            user: None,
        };
        for finding in policies.evaluate(&subject) {
            let at = rendered.error_at(index, &place(&subject, &finding), "");
            said.push(format!("{}:{}: {finding}", at.path, at.line));
        }
    }
    said
}

#[test]
fn the_policy_of_these_tests_denies_something_and_not_all() {
    let policies = short_values();
    let said =
        |path: &str| findings(&policies, &Case::new(&kustomized(), path).render().unwrap_or_else(|_| panic!("{path}")));
    assert!(said("overlays/prod")[0].contains("is too long"), "{:?}", said("overlays/prod"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn a_memory_of_renders_agrees_with_fresh_ones_over_any_history(
        history in prop::collection::vec(prop::collection::vec(edits_of_parts(), 1..4), 1..6),
        how in 0..8_u8,
        colour in prop::sample::select(vec!["blue", "", "a: b", "${size}"]),
    ) {
        let variables = [("colour", colour), ("size", "3")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        let variables = std::collections::BTreeMap::from(variables);
        let policies = short_values();
        let fresh = |tree: &MemoryTree, path: &str| {
            let mut case = Case::new(tree, path);
            requested(&mut case, how, &variables);
            match case.render() {
                Ok(rendered) => (Ok((rendered.digest, findings(&policies, &rendered))), rendered.read_set),
                Err(failed) => (Err(failed.error.render(false)), failed.read_set),
            }
        };
        for path in ["overlays/prod", "plain", "templated", "bases/web"] {
            let mut tree = kustomized();
            // as the engine keeps it: the last outcome, as long as what it read is unchanged
            let mut remembered = fresh(&tree, path);
            for edits in &history {
                tree = apply(tree, edits);
                let now = fresh(&tree, path);
                if remembered.1.unchanged(&tree).expect("a tree in memory") {
                    prop_assert_eq!(&remembered.0, &now.0, "{}", path);
                } else {
                    remembered = now;
                }
            }
        }
    }
}

#[test]
fn each_part_of_a_kustomization_is_in_the_read_set_and_nothing_else_is() {
    let tree = kustomized();
    let (outcome_before, read_set) = outcome(&tree, "overlays/prod");
    assert!(outcome_before.is_ok(), "{outcome_before:?}");
    for path in tree.paths() {
        let edited = tree.clone().with(path, "edited: [");
        let is_part = ["overlays/", "bases/", "components/extra/"].iter().any(|part| path.starts_with(part));
        assert_eq!(!read_set.unchanged(&edited).expect("a tree in memory"), is_part, "{path}");
    }
}

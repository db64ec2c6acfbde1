//! The promise of a read set: while it is unchanged, a rendering gives the same.

use proptest::prelude::*;

use super::ReadSet;
use super::tests::Case;
use crate::manifest::MemoryTree;

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
            if read_set.unchanged(&after).expect("a tree in memory") {
                prop_assert_eq!(&old, &outcome(&after, path).0, "{}", path);
            }
        }
    }
}

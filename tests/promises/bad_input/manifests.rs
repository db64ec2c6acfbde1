//! Files that are no YAML, and YAML that is no Kubernetes object.

use super::{Broken, each_is_named_and_mended};
use crate::support::env::Env;
use crate::support::scenarios;

scenarios! {
    a_bad_file_is_named_with_its_line,
    an_object_that_is_none_is_named_with_its_line,
}

/// A ConfigMap with this `metadata`, on line 3.
fn map(metadata: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {metadata}\n")
}

async fn a_bad_file_is_named_with_its_line(env: &mut Env) {
    let bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n".to_owned()
        + &('b'..='h')
            .map(|name| {
                let before = (name as u8 - 1) as char;
                let aliases = vec![format!("*{before}"); 10].join(", ");
                format!("{name}: &{name} [{aliases}]\n")
            })
            .collect::<String>();
    let long_bomb = format!("a: &a {}\nb: [{}]\n", "x".repeat(1 << 20), vec!["*a"; 100].join(", "));
    let levels = format!("a:\n  {}{}\n", "[".repeat(10_000), "]".repeat(10_000));
    let cases = [
        Broken::by_file("values-bomb", "bad.yaml", bomb, &["bad.yaml:6:", "more than 1000000 values"]),
        Broken::by_file("bytes-bomb", "bad.yaml", long_bomb, &["bad.yaml:2:", "bytes in one file, aliases expanded"]),
        Broken::by_file("levels", "bad.yaml", levels, &["bad.yaml:2:", "nested deeper than 120 levels"]),
        Broken::by_file(
            "duplicate-key",
            "bad.yaml",
            format!("{}kind: Secret\n", map("{ name: x }")),
            &["bad.yaml:4:1: key `kind` is given twice, first in line 2"],
        ),
        Broken::by_file(
            "not-utf-8",
            "bad.yaml",
            [map("{ name: x }").as_bytes(), b"data:\n  a: caf\xe9\n"].concat(),
            &["bad.yaml:5:9: the file is not UTF-8 text: byte 0xe9"],
        ),
        Broken::by_file("syntax", "bad.yaml", "kind: ConfigMap\n  name: [", &["bad.yaml:2:"]),
    ];
    each_is_named_and_mended(env, &cases).await;
}

async fn an_object_that_is_none_is_named_with_its_line(env: &mut Env) {
    let twice = format!("{}---\n{}", map("{ name: x }"), map("{ name: x }"));
    let cases = [
        Broken::by_file("no-name", "bad.yaml", map("{}"), &["bad.yaml:3:", "the object has no `metadata.name`"]),
        Broken::by_file(
            "no-kind",
            "bad.yaml",
            "# no kind\napiVersion: v1\nmetadata: { name: x }\n",
            &["bad.yaml:2:1: the object has no `kind`", "every YAML file below the path must hold Kubernetes objects"],
        ),
        Broken::by_file("a-list", "bad.yaml", "- a\n", &["bad.yaml:1:1: a list is not a Kubernetes object"]),
        Broken::by_file(
            "twice",
            "bad.yaml",
            twice,
            &["bad.yaml:5:1: ", "is declared twice, first in twice/bad.yaml:1"],
        ),
        Broken::by_file(
            "twice-in-files",
            "x.yaml",
            map("{ name: twice-in-files }"),
            &["x.yaml:1:1: ", "is declared twice, first in twice-in-files/good.yaml:1"],
        ),
        Broken::by_file(
            "unknown-kind",
            "bad.yaml",
            "apiVersion: example.com/v1\nkind: Nothing\nmetadata: { name: x }\n",
            &[
                "bad.yaml:1: the cluster has no kind `Nothing` in `example.com/v1`",
                "is its CustomResourceDefinition installed?",
            ],
        ),
    ];
    each_is_named_and_mended(env, &cases).await;
}

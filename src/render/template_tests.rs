//! What templates can do, and how their mistakes are shown.

use super::tests::Case;
use crate::manifest::MemoryTree;

const SETTINGS: &str = "render: template\ntemplates: ../../templates\nvalues: [../../values/common.yaml, values.yaml]\nenvironment: prod\n";

fn platform(template: &str) -> MemoryTree {
    MemoryTree::new()
        .with("envs/prod/afresh.yaml", SETTINGS)
        .with("envs/prod/values.yaml", "replicas: 3\nextra: {b: 2}\n")
        .with(
            "values/common.yaml",
            "replicas: 1\nextra: {a: 1}\nnothing: null\nlist: [p, q]\ntext: \"a: b\\nc\"\nbig: XX\n"
                .replace("XX", &"x".repeat(100_000)),
        )
        .with("templates/a.yaml", template.to_owned())
}

/// The `spec` that a template of it renders.
fn spec(template: &str) -> serde_json::Value {
    let tree = platform(&format!("apiVersion: v1\nkind: Thing\nmetadata: {{name: a}}\nspec: {template}"));
    match Case::new(&tree, "envs/prod").render() {
        Ok(rendered) => rendered.objects[0].value["spec"].clone(),
        Err(failed) => panic!("{}", failed.error.render(false)),
    }
}

fn error(template: &str) -> String {
    Case::new(&platform(template), "envs/prod").error()
}

#[test]
fn templates_see_values_environment_and_app() {
    use serde_json::json;
    for (template, wanted) in [
        ("{{ values.replicas }}", json!(3)),
        ("{{ values.extra }}", json!({"a": 1, "b": 2})),
        ("{{ values.nothing }}", json!(null)),
        ("{{ environment }}/{{ app.name }}/{{ app.namespace }}", json!("prod/shop/flux-system")),
        ("{{ values.none | default('d') }}", json!("d")),
        ("{{ values.text | tojson }}", json!("a: b\nc")),
        ("\n  {{ values.extra | toyaml | indent(2) }}", json!({"a": 1, "b": 2})),
        ("\n  t:\n    {{ values.list | toyaml | indent(4) }}", json!({"t": ["p", "q"]})),
        ("{{ values.list | join('-') }}", json!("p-q")),
        ("{{ 'x' | b64encode }}{{ 'eA==' | b64decode }}", json!("eA==x")),
        ("{{ ('x' | sha256sum)[:8] }}", json!("2d711642")),
        ("{{ values.replicas | required('set replicas') }}", json!(3)),
        ("{{ 'a-b' | replace('-', '_') | upper }}", json!("A_B")),
        ("{{ 'a' ~ values.replicas ~ 'b' }}", json!("a3b")),
        ("{{ values.replicas * 2 + 1 }}", json!(7)),
        ("{{ 1.5 }}", json!(1.5)),
        ("{{ environment == 'prod' and values.replicas > 1 }}", json!(true)),
        ("\n  {% for x in values.list %}\n  - {{ loop.index }}{{ x }}\n  {% endfor %}", json!(["1p", "2q"])),
        ("{% raw %}'{{ x }}'{% endraw %}", json!("{{ x }}")),
        ("{% macro m(x) %}<{{ x }}>{% endmacro %}\"{{ m('a') }}\"", json!("<a>")),
    ] {
        assert_eq!(spec(template), wanted, "{template}");
    }
}

#[test]
fn files_that_begin_with_an_underscore_are_for_include_only() {
    let tree = platform("apiVersion: v1\nkind: Thing\nmetadata:\n  name: a\n  labels:\n    {%+ include '_labels.yaml' %}\ndata:\n  conf: |\n    {% filter indent(4, first=true) %}\n    {% include 'conf/nginx.conf' %}\n    {% endfilter %}\n")
        .with("templates/_labels.yaml", "app: {{ app.name }}\n")
        .with("templates/_lib/x.yaml", "never: [")
        .with("templates/sub/b.yaml.j2", "{% from '_macros.txt' import size %}apiVersion: v1\nkind: Thing\nmetadata: {name: b}\nspec: {{ size() }}\n")
        .with("templates/_macros.txt", "{% macro size() %}5{% endmacro %}")
        .with("templates/conf/nginx.conf", "not yaml: [\n  x\n")
        .with("templates/image.bin", &b"\xff\xfe"[..]);
    let rendered = Case::new(&tree, "envs/prod").render().unwrap_or_else(|f| panic!("{}", f.error.render(false)));
    assert_eq!(
        rendered.objects.iter().map(|o| o.origin.to_string()).collect::<Vec<_>>(),
        ["templates/a.yaml:1", "templates/sub/b.yaml.j2:1"]
    );
    assert_eq!(rendered.objects[0].value["metadata"]["labels"]["app"], "shop");
    assert_eq!(rendered.objects[0].value["data"]["conf"], "not yaml: [\n  x\n");
}

#[test]
fn mistakes_in_templates_are_shown_in_the_template() {
    let mut wrong = Vec::new();
    let long = "the template renders more than 8388608 bytes";
    let text = "a text becomes longer than 2097152 bytes";
    let made = "the template makes more than 67108864 bytes of text on its way";
    for (template, wanted) in [
        ("a: 1\nb: {{ values.nope }}\n", "2:7: `values.nope` is undefined"),
        ("b: {{ values.extra.nope.deeper }}\n", "1:19: `values.extra.nope` is undefined"),
        ("b: {{ nope }}\n", "1:7: `nope` is undefined"),
        ("b: {{ values.nope | upper }}\n", "1:21: `values.nope` is undefined"),
        ("b: {{ values.nope.size() }}\n", "1:18: undefined has no method named size (`values.nope` is undefined)"),
        ("{% for x in values.nope %}{% endfor %}\n", "1:13: `values.nope` is undefined"),
        ("b: {{ values.replicas\n", "1:14: syntax error: unexpected end of input, expected end of variable block"),
        ("{% if %}\n", "1:7: syntax error: unexpected end of block"),
        ("b: {{ 1 | nope }}\n", "1:11: filter nope is unknown"),
        ("b: {{ nope() }}\n", "1:7: nope is unknown"),
        ("{% include 'nope' %}\n", "1:4: tried to include non-existing template 'nope'"),
        (
            "{% include '../values/common.yaml' %}\n",
            "1:4: tried to include non-existing template '../values/common.yaml'",
        ),
        ("b: {{ '' | required('set it') }}\n", "1:12: set it"),
        ("b: {{ 'x' | b64decode }}\n", "1:13: this is not base64"),
        ("b: {{ 'x' + 1 }}\n", "1:7: tried to use + operator on unsupported types string and number"),
        ("a: 1\na: {{ 2 }}\n", "2:1: key `a` is given twice, first in line 1"),
        ("{% include 'a.yaml' %}\n", "1:4: recursion limit exceeded"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}\n", "1:19: recursion limit exceeded"),
        (
            "{% for a in range(10000) %}{% for b in range(10000) %}{% endfor %}{% endfor %}\n",
            "1:40: the template takes more than 1000000 steps",
        ),
        ("{% for a in range(100000) %}{% endfor %}\n", "1:13: a range is longer than 10000"),
        (
            "{% set x = values.big ~ values.big %}{% for a in range(9999) %}{{ x }}{% endfor %}\n",
            &format!("1:67: {long}"),
        ),
        ("{% set x %}{% for a in range(9999) %}{{ values.big }}{% endfor %}{% endset %}\n", &format!("1:41: {long}")),
        ("{% set x = values.big | replace('x', values.big) | replace('x', values.big) %}\n", &format!("1:25: {text}")),
        ("{{ range(9999) | join(values.big) }}\n", &format!("1:18: {text}")),
        ("{{ 'x' | indent(1000000) }}\n", "1:10: indented by more than 200 columns"),
        ("{{ 'x' * 1000000 }}\n", "1:7: only numbers can be multiplied"),
        ("{{ [1] * 1000000 }}\n", "1:7: only numbers can be multiplied"),
        (
            "{% set n = namespace(x=values.big) %}{% for a in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}\n",
            &format!("1:78: {text}"),
        ),
        (
            "{% set n = namespace(x=[1]) %}{% for a in range(99) %}{% set n.x = n.x + n.x %}{% endfor %}\n",
            "1:71: a list becomes longer than 200000",
        ),
        ("{% macro m(x) %}{{ m(x ~ x) }}{% endmacro %}{{ m(values.big) }}\n", &format!("1:23: {text}")),
        (
            "{% set n = namespace(x=[]) %}{% for a in range(9999) %}{% set n.x = n.x + [(values.big ~ a) * 1] %}{% endfor %}\n",
            "1:92: only numbers can be multiplied",
        ),
        (
            "{% set n = namespace(x=[]) %}{% for a in range(9999) %}{% set n.x = n.x + [values.big | upper] %}{% endfor %}\n",
            &format!("1:89: {made}"),
        ),
        (
            "{% set n = namespace(x=[]) %}{% for a in range(9999) %}{% set n.x = n.x + [values.big[1:]] %}{% endfor %}\n",
            &format!("1:90: {made}"),
        ),
        ("{{ '%1000000000s' | format('x') }}\n", "1:21: filter format is unknown"),
        ("{{ debug() }}\n", "1:4: debug is unknown"),
        ("{{ lipsum() }}\n", "1:4: lipsum is unknown"),
        ("{{ now() }}\n", "1:4: now is unknown"),
    ] {
        let found = error(template);
        if found != format!("templates/a.yaml:{wanted}") {
            wrong.push(format!("{template}  {found}\n  {wanted}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let raw = format!("{{% for a in range(10000) %}}{}{{% endfor %}}\n", "x".repeat(1000));
    assert!(error(&raw).ends_with(long));
    let captured =
        format!("{{% set x %}}{{% for a in range(10000) %}}{}{{% endfor %}}{{% endset %}}\n", "x".repeat(100_000));
    assert_eq!(error(&captured), format!("templates/a.yaml:1:39: {made}"));
}

#[test]
fn reports_show_the_template_or_say_that_they_show_what_it_rendered() {
    let report = |tree: &MemoryTree| Case::new(tree, "envs/prod").render().expect_err("a mistake").error.render(false);
    let tree = platform("kind: Thing\n{% include '_part.yaml' %}\n")
        .with("templates/_part.yaml", "a: 1\nb: {{ values.hots }}\n");
    insta::assert_snapshot!(report(&tree), @r#"
    error: `values.hots` is undefined
     --> templates/_part.yaml:2:7
      |
    1 | a: 1
    2 | b: {{ values.hots }}
      |       ^^^^^^^^^^^
      |
      = note: while `templates/a.yaml` was rendered
      = hint: give it in a values file, or a default as in `{{ values.x | default("y") }}`; `environment` is set in `afresh.yaml`
    "#);
    insta::assert_snapshot!(report(&platform("kind: Thing\na:\n{% for x in [1, 2] %}\n  key: {{ x }}\n{% endfor %}\n")), @r"
    error: key `key` is given twice, first in line 3
     --> templates/a.yaml:4:3
      |
    2 | a:
    3 |   key: 1
      |   --- first given here
    4 |   key: 2
      |   ^^^
      |
      = note: the excerpt is of the text that the template rendered, not of the template
    ");
    insta::assert_snapshot!(
        report(&platform("kind: Secret\nstringData:\n  password: hunter2\n  user: {{ values.user }}\n  user: x\n")), @r#"
    error: `values.user` is undefined
     --> templates/a.yaml:4:12
      |
    2 | stringData:
    3 |   password: …
    4 |   user: {{ values.user }}
      |            ^^^^^^^^^^^
      |
      = hint: give it in a values file, or a default as in `{{ values.x | default("y") }}`; `environment` is set in `afresh.yaml`
    "#);
}

#[test]
fn mistakes_in_settings_and_values_are_shown_there() {
    let tree = platform("");
    let error = |tree: MemoryTree| Case::new(&tree, "envs/prod").error();
    for (settings, wanted) in [
        (
            "render: template\nvalues: [nope.yaml]\n",
            "envs/prod/afresh.yaml:2:10: there is no file `envs/prod/nope.yaml`",
        ),
        ("render: template\nvalues: ../../templates\n", "envs/prod/afresh.yaml:2:1: there is no file `templates`"),
        ("render: template\ntemplates: ../x\n", "envs/prod/afresh.yaml:2:1: there are no templates at `envs/x`"),
        ("render: template\nvalue: x\n", "envs/prod/afresh.yaml:2:1: unknown key `value`"),
    ] {
        assert_eq!(error(tree.clone().with("envs/prod/afresh.yaml", settings)), wanted);
    }
    assert_eq!(
        error(tree.clone().with("envs/prod/values.yaml", "- a\n")),
        "envs/prod/values.yaml:1:1: values must be a mapping, not a list"
    );
    assert_eq!(
        error(tree.clone().with("envs/prod/values.yaml", "a: 1\na: 2\n")),
        "envs/prod/values.yaml:2:1: key `a` is given twice, first in line 1"
    );
    assert_eq!(
        error(tree.clone().with("envs/prod/values.yaml", "a: 1\n---\nb: 2\n")),
        "envs/prod/values.yaml:3:1: this file can hold one document only"
    );
    assert_eq!(
        error(tree.with("templates/kustomization.yaml", "")),
        "`templates/kustomization.yaml`: a kustomization among templates is not built"
    );
}

#[test]
fn without_a_path_to_templates_the_directory_itself_holds_them() {
    let tree = MemoryTree::new()
        .with("app/afresh.yaml", "render: template\nvalues: values.yaml\n")
        .with("app/values.yaml", "name: x\n")
        .with("app/a.yaml", "apiVersion: v1\nkind: Thing\nmetadata: {name: {{ values.name }}}\n")
        .with("plain/afresh.yaml", "render: plain\n")
        .with("plain/a.yaml", "apiVersion: v1\nkind: Thing\nmetadata: {name: p}\n");
    assert_eq!(Case::new(&tree, "app").ids(), ["Thing/x"]);
    assert_eq!(Case::new(&tree, "plain").ids(), ["Thing/p"]);
    assert_eq!(Case::new(&tree, "").ids(), ["Thing/x", "Thing/p"]);
}

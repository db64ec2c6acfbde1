//! Templates that never end, explode or reach out, and settings that are wrong.

use super::{Broken, each_is_named_and_mended};
use crate::support::env::Env;
use crate::support::scenarios;

scenarios! {
    a_template_that_does_not_end_is_named_with_its_line,
    settings_and_values_that_are_wrong_are_named_with_their_line,
}

const SETTINGS: &str = "render: template\n";

async fn a_template_that_does_not_end_is_named_with_its_line(env: &mut Env) {
    let endless =
        "{% for a in range(10000) %}\n{% for b in range(10000) %}\n{% set c = a + b %}\n{% endfor %}\n{% endfor %}\n";
    let doubled =
        "{% set x %}0123456789{% endset %}\n".to_owned() + &"{% set x %}{{ x }}{{ x }}{% endset %}\n".repeat(40);
    let written = format!("{{% for a in range(10000) %}}\n{{{{ \"{}\" }}}}\n{{% endfor %}}\n", "x".repeat(1000));
    let broken = |name, text: &str, says: &[&str]| {
        Broken::by_file(name, "bad.yaml", text, says).with_file("afresh.yaml", SETTINGS)
    };
    let cases = [
        broken("endless", endless, &["bad.yaml:", "the template takes more than 1000000 steps"]),
        broken("doubled", &doubled, &["bad.yaml:", "bytes"]),
        broken("written", &written, &["bad.yaml:2:", "the template renders more than 8388608 bytes"]),
        broken("includes-itself", "# a\n{% include \"bad.yaml\" %}\n", &["bad.yaml:2:", "recursion"]),
        broken(
            "calls-itself",
            "{% macro again() %}\n{{ again() }}\n{% endmacro %}\n{{ again() }}\n",
            &["bad.yaml:2:", "recursion"],
        ),
        broken(
            "includes-from-outside",
            "# a\n{% include \"../other/other.yaml\" %}\n",
            &["bad.yaml:2:", "files are included by their path from the directory of templates"],
        ),
        broken("undefined", "# a\na: {{ values.missing }}\n", &["bad.yaml:2:", "give it in a values file"]),
        broken("syntax", "# a\na: {{ 1 + }}\n", &["bad.yaml:2:", "syntax error"]),
    ];
    each_is_named_and_mended(env, &cases).await;
}

async fn settings_and_values_that_are_wrong_are_named_with_their_line(env: &mut Env) {
    let settings = |name, text: &str, says: &[&str]| Broken::by_file(name, "afresh.yaml", text, says);
    let cases = [
        settings(
            "templates-outside",
            "render: template\ntemplates: ../../elsewhere\n",
            &["afresh.yaml:2:1: the path `../../elsewhere` leaves the repository"],
        ),
        settings(
            "values-outside",
            "render: template\nvalues:\n- /etc/hostname\n",
            &["afresh.yaml:3:3: the path `/etc/hostname` leaves the repository"],
        ),
        settings(
            "no-templates",
            "render: template\ntemplates: nowhere\n",
            &["afresh.yaml:2:1: there are no templates at"],
        ),
        settings(
            "unknown-key",
            "render: template\nvalue: x.yaml\n",
            &["afresh.yaml:2:1: unknown key `value`", "the keys are"],
        ),
        settings("two-documents", "render: plain\n---\nrender: plain\n", &["afresh.yaml:3:1: ", "one document only"]),
        Broken::by_file("bad-values", "values.yaml", "a: 1\na: 2\n", &["values.yaml:2:1: key `a` is given twice"])
            .with_file("afresh.yaml", "render: template\nvalues: values.yaml\n"),
    ];
    each_is_named_and_mended(env, &cases).await;
}

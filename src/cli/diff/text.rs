//! Two objects as a unified diff of their YAML, as `kubectl diff` prints it.

use anstyle::{AnsiColor, Style};
use serde_json::Value;
use similar::TextDiff;

use crate::manifest::{ObjectId, yaml};

/// Lines around a change.
const CONTEXT: usize = 3;

/// The name of an object as a file, as kubectl makes it: `apps.v1.Deployment.shop.web`.
pub fn file_name(id: &ObjectId, version: &str) -> String {
    let parts = [&id.group, version, &id.kind, &id.namespace, &id.name];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(".")
}

/// The lines of a diff with colours; `None` on a side: there is no such object. Empty if both are equal.
pub fn unified(name: &str, live: Option<&Value>, would: Option<&Value>) -> String {
    let text = |value: Option<&Value>| value.map(yaml::write).unwrap_or_default();
    let (before, after) = (text(live), text(would));
    let header = |side: &str, value: Option<&Value>| {
        if value.is_some() { format!("{side}/{name}") } else { "/dev/null".to_owned() }
    };
    let (old, new) = (header("LIVE", live), header("MERGED", would));
    let diff = TextDiff::from_lines(&before, &after);
    let plain = diff.unified_diff().context_radius(CONTEXT).header(&old, &new).to_string();
    plain.split_inclusive('\n').map(colored).collect()
}

fn colored(line: &str) -> String {
    let style = match line.as_bytes() {
        [b'-', b'-', b'-', b' ', ..] | [b'+', b'+', b'+', b' ', ..] => Style::new().bold(),
        [b'-', ..] => AnsiColor::Red.on_default(),
        [b'+', ..] => AnsiColor::Green.on_default(),
        [b'@', ..] => AnsiColor::Cyan.on_default(),
        _ => return line.to_owned(),
    };
    let (text, end) = line.strip_suffix('\n').map_or((line, ""), |text| (text, "\n"));
    format!("{style}{text}{style:#}{end}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn plain(live: Option<&Value>, would: Option<&Value>) -> String {
        let name = file_name(&ObjectId::new("", "ConfigMap", "shop", "a"), "v1");
        anstream::adapter::strip_str(&unified(&name, live, would)).to_string()
    }

    #[test]
    fn a_change_is_shown_with_its_surroundings() {
        let object = |value: &str| json!({"apiVersion": "v1", "data": {"k": value}, "kind": "ConfigMap"});
        insta::assert_snapshot!(plain(Some(&object("1")), Some(&object("2"))), @r#"
        --- LIVE/v1.ConfigMap.shop.a
        +++ MERGED/v1.ConfigMap.shop.a
        @@ -1,4 +1,4 @@
         apiVersion: v1
         data:
        -  k: "1"
        +  k: "2"
         kind: ConfigMap
        "#);
        assert!(
            plain(None, Some(&object("1")))
                .starts_with("--- /dev/null\n+++ MERGED/v1.ConfigMap.shop.a\n@@ -0,0 +1,4 @@\n+apiVersion")
        );
        assert_eq!(plain(Some(&object("1")), Some(&object("1"))), "");
    }
}

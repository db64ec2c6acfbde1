//! Code, documentation, rules and dashboard agree.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::{env, fs};

use afresh::report::metrics::{Definition, Metrics, Type};
use regex::Regex;
use serde_json::{Value, json};

use crate::manifests::{dashboard, monitoring, queries, root, rules, text, yaml};

#[test]
fn the_documentation_has_each_metric_with_its_type_and_labels() {
    let page = text(&root().join("docs/metrics.md"));
    let cells = |line: &str| line.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    let documented: Vec<_> = page
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| match cells(line).as_slice() {
            [_, name, kind, labels, meaning, ..] => {
                assert!(!meaning.is_empty(), "{name} is explained");
                (name.trim_matches('`').to_owned(), kind.clone(), labels.clone())
            }
            other => panic!("not a row of a table of metrics: {other:?}"),
        })
        .collect();
    let exposed: Vec<_> =
        Metrics::catalogue().map(|d| (d.name.to_owned(), d.r#type.as_str().to_owned(), d.labels.join(", "))).collect();
    let sorted = |mut rows: Vec<_>| {
        rows.sort();
        rows
    };
    assert_eq!(sorted(documented), sorted(exposed));
}

/// `UPDATE_MANIFESTS=1` writes it anew.
#[test]
fn the_rules_for_the_operator_are_the_rules() {
    let path = monitoring("prometheus-rule.yaml");
    let plain = text(&monitoring("rules.yaml"));
    if env::var_os("UPDATE_MANIFESTS").is_some() {
        fs::write(&path, operator_rules(&plain)).unwrap();
    }
    assert_eq!(
        text(&path),
        operator_rules(&plain),
        "UPDATE_MANIFESTS=1 cargo test --test monitoring writes prometheus-rule.yaml anew"
    );
    let (resource, plain) = (yaml(&path), yaml(&monitoring("rules.yaml")));
    assert_eq!(resource["spec"]["groups"], plain["groups"]);
}

/// The rules as the `spec` of a PrometheusRule, with their comments.
fn operator_rules(plain: &str) -> String {
    let groups = &plain[plain.find("groups:").expect("groups")..];
    let indented = groups.lines().map(|line| if line.is_empty() { "\n".into() } else { format!("  {line}\n") });
    let head = "# Written from rules.yaml by a test; change that one.\n\
        apiVersion: monitoring.coreos.com/v1\n\
        kind: PrometheusRule\n\
        metadata:\n  name: afresh\n  namespace: afresh-system\n  labels:\n    app.kubernetes.io/name: afresh\n\
        spec:\n";
    head.to_owned() + &indented.collect::<String>()
}

#[test]
fn each_alert_says_what_is_wrong_and_leads_to_a_section_that_says_what_to_do() {
    let page = text(&root().join("docs/operations.md"));
    let alerts = page.split("\n## ").find(|chapter| chapter.starts_with("Alerts\n")).expect("a chapter on alerts");
    let sections: BTreeMap<String, &str> = alerts
        .split("\n### ")
        .skip(1)
        .map(|section| section.split_once('\n').expect("a section has text"))
        .map(|(title, text)| (anchor(title), text))
        .collect();
    let mut linked = BTreeSet::new();
    for rule in rules() {
        let name = rule["alert"].as_str().expect("a name");
        for annotation in ["summary", "description"] {
            assert!(
                rule["annotations"][annotation].as_str().is_some_and(|text| !text.is_empty()),
                "{name}: {annotation}"
            );
        }
        assert!(["critical", "warning"].map(Into::into).contains(&rule["labels"]["severity"]), "{name}: severity");
        let link = rule["annotations"]["runbook_url"].as_str().unwrap_or_default();
        let anchor = link.strip_prefix(RUNBOOK).and_then(|link| link.strip_prefix('#'));
        let anchor = anchor.unwrap_or_else(|| panic!("{name} links to {link}"));
        let advice = sections.get(anchor).unwrap_or_else(|| panic!("{name}: no section #{anchor}"));
        assert!(advice.contains("\n1. ") || advice.contains("\n- "), "{name}: its section says what to do");
        linked.insert(anchor.to_owned());
    }
    let described: BTreeSet<String> = sections.into_keys().collect();
    assert_eq!(linked, described, "each section is about an alert");
}

/// Where the daemon that manifests/ installs serves the sections.
const RUNBOOK: &str = "http://afresh.afresh-system.svc:8080/runbook";

#[test]
fn links_of_alerts_lead_into_the_service_that_is_installed() {
    let service = yaml(&root().join("manifests/base/service.yaml"));
    let port = &service["spec"]["ports"][0];
    let host = format!("{}.{}.svc", service["metadata"]["name"].as_str().unwrap(), "afresh-system");
    assert_eq!(RUNBOOK, format!("http://{host}:{}/runbook", port["port"]));
    assert_eq!(port["targetPort"], "metrics");
}

#[test]
fn the_overlay_of_the_documentation_gives_all_alerts_another_address() {
    let page = text(&root().join("docs/operations.md"));
    let overlay = page.split("```yaml\n").find(|block| block.contains("PrometheusRule")).expect("an overlay");
    let overlay = overlay.split_once("```").expect("it ends").0;
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("manifests/monitoring")).unwrap();
    for entry in fs::read_dir(monitoring("")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), folder.path().join("manifests/monitoring").join(entry.file_name())).unwrap();
    }
    fs::write(folder.path().join("kustomization.yaml"), overlay).unwrap();
    let rendered = Command::new(env!("CARGO_BIN_EXE_afresh"))
        .args(["render", "--output", "json", "--root"])
        .args([folder.path(), folder.path()])
        .output()
        .unwrap();
    assert!(rendered.status.success(), "{}", String::from_utf8_lossy(&rendered.stderr));
    let list: Value = serde_json::from_slice(&rendered.stdout).unwrap();
    let objects = list["items"].as_array().unwrap();
    let kinds = |kind: &str| objects.iter().filter(|object| object["kind"] == kind).count();
    assert_eq!(
        (kinds("PrometheusRule"), kinds("ConfigMap")),
        (1, 1),
        "the dashboard, and no other ConfigMap: {list:#}"
    );
    let resource = objects.iter().find(|object| object["kind"] == "PrometheusRule").unwrap();
    let groups = resource["spec"]["groups"].as_array().unwrap().iter();
    let links: Vec<_> = groups
        .flat_map(|group| group["rules"].as_array().unwrap())
        .map(|rule| rule["annotations"]["runbook_url"].as_str().unwrap().to_owned())
        .collect();
    let expected: Vec<_> = rules()
        .iter()
        .map(|rule| {
            rule["annotations"]["runbook_url"]
                .as_str()
                .unwrap()
                .replace(RUNBOOK, "https://git.example.com/afresh/blob/main/docs/operations.md")
        })
        .collect();
    assert_eq!(links, expected);
}

/// As forges make it from a heading.
fn anchor(title: &str) -> String {
    title.to_lowercase().replace(' ', "-")
}

#[test]
fn rules_and_dashboard_ask_for_metrics_and_labels_that_exist() {
    let catalogue: BTreeMap<&str, Definition> = Metrics::catalogue().map(|d| (d.name, d)).collect();
    let of_rules = rules().into_iter().map(|rule| (text_of(&rule, "alert"), text_of(&rule, "expr")));
    let mut asked = BTreeSet::new();
    for (place, expr) in of_rules.chain(queries(&dashboard())) {
        assert!(!expr.is_empty(), "{place}");
        for (name, matchers) in selectors(&expr) {
            let definition = definition(&catalogue, &name).unwrap_or_else(|| panic!("{place}: there is no {name}"));
            for label in matchers {
                let known = definition.labels.contains(&label.as_str()) || label == "le";
                assert!(known, "{place}: {} has no label {label}", definition.name);
            }
            asked.insert(definition.name);
        }
    }
    // what nobody can see need not be measured; Flux's names are for Flux's dashboards
    let unseen: Vec<_> =
        catalogue.keys().filter(|name| name.starts_with("afresh_") && !asked.contains(*name)).collect();
    assert!(unseen.is_empty(), "on no panel and in no rule: {unseen:?}");
}

fn text_of(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

/// Names of metrics in a query, each with the labels that it is selected by.
fn selectors(expr: &str) -> Vec<(String, Vec<String>)> {
    let selector = Regex::new(r"\b((?:afresh|gotk|process)_[a-z_]+)(?:\{([^}]*)\})?").unwrap();
    let matcher = Regex::new(r"([a-z_]+)\s*(?:=~|!~|!=|=)").unwrap();
    let labels = |text: &str| matcher.captures_iter(text).map(|found| found[1].to_owned()).collect();
    selector
        .captures_iter(expr)
        .map(|found| (found[1].to_owned(), found.get(2).map_or_else(Vec::new, |text| labels(text.as_str()))))
        .collect()
}

/// A histogram is asked for by its parts, anything else by its name.
fn definition<'a>(catalogue: &'a BTreeMap<&str, Definition>, name: &str) -> Option<&'a Definition> {
    let part = ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part));
    let whole = catalogue.get(name).filter(|d| d.r#type != Type::Histogram);
    whole.or_else(|| catalogue.get(part?).filter(|d| d.r#type == Type::Histogram))
}

#[test]
fn grafana_can_show_the_dashboard() {
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut ids = BTreeSet::new();
    let mut taken = BTreeSet::new();
    for panel in panels {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: its id is another's, too");
        let place = |key: &str| panel["gridPos"][key].as_u64().unwrap_or_else(|| panic!("{title}: no {key}"));
        assert!(place("x") + place("w") <= 24, "{title} is wider than the screen");
        for y in place("y")..place("y") + place("h") {
            for x in place("x")..place("x") + place("w") {
                assert!(taken.insert((x, y)), "{title} lies over another panel");
            }
        }
        let targets = panel["targets"].as_array().into_iter().flatten();
        let names: Vec<_> = targets.map(|target| target["refId"].as_str().unwrap()).collect();
        assert_eq!(names.len(), names.iter().collect::<BTreeSet<_>>().len(), "{title}: queries of one name");
        assert!(panel["type"] == "row" || !names.is_empty(), "{title} asks for nothing");
        if panel["type"] != "row" {
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        }
    }
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let declared: BTreeSet<_> = variables.iter().map(|variable| variable["name"].as_str().unwrap()).collect();
    let used = Regex::new(r"\$\{?([a-z]+)\}?").unwrap();
    let text = dashboard.to_string();
    let used: BTreeSet<_> = used.captures_iter(&text).map(|found| found.get(1).unwrap().as_str()).collect();
    assert_eq!(used, declared);
    assert_eq!(dashboard["uid"], "afresh", "links to it last");
}

#[test]
fn the_kustomization_brings_all_that_is_for_the_cluster() {
    let kustomization = yaml(&monitoring("kustomization.yaml"));
    let dashboards = &kustomization["configMapGenerator"][0];
    assert_eq!(dashboards["files"], json!(["afresh.json=dashboard.json"]));
    assert_eq!(dashboards["options"]["labels"]["grafana_dashboard"], "1");
    let mut kinds = Vec::new();
    for file in kustomization["resources"].as_array().unwrap() {
        let object = yaml(&monitoring(file.as_str().unwrap()));
        assert_eq!(object["apiVersion"], "monitoring.coreos.com/v1");
        assert_eq!(object["metadata"]["namespace"], dashboards["namespace"]);
        kinds.push(object["kind"].as_str().unwrap().to_owned());
    }
    assert_eq!(kinds, ["PrometheusRule", "ServiceMonitor"]);
    let others = ["dashboard.json", "kustomization.yaml", "rules.yaml", "rules-test.yaml"];
    for entry in fs::read_dir(root().join("manifests/monitoring")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let listed = kustomization["resources"].as_array().unwrap().contains(&json!(name));
        assert!(listed || others.contains(&name.as_str()), "{name} is not in kustomization.yaml");
    }
}

#[test]
fn the_links_between_the_pages_lead_somewhere() {
    let link = Regex::new(r"\]\(([^)#:]+)?(?:#([a-z0-9-]+))?\)").unwrap();
    for page in ["docs/metrics.md", "docs/operations.md"] {
        let path = root().join(page);
        let content = text(&path);
        for link in link.captures_iter(&content) {
            let file = link.get(1).map_or(path.clone(), |file| path.parent().unwrap().join(file.as_str()));
            assert!(file.exists(), "{page}: there is no {}", file.display());
            if let Some(wanted) = link.get(2) {
                assert!(headings(&file).contains(wanted.as_str()), "{page}: no #{} there", wanted.as_str());
            }
        }
    }
}

fn headings(file: &Path) -> BTreeSet<String> {
    let content = text(file);
    let titles = content.lines().filter(|line| line.starts_with('#'));
    titles.map(|line| anchor(line.trim_start_matches(['#', ' ']))).collect()
}

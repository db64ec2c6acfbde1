//! From a broken push to whoever is paged, and back: with real Prometheus and Alertmanager.
//!
//! ```text
//!  push ──▶ daemon ◀── scrape ── Prometheus (our rules) ──▶ Alertmanager ──▶ receiver
//! ```

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tempfile::TempDir;

use crate::manifests::{dashboard, monitoring, queries, yaml};
use crate::scrape::{address, client};
use crate::servers::Server;
use crate::support::daemon::Runner;
use crate::support::env::Env;
use crate::support::manifests::config_map;
use crate::support::receiver::Receiver;
use crate::support::wait::eventually;

/// Prometheus and Alertmanager need seconds to start and to notice; a machine that compiles beside them needs more.
const NOTICED_WITHIN: Duration = Duration::from_secs(90);

/// What Alertmanager told its receiver so far: each alert, `firing` or `resolved`.
fn told(pager: &Receiver) -> Vec<Value> {
    let messages = pager.received();
    messages.iter().flat_map(|message| message.json()["alerts"].as_array().cloned().unwrap_or_default()).collect()
}

/// Waits for the receiver to be told that an alert has this status.
async fn is_told(pager: &Receiver, status: &str, alert: &str) -> Value {
    let found = eventually(NOTICED_WITHIN, async || {
        told(pager).into_iter().find(|told| told["status"] == status && told["labels"]["alertname"] == alert)
    });
    found.await.unwrap_or_else(|| panic!("{alert} {status}: nobody was told; told was {:#?}", told(pager)))
}

/// The rules with each `for:` shortened to one second. Expressions, labels and annotations stay as they are: what is
/// tested is what is shipped, and promtool's tests cover the durations.
fn hasty_rules(dir: &Path) -> PathBuf {
    let mut file = yaml(&monitoring("rules.yaml"));
    let groups = file["groups"].as_array_mut().expect("groups");
    for rule in groups.iter_mut().flat_map(|group| group["rules"].as_array_mut().expect("rules")) {
        if rule.get("for").is_some() {
            rule["for"] = "1s".into();
        }
    }
    let path = dir.join("rules.json");
    // every JSON document is YAML
    std::fs::write(&path, file.to_string()).expect("rules");
    path
}

/// A configuration as the operator would make it from our ServiceMonitor: with its relabelling, and with the labels of
/// the target that get in the way of those of the objects.
fn prometheus_config(dir: &Path, target: &str, alertmanager: &str) -> PathBuf {
    let monitor = yaml(&monitoring("service-monitor.yaml"));
    let endpoint = &monitor["spec"]["endpoints"][0];
    let relabelling: Vec<Value> = endpoint["metricRelabelings"]
        .as_array()
        .expect("relabelling")
        .iter()
        .map(|rule| {
            let rule = rule.as_object().expect("a rule").iter();
            Value::Object(rule.map(|(key, value)| (snake_case(key), value.clone())).collect::<Map<_, _>>())
        })
        .collect();
    let config = json!({
        "global": { "scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms" },
        "rule_files": [hasty_rules(dir)],
        "alerting": { "alertmanagers": [{ "static_configs": [{ "targets": [alertmanager] }] }] },
        "scrape_configs": [{
            "job_name": "afresh",
            "metrics_path": endpoint["path"],
            "honor_labels": endpoint["honorLabels"],
            "metric_relabel_configs": relabelling,
            "static_configs": [{ "targets": [target], "labels": { "namespace": "afresh-system", "pod": "afresh-0" } }],
        }],
    });
    let path = dir.join("prometheus.json");
    std::fs::write(&path, config.to_string()).expect("a configuration");
    path
}

fn snake_case(name: &str) -> String {
    name.chars().flat_map(|c| c.is_uppercase().then_some('_').into_iter().chain(c.to_lowercase())).collect()
}

/// The result of a query; empty while Prometheus does not answer.
async fn query(prometheus: &str, expr: &str) -> Vec<Value> {
    let url = reqwest::Url::parse_with_params(&format!("http://{prometheus}/api/v1/query"), [("query", expr)]);
    let Ok(answer) = client().get(url.expect("a URL")).send().await else { return Vec::new() };
    let answer: Value = answer.json().await.unwrap_or_default();
    answer["data"]["result"].as_array().cloned().unwrap_or_default()
}

/// The names of the alerts that are active in Alertmanager.
async fn active(alertmanager: &str) -> Vec<String> {
    let url = format!("http://{alertmanager}/api/v2/alerts?active=true");
    let answer: Value = client().get(url).send().await.expect("Alertmanager answers").json().await.expect("alerts");
    let alerts = answer.as_array().into_iter().flatten();
    alerts.filter_map(|alert| Some(alert["labels"]["alertname"].as_str()?.to_owned())).collect()
}

/// A daemon with one application that is live, and those who watch it.
struct Watched {
    env: Env,
    pager: Receiver,
    alertmanager: Server,
    prometheus: Server,
    /// Where these keep what they know.
    _dir: TempDir,
}

async fn watched(scenario: &str) -> Watched {
    let mut env = Env::on_sandbox(scenario).await;
    env.runner = Runner::Process;
    env.begin(&[("app/settings.yaml", &config_map("settings", "a"))]).await;
    let dir = tempfile::Builder::new().prefix("afresh-alerting-").tempdir().expect("a folder");
    let pager = Receiver::start(&env.canaries).await;
    let alertmanager = Server::alertmanager(dir.path(), &pager.url);
    let config = prometheus_config(dir.path(), &address(&env).await, &alertmanager.address);
    let prometheus = Server::prometheus(dir.path(), &config);
    Watched { env, pager, alertmanager, prometheus, _dir: dir }
}

/// What is behind the link of a page, on the daemon that this scenario has in place of the installed one; and where in it.
async fn followed(env: &Env, link: &str) -> (String, String) {
    let (address, section) = link.split_once('#').expect("a section");
    let path = address.strip_prefix("http://afresh.afresh-system.svc:8080").expect("the installed daemon");
    let (code, text) = env.daemon.as_ref().expect("a daemon").ask(path).await.expect("an answer");
    assert_eq!(code, 200, "{text}");
    (text, section.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs prometheus and alertmanager; .ci/run runs it"]
async fn a_broken_push_pages_someone_and_its_fix_resolves_the_page() {
    let Watched { env, pager, alertmanager, prometheus, .. } = &watched("alerting").await;
    // by these labels the rules, our dashboard and Flux's find the object
    let ours = format!("afresh_ready{{namespace=\"{}\",name=\"app\",exported_namespace=\"\"}} == 1", env.namespace);
    let of_flux = format!(
        "gotk_reconcile_condition{{exported_namespace=\"{}\",name=\"app\",namespace=\"afresh-system\",type=\"Ready\",status=\"True\"}} == 1",
        env.namespace
    );
    for expr in [&ours, &of_flux] {
        let seen = eventually(NOTICED_WITHIN, async || query(&prometheus.address, expr).await.pop());
        assert!(seen.await.is_some(), "Prometheus sees {expr}");
    }
    assert!(told(pager).is_empty(), "all is well: {:#?}", told(pager));

    let broken = env.push("B", &[("app/settings.yaml", "kind: ConfigMap\n  name: [")]);
    env.announce().await;
    env.failed_at("app", &broken, "app/settings.yaml").await;
    let page = is_told(pager, "firing", "AfreshReconcileFailing").await;
    assert_eq!(page["labels"]["namespace"], env.namespace.as_str());
    assert_eq!(page["labels"]["kind"], "Kustomization");
    assert_eq!(page["labels"]["name"], "app");
    assert_eq!(page["labels"]["severity"], "critical");
    let (runbook, section) = followed(env, page["annotations"]["runbook_url"].as_str().unwrap()).await;
    assert!(runbook.contains(&format!("<h2 id=\"{section}\">AfreshReconcileFailing</h2>")), "{runbook}");
    assert_eq!(active(&alertmanager.address).await, ["AfreshReconcileFailing"]);

    let fix = env.push("C", &[("app/settings.yaml", &config_map("settings", "c"))]);
    env.ready_at("app", &fix).await;
    is_told(pager, "resolved", "AfreshReconcileFailing").await;
    let settled = eventually(NOTICED_WITHIN, async || active(&alertmanager.address).await.is_empty().then_some(()));
    assert!(settled.await.is_some(), "nothing is left: {:?}", active(&alertmanager.address).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs prometheus and alertmanager; .ci/run runs it"]
async fn a_daemon_that_is_gone_pages_someone() {
    let mut all = watched("nobody_leads").await;
    let leads = eventually(NOTICED_WITHIN, async || query(&all.prometheus.address, "afresh_leader == 1").await.pop());
    assert!(leads.await.is_some(), "it leads");

    all.env.daemon.take().expect("the daemon runs").kill().await.expect("it is killed");
    let page = is_told(&all.pager, "firing", "AfreshNoLeader").await;
    assert_eq!(page["labels"]["severity"], "critical");
}

/// promtool knows PromQL; a query is to it what a recording rule is.
#[test]
#[ignore = "needs prometheus and alertmanager; .ci/run runs it"]
fn prometheus_understands_each_query_of_the_dashboard() {
    let dir = tempfile::tempdir().unwrap();
    let queries = queries(&dashboard());
    let rules: Vec<_> =
        (0..).zip(&queries).map(|(n, (_, expr))| json!({"record": format!("q{n}"), "expr": expr})).collect();
    let path = dir.path().join("queries.json");
    std::fs::write(&path, json!({"groups": [{"name": "dashboard", "rules": rules}]}).to_string()).unwrap();
    let checked = Command::new("promtool").args(["check", "rules"]).arg(&path).output().expect("promtool runs");
    let said = String::from_utf8_lossy(&checked.stdout).into_owned() + &String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success(), "{said}\n{queries:#?}");
    assert!(said.contains(&format!("{} rules found", queries.len())), "{said}");
}

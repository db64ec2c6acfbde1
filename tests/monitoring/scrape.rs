//! What the daemon exposes while things happen.

use std::collections::BTreeMap;

use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use crate::support::env::{Env, PATIENCE, SOURCE};
use crate::support::manifests::config_map;
use crate::support::scenarios;
use crate::support::wait::eventually;

scenarios! {
    a_broken_push_shows_in_the_metrics_until_its_fix,
    the_series_of_what_is_deleted_are_gone_counters_included,
    a_failure_outlasts_a_restart_of_the_daemon,
    what_waits_for_a_dependency_is_behind_but_has_not_failed,
    what_is_put_back_is_counted,
}

/// Where the daemon serves its metrics, by its log.
pub async fn address(env: &Env) -> String {
    let daemon = env.daemon.as_ref().expect("the daemon runs");
    let found = eventually(PATIENCE, async || {
        daemon.log().iter().find_map(|line| {
            let entry: serde_json::Value = serde_json::from_str(line).ok()?;
            let serving = entry["message"].as_str()?.starts_with("serving /metrics");
            serving.then(|| entry["address"].as_str().map(str::to_owned)).flatten()
        })
    });
    found.await.unwrap_or_else(|| panic!("no address in the log:\n{}", daemon.log_tail()))
}

pub fn client() -> reqwest::Client {
    // A proxy from the environment cannot reach our loopback address.
    reqwest::Client::builder().no_proxy().build().expect("a client")
}

/// One scrape: each series with its value.
async fn scrape(address: &str) -> BTreeMap<String, f64> {
    let answer = client().get(format!("http://{address}/metrics")).send().await.expect("the metrics are served");
    assert_eq!(answer.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let text = answer.text().await.expect("an exposition");
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("not a sample: `{line}`"));
            (series.to_owned(), value.parse().unwrap_or_else(|_| panic!("not a number: `{line}`")))
        })
        .collect()
}

/// Scrapes until `done`; gives the last.
async fn scrape_until(
    address: &str,
    what: &str,
    done: impl Fn(&BTreeMap<String, f64>) -> bool,
) -> BTreeMap<String, f64> {
    let mut last = BTreeMap::new();
    let found = eventually(PATIENCE, async || {
        last = scrape(address).await;
        done(&last).then_some(())
    });
    if found.await.is_none() {
        panic!("not within {PATIENCE:?}: {what}\n{last:#?}");
    }
    last
}

async fn a_broken_push_shows_in_the_metrics_until_its_fix(env: &mut Env) {
    env.begin(&[("app/settings.yaml", &config_map("settings", "a"))]).await;
    let address = address(env).await;
    let app = |metric: &str| format!("{metric}{{namespace=\"{}\",name=\"app\"}}", env.namespace);
    let object = |metric: &str, kind: &str, name: &str| {
        format!("{metric}{{kind=\"{kind}\",namespace=\"{}\",name=\"{name}\"}}", env.namespace)
    };
    let of_app = |metric: &str| object(metric, "Kustomization", "app");
    let lag = app("afresh_commit_lag_seconds");

    let settled = scrape_until(&address, "ready and up to date", |s| s[&of_app("afresh_ready")] == 1.0).await;
    assert_eq!(settled[&lag], 0.0);
    assert_eq!(settled[&of_app("afresh_consecutive_failures")], 0.0);
    assert_eq!(settled[&object("afresh_ready", "GitRepository", SOURCE)], 1.0);
    assert_eq!(settled[&app("afresh_drift_corrections_total")], 0.0);
    let received = format!("afresh_source_received_bytes_total{{namespace=\"{}\",name=\"{SOURCE}\"}}", env.namespace);
    assert!(settled[&received] > 0.0, "a fetch costs bytes");
    assert_eq!(settled["afresh_leader"], 1.0);

    let broken = env.push("B", &[("app/settings.yaml", "kind: ConfigMap\n  name: [")]);
    env.announce().await;
    env.failed_at("app", &broken, "app/settings.yaml").await;
    let failing = scrape_until(&address, "it fails again and again", |s| {
        s[&of_app("afresh_consecutive_failures")] >= 2.0 && s[&lag] >= 1.0
    })
    .await;
    assert_eq!(failing[&of_app("afresh_ready")], 0.0);
    assert_eq!(failing[&object("afresh_ready", "GitRepository", SOURCE)], 1.0, "the source is well");
    scrape_until(&address, "the lag grows while nothing moves", |s| s[&lag] > failing[&lag]).await;
    let reason = format!(
        "afresh_failures_total{{kind=\"Kustomization\",namespace=\"{}\",name=\"app\",reason=\"BuildFailed\"}}",
        env.namespace
    );
    assert!(failing[&reason] >= 2.0);

    let fix = env.push("C", &[("app/settings.yaml", &config_map("settings", "c"))]);
    env.ready_at("app", &fix).await;
    let repaired = scrape_until(&address, "it is up to date again", |s| s[&lag] == 0.0).await;
    assert_eq!(repaired[&of_app("afresh_consecutive_failures")], 0.0);
    assert_eq!(repaired[&of_app("afresh_ready")], 1.0);
    assert_eq!(repaired[&of_app("afresh_time_to_recovery_seconds_count")], 1.0);
    assert!(repaired[&of_app("afresh_time_to_recovery_seconds_sum")] >= 1.0);
}

async fn the_series_of_what_is_deleted_are_gone_counters_included(env: &mut Env) {
    env.begin(&[("app/settings.yaml", &config_map("settings", "a"))]).await;
    let address = address(env).await;
    let ours = |samples: &BTreeMap<String, f64>, name: &str| {
        let (namespace, name) = (format!("namespace=\"{}\"", env.namespace), format!("name=\"{name}\""));
        samples.keys().filter(|series| series.contains(&namespace) && series.contains(&name)).count()
    };
    let before = scrape(&address).await;
    assert!(ours(&before, "app") > 10 && ours(&before, SOURCE) > 5, "{before:#?}");

    env.kustomizations().delete("app", &DeleteParams::default()).await.expect("it is deleted");
    let after = scrape_until(&address, "nothing of the application is left", |s| ours(s, "app") == 0).await;
    assert!(ours(&after, SOURCE) > 5, "the source is still there");
    env.sources().delete(SOURCE, &DeleteParams::default()).await.expect("it is deleted");
    scrape_until(&address, "nothing of the source is left", |s| ours(s, SOURCE) == 0).await;

    env.source(|_| {}).await;
    env.kustomization("app", |_| {}).await;
    scrape_until(&address, "they come again", |s| ours(s, "app") > 10 && ours(s, SOURCE) > 5).await;
}

async fn a_failure_outlasts_a_restart_of_the_daemon(env: &mut Env) {
    env.begin(&[("app/settings.yaml", &config_map("settings", "a"))]).await;
    let broken = env.push("B", &[("app/settings.yaml", "kind: ConfigMap\n  name: [")]);
    env.announce().await;
    env.failed_at("app", &broken, "app/settings.yaml").await;
    env.daemon.take().expect("the daemon runs").stop().await.expect("it stops");

    env.start();
    let address = address(env).await;
    let failures =
        format!("afresh_consecutive_failures{{kind=\"Kustomization\",namespace=\"{}\",name=\"app\"}}", env.namespace);
    let seen = scrape_until(&address, "the application is served", |s| s.contains_key(&failures)).await;
    assert!(seen[&failures] >= 1.0, "from the first scrape on: an alert does not resolve by a restart");
}

async fn what_waits_for_a_dependency_is_behind_but_has_not_failed(env: &mut Env) {
    let files = |value: &str| {
        [("db/settings.yaml", config_map("db", value)), ("app/settings.yaml", config_map("settings", value))]
    };
    let push = |env: &Env, message: &str, files: [(&str, String); 2]| {
        env.push(message, &files.each_ref().map(|(path, text)| (*path, text.as_str())))
    };
    let first = push(env, "A", files("a"));
    env.source(|_| {}).await;
    env.kustomization("db", |_| {}).await;
    env.kustomization("app", |spec| spec["dependsOn"] = json!([{ "name": "db" }])).await;
    env.start();
    env.ready_at("app", &first).await;
    let address = address(env).await;
    let of = |metric: &str, name: &str| format!("{metric}{{namespace=\"{}\",name=\"{name}\"}}", env.namespace);
    let failures = |name: &str| {
        let labels = format!("kind=\"Kustomization\",namespace=\"{}\",name=\"{name}\"", env.namespace);
        format!("afresh_consecutive_failures{{{labels}}}")
    };

    let mut broken = files("b");
    broken[0].1 = "kind: ConfigMap\n  name: [".into();
    push(env, "B", broken);
    env.announce().await;
    let waiting = scrape_until(&address, "the dependent waits", |s| {
        s[&of("afresh_dependency_wait_seconds", "app")] > 0.0 && s[&failures("db")] > 0.0
    })
    .await;
    assert_eq!(waiting[&failures("app")], 0.0, "one broken application is one alert");
    assert!(waiting[&of("afresh_commit_lag_seconds", "app")] > 0.0);
    assert!(waiting[&of("afresh_attempt_in_progress_seconds", "app")] > 0.0);

    let fix = push(env, "C", files("c"));
    env.ready_at("app", &fix).await;
    scrape_until(&address, "nothing waits", |s| {
        ["afresh_dependency_wait_seconds", "afresh_commit_lag_seconds", "afresh_attempt_in_progress_seconds"]
            .iter()
            .all(|metric| s[&of(metric, "app")] == 0.0)
    })
    .await;
}

async fn what_is_put_back_is_counted(env: &mut Env) {
    env.begin(&[("app/settings.yaml", &config_map("settings", "a"))]).await;
    let address = address(env).await;
    let of_app = |metric: &str, more: &str| format!("{metric}{{namespace=\"{}\",name=\"app\"{more}}}", env.namespace);
    let (drift, created) =
        (of_app("afresh_drift_corrections_total", ""), of_app("afresh_objects_total", ",action=\"created\""));
    let before = scrape(&address).await;
    assert_eq!((before[&drift], before[&created]), (0.0, 1.0));

    let by_hand = Patch::Merge(json!({ "data": { "value": "by hand" } }));
    let person = PatchParams { field_manager: Some("kubectl-edit".into()), ..PatchParams::default() };
    env.objects("ConfigMap").patch("settings", &person, &by_hand).await.expect("it is changed");
    scrape_until(&address, "it is put back", |s| s[&drift] == 1.0).await;
}

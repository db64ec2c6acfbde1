//! What `/metrics` says of what was done, of each object as long as it is there. More of it is in tests/monitoring, with a
//! real Prometheus behind.

use kube::api::DeleteParams;
use serde_json::json;

use crate::support::env::{Env, SOURCE};
use crate::support::manifests::config_map;
use crate::support::scenarios;

scenarios! {
    looks_fetches_dry_runs_and_suspension_are_measured,
    a_notification_that_nobody_takes_is_counted_as_dropped,
}

/// Until a series has at least this value.
async fn at_least(env: &Env, name: &str, labels: &[(&str, &str)], least: f64) {
    env.eventually(&format!("{name} {labels:?} is at least {least}"), async || {
        env.measured(name, labels).await.is_some_and(|value| value >= least).then_some(())
    })
    .await;
}

async fn looks_fetches_dry_runs_and_suspension_are_measured(env: &mut Env) {
    env.begin(&[("app/x.yaml", &config_map("x", "a")), ("app/y.yaml", &config_map("y", "a"))]).await;
    let of_source = [("namespace", env.namespace.clone()), ("name", SOURCE.to_owned())];
    let of_source: Vec<_> = of_source.iter().map(|(label, value)| (*label, value.as_str())).collect();
    let ok: Vec<_> = of_source.iter().copied().chain([("result", "ok")]).collect();
    for name in ["afresh_source_probes_total", "afresh_source_fetches_total"] {
        at_least(env, name, &ok, 1.0).await;
    }
    at_least(env, "afresh_source_received_bytes_total", &of_source, 100.0).await;
    at_least(env, "afresh_dry_runs_total", &[("result", "accepted")], 2.0).await;
    for stage in ["probe", "fetch", "render", "apply"] {
        at_least(env, "afresh_stage_duration_seconds_count", &[("stage", stage)], 1.0).await;
    }
    at_least(env, "afresh_api_requests_total", &[("verb", "apply"), ("code", "201")], 2.0).await;
    at_least(env, "afresh_api_request_duration_seconds_count", &[("verb", "apply")], 2.0).await;
    assert_eq!(env.measured("afresh_build_info", &[("version", env!("CARGO_PKG_VERSION"))]).await, Some(1.0));

    // as dashboards for Flux's controllers ask for it
    let app = [("kind", "Kustomization"), ("name", "app")];
    let ready = [("type", "Ready"), ("status", "True"), app[0], app[1]];
    at_least(env, "gotk_reconcile_duration_seconds_count", &app, 1.0).await;
    assert_eq!(env.measured("gotk_reconcile_condition", &ready).await, Some(1.0));
    assert_eq!(env.measured("gotk_suspend_status", &app).await, Some(0.0));
    env.kustomization("app", |spec| spec["suspend"] = json!(true)).await;
    at_least(env, "gotk_suspend_status", &app, 1.0).await;
    at_least(env, "afresh_suspended", &app, 1.0).await;

    env.sources().delete(SOURCE, &DeleteParams::default()).await.expect("it is deleted");
    env.kustomizations().delete("app", &DeleteParams::default()).await.expect("it is deleted");
    for name in ["afresh_source_probes_total", "afresh_source_fetches_total", "afresh_source_received_bytes_total"] {
        env.eventually(&format!("{name} ends with the source"), async || {
            env.measured(name, &of_source).await.is_none().then_some(())
        })
        .await;
    }
    for name in ["gotk_reconcile_duration_seconds_count", "gotk_reconcile_condition", "gotk_suspend_status"] {
        env.eventually(&format!("{name} ends with the application"), async || {
            env.measured(name, &app).await.is_none().then_some(())
        })
        .await;
    }
}

async fn a_notification_that_nobody_takes_is_counted_as_dropped(env: &mut Env) {
    env.alert("all", "missing", |spec| spec["eventSeverity"] = json!("error")).await;
    env.begin(&[("app/settings.yaml", &config_map("settings", "a"))]).await;
    env.until_served("Alert", "all", Some(true)).await;
    assert_eq!(env.measured("afresh_notifications_dropped_total", &[]).await, Some(0.0));
    let broken = env.push("B", &[("app/settings.yaml", "[")]);
    env.announce().await;
    env.failed_at("app", &broken, "app/settings.yaml").await;
    at_least(env, "afresh_notifications_dropped_total", &[], 1.0).await;
}

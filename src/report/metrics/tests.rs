use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::*;
use crate::api::{Conditions, READY, Truth, rfc3339};

fn app(metrics: &Metrics) -> ApplicationMetrics {
    metrics.application(&Key::new("flux-system", "shop"))
}

fn source(metrics: &Metrics) -> SourceMetrics {
    metrics.source(&platform())
}

fn platform() -> Key {
    Key::new("flux-system", "platform")
}

/// Everything that can be measured, once.
fn everything(metrics: &Metrics) -> (ApplicationMetrics, SourceMetrics, ObjectMetrics) {
    let (app, source, other) = (app(metrics), source(metrics), metrics.object("Provider", &Key::new("a", "b")));
    source.probed("ok");
    source.fetched("failed");
    source.received(100);
    source.error("auth");
    source.took(Duration::from_secs(1));
    source.failed("GitOperationFailed");
    source.head("r1");
    source.succeeded();
    source.ready(Some(true));
    app.follows(&platform());
    drop(app.attempt());
    drop(app.dependency_wait());
    app.failed("BuildFailed");
    app.attempt_ended("failed");
    app.objects("created", 2);
    app.drift_corrected(1);
    app.rolled(1);
    app.configuration(true, HeldUp { missing: 1, unreadable: 1, recreated: 1, loops: 1 });
    app.applied("r1");
    app.ready(Some(false));
    app.suspended(false);
    other.ready(None);
    other.notification("sent");
    metrics.stage(Stage::Apply, Duration::from_secs(1));
    metrics.request("dry-run", 422, Duration::from_millis(3));
    metrics.delivery("github", Delivery::Accepted);
    metrics.watch("configmaps", "", Some("current"));
    metrics.shard(0, true);
    (app, source, other)
}

/// Name, type and label names of what an exposition holds samples of.
fn families(text: &str) -> BTreeMap<String, (String, BTreeSet<String>)> {
    let mut families = BTreeMap::new();
    let mut current = (String::new(), String::new());
    for line in text.lines().filter(|line| !line.starts_with("# HELP")) {
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            let (name, kind) = declared.split_once(' ').unwrap();
            current = (name.to_owned(), kind.to_owned());
            continue;
        }
        let (name, rest) = line.split_once(['{', ' ']).unwrap();
        assert!(name.starts_with(&current.0), "`{line}` stands under {}", current.0);
        let labels = rest.rsplit_once('}').map_or("", |(labels, _)| labels);
        let names = labels.split(',').filter_map(|pair| Some(pair.split_once('=')?.0.to_owned()));
        families
            .entry(current.0.clone())
            .or_insert_with(|| (current.1.clone(), BTreeSet::new()))
            .1
            .extend(names.filter(|name| name != "le"));
    }
    families
}

#[test]
fn what_is_exposed_is_what_the_catalogue_says() {
    let metrics = Metrics::new();
    let _held = everything(&metrics);
    let exposed = families(&metrics.text());
    let catalogue: BTreeMap<_, _> = Metrics::catalogue()
        .map(|d| {
            (d.name.to_owned(), (d.r#type.as_str().to_owned(), d.labels.iter().map(ToString::to_string).collect()))
        })
        .collect();
    assert_eq!(exposed, catalogue);
}

#[test]
fn all_series_of_an_object_end_with_it_counters_included() {
    let metrics = Metrics::new();
    let held = everything(&metrics);
    assert!(metrics.text().contains("shop"));
    drop(held);
    let text = metrics.text();
    assert!(!["shop", "platform", "Provider"].iter().any(|name| text.contains(name)), "{text}");
}

#[test]
fn an_object_that_came_again_keeps_its_series_when_its_former_worker_ends() {
    let metrics = Metrics::new();
    let former = app(&metrics);
    let present = app(&metrics);
    present.attempt_ended("applied");
    drop(former);
    assert_eq!(value(&metrics, "afresh_attempts_total{"), 1.0);
}

/// The value of the first sample that begins so.
fn value(metrics: &Metrics, start: &str) -> f64 {
    value_at(metrics, start, Instant::now())
}

fn value_at(metrics: &Metrics, start: &str, now: Instant) -> f64 {
    let text = metrics.text_at(now);
    let line = text.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("no {start} in\n{text}"));
    line.rsplit_once(' ').unwrap().1.parse().unwrap()
}

#[test]
fn the_commit_lag_runs_from_the_first_revision_seen_that_is_not_applied_until_the_newest_is() {
    let metrics = Metrics::new();
    let (app, source) = (app(&metrics), source(&metrics));
    let minute = Duration::from_secs(60);
    let lag = |later: Duration| value_at(&metrics, "afresh_commit_lag_seconds{", Instant::now() + later);
    app.was_applied("r1");
    app.follows(&platform());
    assert_eq!(lag(minute), 0.0, "nothing is visible");
    source.head("r1");
    assert_eq!(lag(minute), 0.0, "the newest is applied");
    source.head("r2");
    let first = lag(minute);
    assert!(first >= 60.0, "{first}");
    source.head("r3");
    assert!(lag(minute) >= first, "a further commit does not start it over");
    app.suspended(true);
    assert_eq!(lag(minute), 0.0, "nobody waits for what is suspended");
    app.suspended(false);
    app.applied("r2");
    assert!(lag(minute) >= 60.0, "the newest is r3");
    app.applied("r3");
    assert_eq!(lag(minute), 0.0);
    assert_eq!(value(&metrics, "afresh_commit_live_seconds_count"), 2.0);
    source.head("r4");
    source.head("r3");
    assert_eq!(lag(minute), 0.0, "a push that takes the commit back is no lag");
}

#[test]
fn an_application_that_comes_later_is_behind_what_was_visible_before() {
    let metrics = Metrics::new();
    let source = source(&metrics);
    source.head("r1");
    let app = app(&metrics);
    app.follows(&platform());
    assert!(value_at(&metrics, "afresh_commit_lag_seconds{", Instant::now() + Duration::from_secs(60)) >= 60.0);
}

#[test]
fn recovery_is_measured_from_the_first_failure_also_across_a_restart() {
    let metrics = Metrics::new();
    let app = app(&metrics);
    let mut conditions = Conditions::default();
    let hour_ago = k8s_openapi::jiff::Timestamp::now() - k8s_openapi::jiff::SignedDuration::from_hours(1);
    conditions.set(READY, Truth::False, "BuildFailed", "broken", Some(1), hour_ago);
    let ready = conditions.get(READY).unwrap();
    assert_eq!(ready.last_transition_time, rfc3339(hour_ago));
    app.recall(ready, true);
    assert_eq!(value(&metrics, "afresh_consecutive_failures{"), 1.0, "an alert goes on over a restart");
    app.failed("BuildFailed");
    assert_eq!(value(&metrics, "afresh_consecutive_failures{"), 2.0);
    app.applied("r2");
    assert_eq!(value(&metrics, "afresh_consecutive_failures{"), 0.0);
    assert_eq!(value(&metrics, "afresh_time_to_recovery_seconds_count{"), 1.0);
    let took = value(&metrics, "afresh_time_to_recovery_seconds_sum{");
    assert!((3599.0..3660.0).contains(&took), "{took}");
}

#[test]
fn an_attempt_is_in_progress_until_it_is_dropped_however_it_ends() {
    let metrics = Metrics::new();
    let app = app(&metrics);
    let attempt = app.attempt();
    let waiting = app.dependency_wait();
    let later = Instant::now() + Duration::from_secs(60);
    assert!(value_at(&metrics, "afresh_attempt_in_progress_seconds{", later) >= 60.0);
    assert!(value_at(&metrics, "afresh_dependency_wait_seconds{", later) >= 60.0);
    drop((attempt, waiting));
    assert_eq!(value_at(&metrics, "afresh_attempt_in_progress_seconds{", later), 0.0);
    assert_eq!(value_at(&metrics, "afresh_dependency_wait_seconds{", later), 0.0);
    assert_eq!(value(&metrics, "gotk_reconcile_duration_seconds_count{"), 1.0);
}

#[test]
fn a_thousand_applications_are_scraped_quickly_and_in_a_bounded_number_of_series() {
    let metrics = Metrics::new();
    let source = source(&metrics);
    let apps: Vec<_> = (0..1000).map(|n| metrics.application(&Key::new("flux-system", format!("app-{n}")))).collect();
    for app in &apps {
        app.follows(&platform());
        app.ready(Some(true));
        app.failed("HealthCheckFailed");
        app.attempt_ended("failed");
        app.attempt_ended("applied");
        app.objects("created", 1);
        drop(app.attempt());
        app.applied("r1");
    }
    source.head("r2");
    let started = Instant::now();
    let text = metrics.text();
    let took = started.elapsed();
    let series = text.lines().filter(|line| !line.starts_with('#')).count();
    // each application has failed and recovered once here, which is the dear case
    assert!(series < 42 * apps.len(), "{series} series");
    // a debug build on a busy machine; a release build takes some 10 ms
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[test]
fn a_watch_has_one_state_at_a_time_and_none_when_it_is_over() {
    let metrics = Metrics::new();
    let states = || {
        let text = metrics.text();
        let lines = text.lines().filter(|line| line.starts_with("afresh_watches{"));
        lines
            .map(|line| line.split("state=\"").nth(1).unwrap().split('"').next().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    for state in ["starting", "current", "lost", "forbidden", "current"] {
        metrics.watch("configmaps", "", Some(state));
        assert_eq!(states(), [state]);
    }
    metrics.watch("configmaps", "", None);
    assert!(states().is_empty());
}

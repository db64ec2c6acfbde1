//! An API server that answers slowly, or that it can't answer now.

use std::time::Duration;

use hyper::Method;

use super::{begin_with_another, through_a_gateway};
use crate::support::env::{Env, message, truth};
use crate::support::gateway::Fault;
use crate::support::manifests::{config_map, deployment};
use crate::support::scenarios;

scenarios! {
    an_api_server_that_takes_two_seconds_for_each_request_is_only_slower,
    an_api_server_that_fails_for_a_while_is_a_condition_and_then_nothing,
    an_api_server_that_says_too_many_requests_gets_fewer_at_a_time,
    no_more_requests_are_under_way_than_allowed,
    requests_that_hang_hold_back_nothing_else,
}

async fn an_api_server_that_takes_two_seconds_for_each_request_is_only_slower(env: &mut Env) {
    let gateway = through_a_gateway(env).await;
    env.begin(&[("app/settings.yaml", &config_map("settings", "a")), ("app/web.yaml", &deployment("web", "web:1"))])
        .await;
    gateway.set(Fault::Slow(Duration::from_secs(2)), |_, _| true);
    let b = env.push("B", &[("app/settings.yaml", &config_map("settings", "b"))]);
    env.announce().await;
    env.ready_at("app", &b).await;
    assert!(gateway.applied() > 2);
    assert_eq!(env.live("ConfigMap", "settings").await.unwrap()["data"]["value"], "b");

    // and it starts on such a one
    env.daemon.take().unwrap().stop().await.unwrap();
    let c = env.push("C", &[("app/settings.yaml", &config_map("settings", "c"))]);
    env.start();
    env.ready_at("app", &c).await;
    assert_eq!(env.live("ConfigMap", "settings").await.unwrap()["data"]["value"], "c");
}

async fn an_api_server_that_fails_for_a_while_is_a_condition_and_then_nothing(env: &mut Env) {
    let gateway = through_a_gateway(env).await;
    let files = |value: &str| {
        [("app/settings.yaml", config_map("settings", value)), ("other/other.yaml", config_map("other", value))]
    };
    let push =
        |env: &Env, value: &str| env.push(value, &files(value).each_ref().map(|(path, text)| (*path, text.as_str())));
    let a = push(env, "a");
    begin_with_another(env, &a, |_| {}).await;
    for code in [429, 500, 503] {
        gateway.set(Fault::Answer(code), |method, target| {
            method == Method::PATCH && target.contains("/configmaps/settings")
        });
        let revision = push(env, &format!("v{code}"));
        env.announce().await;
        env.ready_at("other", &revision).await;
        let failed = env.failed_at("app", &revision, "").await;
        let said = message(&failed);
        assert!(said.contains("settings") && said.contains(&format!("answers {code}")), "{said}");
        gateway.clear();
        env.ready_at("app", &revision).await;
        assert_eq!(env.live("ConfigMap", "settings").await.unwrap()["data"]["value"], format!("v{code}"));
    }
}

async fn an_api_server_that_says_too_many_requests_gets_fewer_at_a_time(env: &mut Env) {
    env.arguments.extend(["--api-concurrency", "16"].map(String::from));
    let gateway = through_a_gateway(env).await;
    env.begin(&[("app/settings.yaml", &config_map("settings", "a"))]).await;
    let limit = "afresh_api_concurrency_limit";
    assert_eq!(env.measured(limit, &[]).await, Some(16.0));

    gateway.times(3, Fault::Answer(429), |method, target| method == Method::PATCH && target.contains("/configmaps/"));
    let maps: Vec<_> = (0..40).map(|n| (format!("app/{n}.yaml"), config_map(&format!("map-{n}"), "b"))).collect();
    let maps: Vec<_> = maps.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    let b = env.push("B", &maps);
    env.announce().await;
    env.ready_at("app", &b).await;
    // three complaints at most, and what they left is never below the floor
    let left = env.measured(limit, &[]).await.expect("a limit");
    assert!((4.0..16.0).contains(&left), "{left}");
    assert_eq!(gateway.applied(), 3);
}

async fn no_more_requests_are_under_way_than_allowed(env: &mut Env) {
    env.arguments.extend(["--api-concurrency", "3"].map(String::from));
    let gateway = through_a_gateway(env).await;
    gateway.set(Fault::Slow(Duration::from_millis(50)), |_, _| true);
    let maps: Vec<_> = (0..40).map(|n| (format!("app/{n}.yaml"), config_map(&format!("map-{n}"), "a"))).collect();
    env.begin(&maps.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect::<Vec<_>>()).await;
    // one that was given up may still be on the server's side of the wire
    assert!((3..=4).contains(&gateway.peak()), "{}", gateway.peak());
}

async fn requests_that_hang_hold_back_nothing_else(env: &mut Env) {
    env.arguments.extend(["--api-concurrency", "4"].map(String::from));
    let gateway = through_a_gateway(env).await;
    let files = |value: &str| {
        let many = (0..8).map(|n| (format!("app/{n}.yaml"), config_map(&format!("hanging-{n}"), value)));
        many.chain([("other/other.yaml".to_owned(), config_map("other", value))]).collect::<Vec<_>>()
    };
    let push = |env: &Env, value: &str| {
        let files = files(value);
        env.push(value, &files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect::<Vec<_>>())
    };
    let a = push(env, "a");
    begin_with_another(env, &a, |_| {}).await;

    gateway.set(Fault::Hang, |method, target| method == Method::PATCH && target.contains("/hanging-"));
    let b = push(env, "b");
    env.announce().await;
    env.ready_at("other", &b).await;
    let app = env.kustomizations().get("app").await.unwrap();
    assert_ne!(app.status.as_ref().unwrap().last_applied_revision.as_deref(), Some(&*b), "{:?}", truth(&app));
    gateway.clear();
    // the requests that hang end by their deadline
    env.failed_at("app", &b, "no answer from the API server within 30 s").await;
    env.ready_at("app", &b).await;
}

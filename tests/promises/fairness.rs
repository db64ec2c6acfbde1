//! Promise 1, in a crowd: a fix lands as fast as alone, whatever all the others are doing.

use std::time::{Duration, Instant};

use hyper::Method;
use serde_json::json;

use crate::support::env::{Env, is_ready_at, truth};
use crate::support::gateway::{Fault, Gateway};
use crate::support::manifests::{config_map, deployment_behaving, waits_ten_minutes};
use crate::support::scenarios;

scenarios! {
    a_fix_lands_while_fifty_others_are_stuck_in_their_health_waits,
    a_fix_lands_while_fifty_others_roll_out,
}

/// Applications that are in the way.
const OTHERS: usize = 50;
/// What a fix takes alone is about a second; a machine that compiles beside the test gets more.
const SOON: Duration = Duration::from_secs(15);

fn other(number: usize) -> String {
    format!("other-{number:02}")
}

fn push(env: &Env, message: &str, files: &[(String, String)]) -> String {
    env.push(message, &files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect::<Vec<_>>())
}

fn settings(text: String) -> (String, String) {
    ("app/settings.yaml".to_owned(), text)
}

async fn a_fix_lands_while_fifty_others_are_stuck_in_their_health_waits(env: &mut Env) {
    let stuck = |number: usize| {
        let name = other(number);
        (format!("{name}/web.yaml"), deployment_behaving(&name, "web:1", "never"))
    };
    let mut files: Vec<_> = (0..OTHERS).map(stuck).collect();
    files.push(settings(config_map("settings", "a")));
    let a = push(env, "A", &files);
    env.source(|_| {}).await;
    for number in 0..OTHERS {
        env.kustomization(&other(number), waits_ten_minutes).await;
    }
    env.kustomization("app", |_| {}).await;
    env.start();
    env.ready_at("app", &a).await;
    for number in 0..OTHERS {
        env.until(&other(number), "it waits for its health", |found| {
            crate::support::env::message(found).contains("to be healthy")
        })
        .await;
    }

    let broken = push(env, "B", &[settings("[".to_owned())]);
    env.announce().await;
    env.failed_at("app", &broken, "app/settings.yaml").await;
    let pushed = Instant::now();
    let fix = push(env, "C", &[settings(config_map("settings", "c"))]);
    env.announce().await;
    env.ready_at("app", &fix).await;
    assert!(pushed.elapsed() < SOON, "{:?}", pushed.elapsed());
    assert_eq!(env.live("ConfigMap", "settings").await.unwrap()["data"]["value"], "c");
    for number in 0..OTHERS {
        let found = env.kustomizations().get(&other(number)).await.unwrap();
        assert_eq!(truth(&found), Some(afresh::api::Truth::Unknown), "it still waits: {:#}", json!(found.status));
    }
}

async fn a_fix_lands_while_fifty_others_roll_out(env: &mut Env) {
    let gateway = Gateway::before(env.kubeconfig(), env.folder()).await;
    env.use_kubeconfig(gateway.kubeconfig());
    let others = |value: &'static str| {
        let files = move |number: usize| {
            let name = other(number);
            (0..4).map(move |n| (format!("{name}/{n}.yaml"), config_map(&format!("{name}-{n}"), value)))
        };
        (0..OTHERS).flat_map(files)
    };
    let a = push(env, "A", &others("a").chain([settings(config_map("settings", "a"))]).collect::<Vec<_>>());
    env.source(|_| {}).await;
    for number in 0..OTHERS {
        env.kustomization(&other(number), |_| {}).await;
    }
    env.kustomization("app", |_| {}).await;
    env.start();
    env.ready_at("app", &a).await;
    for number in 0..OTHERS {
        env.ready_at(&other(number), &a).await;
    }

    // all of them take a while, and one is broken
    gateway.set(Fault::Slow(Duration::from_secs(1)), |method, target| {
        method == Method::PATCH && target.contains("/configmaps/other-")
    });
    let broken = push(env, "B", &others("b").chain([settings("[".to_owned())]).collect::<Vec<_>>());
    env.announce().await;
    env.failed_at("app", &broken, "app/settings.yaml").await;
    env.eventually("the others roll out", async || (gateway.applied() > 0).then_some(())).await;
    let pushed = Instant::now();
    let fix = push(env, "C", &[settings(config_map("settings", "c"))]);
    env.announce().await;
    env.ready_at("app", &fix).await;
    let took = pushed.elapsed();
    let states = env.kustomizations().list(&Default::default()).await.unwrap();
    let done = states.iter().filter(|found| is_ready_at(found, &fix) || is_ready_at(found, &broken)).count();
    assert!(took < SOON && done <= OTHERS / 2, "{took:?}, and {done} others were done before");
    gateway.clear();
    for number in 0..OTHERS {
        env.ready_at(&other(number), &fix).await;
        let live = env.live("ConfigMap", &format!("{}-3", other(number))).await.unwrap();
        assert_eq!(live["data"]["value"], "b");
    }
}

//! Promise 6: no value of a Secret reaches a log, a status or an Event.

use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::support::env::{Env, SOURCE};
use crate::support::manifests::{config_map, secret};
use crate::support::scenarios;

scenarios! {
    the_value_of_a_secret_is_nowhere,
    wrong_credentials_are_not_echoed,
}

const VALUE: &str = "correct-horse-battery-staple";

async fn assert_nowhere(env: &Env, value: &str) {
    let log = env.daemon.as_ref().unwrap().log().join("\n");
    assert!(!log.contains(value), "the log tells it");
    let status = json!([
        env.kustomizations().list(&Default::default()).await.unwrap().items,
        env.sources()
            .list(&Default::default())
            .await
            .unwrap()
            .items
            .iter()
            .map(|s| json!(s.status))
            .collect::<Vec<_>>(),
    ]);
    assert!(!status.to_string().contains(value), "a status tells it");
    let events = env.objects("Event").list(&Default::default()).await.unwrap();
    assert!(!json!(events.items).to_string().contains(value), "an Event tells it");
}

async fn the_value_of_a_secret_is_nowhere(env: &mut Env) {
    env.begin(&[("app/secret.yaml", &secret("token", VALUE))]).await;
    // Drift of it, and a revision in which it is refused.
    let change = json!({ "stringData": { "value": "something else" } });
    env.objects("Secret").patch("token", &PatchParams::default(), &Patch::Merge(change)).await.unwrap();
    env.until_live("Secret", "token", "it is corrected", |found| {
        found["data"]["value"] == "Y29ycmVjdC1ob3JzZS1iYXR0ZXJ5LXN0YXBsZQ=="
    })
    .await;
    let invalid = secret("token", VALUE).replace("\"stringData\"", "\"immutable\": \"many\", \"stringData\"");
    let broken = env.push("B", &[("app/secret.yaml", &invalid)]);
    env.announce().await;
    env.failed_at("app", &broken, "Secret").await;
    assert_nowhere(env, VALUE).await;
    assert_nowhere(env, "Y29ycmVjdC1ob3JzZS1iYXR0ZXJ5LXN0YXBsZQ==").await;
}

async fn wrong_credentials_are_not_echoed(env: &mut Env) {
    env.git.require_basic("git", "the-right-one");
    let credentials = |password: &str| {
        json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "git" },
            "stringData": { "username": "git", "password": password },
        })
    };
    let params = PatchParams::apply("test").force();
    let secrets = env.objects("Secret");
    secrets.patch("git", &params, &Patch::Apply(credentials(VALUE))).await.unwrap();
    let revision = env.push("A", &[("app/settings.yaml", &config_map("settings", "a"))]);
    env.source(|spec| spec["secretRef"] = json!({ "name": "git" })).await;
    env.kustomization("app", |_| {}).await;
    env.start();
    env.eventually("the source fails", async || {
        let source = env.sources().get(SOURCE).await.ok()?;
        source.status?.conditions.is_true("FetchFailed").then_some(())
    })
    .await;
    assert_nowhere(env, VALUE).await;

    // A new Secret is tried at once, without anybody's request.
    secrets.patch("git", &params, &Patch::Apply(credentials("the-right-one"))).await.unwrap();
    env.ready_at("app", &revision).await;
    assert_nowhere(env, "the-right-one").await;
}

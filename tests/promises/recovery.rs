//! Promise 1, the ways of being broken: commit A is live, B breaks, C repairs and goes live without anybody's help.
//!
//! Only B is announced: nobody who repairs something should have to.

use afresh::sandbox::git_server::Fault;
use serde_json::json;

use crate::support::env::{Env, PATIENCE};
use crate::support::manifests::{config_map, deployment, waits_ten_minutes};
use crate::support::scenarios;

scenarios! {
    bad_yaml_does_not_hold_back_its_fix,
    an_undefined_value_in_a_template_does_not_hold_back_its_fix,
    a_missing_path_does_not_hold_back_its_fix,
    an_object_that_the_server_refuses_does_not_hold_back_its_fix,
    an_object_that_admission_refuses_does_not_hold_back_its_fix,
    a_crash_loop_with_ten_minutes_to_become_healthy_does_not_hold_back_its_fix,
    a_dependency_broken_in_the_same_commit_does_not_hold_back_their_fix,
    an_unreachable_git_server_across_the_fix_does_not_hold_it_back,
}

/// What every Kustomization is about: its ConfigMap `settings` holds `value`.
async fn is_live(env: &Env, value: &str) {
    let settings = env.live("ConfigMap", "settings").await.expect("the settings are there");
    assert_eq!(settings["data"]["value"], value);
}

async fn bad_yaml_does_not_hold_back_its_fix(env: &mut Env) {
    env.begin(&[("app/settings.yaml", &config_map("settings", "a"))]).await;
    let broken = env.push("B", &[("app/settings.yaml", "kind: ConfigMap\n  name: [")]);
    env.announce().await;
    env.failed_at("app", &broken, "app/settings.yaml").await;
    is_live(env, "a").await;

    let fix = env.push("C", &[("app/settings.yaml", &config_map("settings", "c"))]);
    env.ready_at("app", &fix).await;
    is_live(env, "c").await;
}

async fn an_undefined_value_in_a_template_does_not_hold_back_its_fix(env: &mut Env) {
    let template = config_map("settings", "{{ values.greeting }}");
    env.begin(&[
        ("app/afresh.yaml", "render: template\nvalues: [values.yaml]\n"),
        ("app/values.yaml", "greeting: a\n"),
        ("app/settings.yaml", &template),
    ])
    .await;
    let broken = env.push("B", &[("app/values.yaml", "greetings: b\n")]);
    env.announce().await;
    env.failed_at("app", &broken, "app/settings.yaml").await;
    is_live(env, "a").await;

    let fix = env.push("C", &[("app/values.yaml", "greeting: c\n")]);
    env.ready_at("app", &fix).await;
    is_live(env, "c").await;
}

async fn a_missing_path_does_not_hold_back_its_fix(env: &mut Env) {
    env.begin(&[("app/settings.yaml", &config_map("settings", "a"))]).await;
    let b = config_map("settings", "b");
    let broken = env.push_changes("B", &[("app/settings.yaml", None), ("moved/settings.yaml", Some(&b))]);
    env.announce().await;
    env.failed_at("app", &broken, "app").await;
    is_live(env, "a").await;

    let fix = env.push("C", &[("app/settings.yaml", &config_map("settings", "c"))]);
    env.ready_at("app", &fix).await;
    is_live(env, "c").await;
}

async fn an_object_that_the_server_refuses_does_not_hold_back_its_fix(env: &mut Env) {
    env.begin(&[("app/settings.yaml", &config_map("settings", "a"))]).await;
    let broken = env.push(
        "B",
        &[
            ("app/settings.yaml", &config_map("settings", "b")),
            ("app/web.yaml", &deployment("web", "web:1").replace("\"replicas\": 1", "\"replicas\": \"many\"")),
        ],
    );
    env.announce().await;
    let failed = env.failed_at("app", &broken, "Deployment/").await;
    let message = crate::support::env::message(&failed);
    assert!(message.contains("app/web.yaml"), "the message names the file: {message}");

    let fix = env.push(
        "C",
        &[("app/settings.yaml", &config_map("settings", "c")), ("app/web.yaml", &deployment("web", "web:1"))],
    );
    env.ready_at("app", &fix).await;
    is_live(env, "c").await;
}

async fn an_object_that_admission_refuses_does_not_hold_back_its_fix(env: &mut Env) {
    env.begin(&[("app/settings.yaml", &config_map("settings", "a"))]).await;
    env.refuse("forbidden", "the platform team does not want this").await;
    let b = config_map("settings", "b");
    let broken = env.push("B", &[("app/settings.yaml", &b), ("app/forbidden.yaml", &config_map("forbidden", "b"))]);
    env.announce().await;
    env.failed_at("app", &broken, "the platform team does not want this").await;
    is_live(env, "a").await;

    let c = config_map("settings", "c");
    let fix = env.push_changes("C", &[("app/settings.yaml", Some(&c)), ("app/forbidden.yaml", None)]);
    env.ready_at("app", &fix).await;
    is_live(env, "c").await;
    assert!(env.live("ConfigMap", "forbidden").await.is_none());
}

async fn a_crash_loop_with_ten_minutes_to_become_healthy_does_not_hold_back_its_fix(env: &mut Env) {
    let a = env.push("A", &[("app/web.yaml", &deployment("web", "web:1"))]);
    env.source(|_| {}).await;
    env.kustomization("app", waits_ten_minutes).await;
    env.start();
    env.ready_at("app", &a).await;

    env.push("B", &[("app/web.yaml", &deployment("web", "web:2-crash"))]);
    env.announce().await;
    env.until("app", "the cause is named", |app| {
        let conditions = app.status.as_ref().map(|status| serde_json::to_string(&status.conditions));
        conditions.and_then(Result::ok).is_some_and(|text| text.contains("CrashLoopBackOff"))
    })
    .await;

    let fix = env.push("C", &[("app/web.yaml", &deployment("web", "web:3"))]);
    env.ready_at("app", &fix).await;
    let web = env.live("Deployment", "web").await.unwrap();
    assert_eq!(web["spec"]["template"]["spec"]["containers"][0]["image"], "web:3");
    assert_eq!(web["status"]["updatedReplicas"], 1);
}

async fn a_dependency_broken_in_the_same_commit_does_not_hold_back_their_fix(env: &mut Env) {
    let files = |db: &str, app: &str| {
        [("db/db.yaml", deployment("db", db)), ("app/settings.yaml", config_map("settings", app))]
    };
    let push = |env: &Env, message: &str, files: [(&str, String); 2]| {
        env.push(message, &files.each_ref().map(|(path, text)| (*path, text.as_str())))
    };
    let a = push(env, "A", files("db:1", "a"));
    env.source(|_| {}).await;
    env.kustomization("db", waits_ten_minutes).await;
    env.kustomization("app", |spec| spec["dependsOn"] = json!([{ "name": "db" }])).await;
    env.start();
    env.ready_at("app", &a).await;

    push(env, "B", files("db:2-crash", "b"));
    env.announce().await;
    env.until("app", "it waits for its dependency", |app| crate::support::env::message(app).contains("db")).await;
    is_live(env, "a").await;

    let fix = push(env, "C", files("db:3", "c"));
    env.ready_at("db", &fix).await;
    env.ready_at("app", &fix).await;
    is_live(env, "c").await;
}

async fn an_unreachable_git_server_across_the_fix_does_not_hold_it_back(env: &mut Env) {
    env.begin(&[("app/settings.yaml", &config_map("settings", "a"))]).await;
    let broken = env.push("B", &[("app/settings.yaml", "]")]);
    env.announce().await;
    env.failed_at("app", &broken, "app/settings.yaml").await;

    env.git.faults().set(Fault::Unreachable);
    let fix = env.push("C", &[("app/settings.yaml", &config_map("settings", "c"))]);
    let sources = env.sources();
    let noticed = crate::support::wait::watch_until(&sources, crate::support::env::SOURCE, PATIENCE, |source| {
        let status = source.and_then(|source| source.status.as_ref());
        status.is_some_and(|status| status.conditions.is_true("FetchFailed"))
    });
    noticed.await.expect("the outage shows in the source's status");
    is_live(env, "a").await;

    env.git.faults().clear();
    env.ready_at("app", &fix).await;
    is_live(env, "c").await;
}

//! Servers that are away, and come back.

use std::time::Duration;

use afresh::sandbox::git_server::Fault as GitFault;
use kube::api::DeleteParams;

use super::through_a_gateway;
use crate::support::control_plane::ControlPlane;
use crate::support::env::{Env, SOURCE, is_ready_at};
use crate::support::manifests::config_map;
use crate::support::scenarios;

scenarios! {
    an_api_server_that_restarts_is_met_again_where_it_was_left,
    a_git_server_that_is_down_for_the_restart_of_the_daemon_leaves_all_as_it_is,
}

async fn an_api_server_that_restarts_is_met_again_where_it_was_left(env: &mut Env) {
    let gateway = through_a_gateway(env).await;
    let a = env.begin(&[("app/settings.yaml", &config_map("settings", "a"))]).await;
    let before = env.ready_at("app", &a).await;

    gateway.go_down();
    gateway.turned_away(5).await;
    env.objects("ConfigMap").delete("settings", &DeleteParams::default()).await.expect("somebody deletes it meanwhile");
    let b = env.push("B", &[("other/readme.md", "nothing of the application\n")]);
    gateway.come_up();

    // what was missed is seen: the object comes back, and the commit
    env.until_live("ConfigMap", "settings", "it is put back", |_| true).await;
    env.announce().await;
    let after = env.ready_at("app", &b).await;
    assert_eq!(transition(&before), transition(&after), "Ready did not flicker");
    let c = env.push("C", &[("app/settings.yaml", &config_map("settings", "c"))]);
    env.announce().await;
    env.ready_at("app", &c).await;
}

/// The real one, killed and started again: its watch cache is empty, and it begins to answer before it has read its roles.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_api_server_that_is_killed_and_started_again_is_met_where_it_was_left() {
    // of its own: others must not lose theirs
    let Some(plane) = ControlPlane::of_its_own().await else { return };
    let mut env = Env::on_plane("killed_api_server", plane).await;
    let settings = |value: &str| [("app/settings.yaml", config_map("settings", value))];
    let a = env.begin(&settings("a").each_ref().map(|(path, text)| (*path, text.as_str()))).await;
    let before = env.ready_at("app", &a).await;
    plane.restart_api_server(tokio::time::sleep(Duration::from_secs(3))).await.unwrap();
    let unchanged = env.push("B", &[("other/readme.md", "nothing of the application\n")]);
    env.announce().await;
    let after = env.ready_at("app", &unchanged).await;
    assert_eq!(transition(&before), transition(&after), "Ready did not flicker");
    env.objects("ConfigMap").delete("settings", &DeleteParams::default()).await.expect("somebody deletes it");
    env.until_live("ConfigMap", "settings", "it is put back", |_| true).await;
    let c = env.push("C", &settings("c").each_ref().map(|(path, text)| (*path, text.as_str())));
    env.announce().await;
    env.ready_at("app", &c).await;
    env.assert_nothing_is_told().await;
}

fn transition(app: &afresh::api::Kustomization) -> Option<String> {
    let ready = app.status.as_ref()?.conditions.get("Ready")?;
    Some(serde_json::json!(ready.last_transition_time).to_string())
}

async fn a_git_server_that_is_down_for_the_restart_of_the_daemon_leaves_all_as_it_is(env: &mut Env) {
    let a = env.begin(&[("app/settings.yaml", &config_map("settings", "a"))]).await;
    env.daemon.take().unwrap().stop().await.unwrap();
    env.git.faults().set(GitFault::Unreachable);
    env.start();
    env.source_fails(SOURCE, "").await;
    // the state that was reached is what is said as long as nothing else is known
    tokio::time::sleep(Duration::from_secs(3)).await;
    let app = env.kustomizations().get("app").await.unwrap();
    assert!(is_ready_at(&app, &a), "{:#?}", app.status);
    env.objects("ConfigMap").delete("settings", &DeleteParams::default()).await.expect("somebody deletes it");
    env.until_live("ConfigMap", "settings", "it is put back", |_| true).await;

    let b = env.push("B", &[("app/settings.yaml", &config_map("settings", "b"))]);
    env.git.faults().clear();
    env.ready_at("app", &b).await;
    assert_eq!(env.live("ConfigMap", "settings").await.unwrap()["data"]["value"], "b");
}

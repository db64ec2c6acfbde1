//! An ssh host that is not the one that it was.

use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::sources::Other;
use crate::support::env::Env;
use crate::support::manifests::config_map;
use crate::support::scenarios;
use crate::support::sshd::Sshd;

scenarios! {
    a_changed_host_key_stops_its_source_with_advice_and_nobody_else,
}

const IDENTITY: &str = include_str!("../../source/keys/identity");

async fn a_changed_host_key_stops_its_source_with_advice_and_nobody_else(env: &mut Env) {
    if !Sshd::is_installed() {
        println!("skipped: there is no sshd");
        return;
    }
    env.begin(&[("app/settings.yaml", &config_map("settings", "a"))]).await;
    let mut sshd = Sshd::start(IDENTITY);
    env.eventually("sshd listens", async || sshd.listens().then_some(())).await;
    env.secret("ssh", json!({ "identity": IDENTITY, "known_hosts": sshd.known_hosts() })).await;
    let other = Other::start("shell", env).await;
    let url = sshd.url(other.repository.path());
    env.source_at("shell", &url, |spec| spec["secretRef"] = json!({ "name": "ssh" })).await;
    let first = other.push(&[("shell/shell.yaml", &config_map("shell", "a"))]);
    env.ready_at("shell", &first).await;

    sshd.change_host_key();
    env.eventually("sshd listens again", async || sshd.listens().then_some(())).await;
    let second = other.push(&[("shell/shell.yaml", &config_map("shell", "b"))]);
    other.announce(env).await;
    let b = env.push("B", &[("app/settings.yaml", &config_map("settings", "b"))]);
    env.announce().await;
    env.ready_at("app", &b).await;
    let said = env.source_fails("shell", "is not the one in `known_hosts`: it shows `SHA256:").await;
    assert!(said.contains("hint: compare the fingerprint with the one that the host publishes"), "{said}");
    assert!(env.is_counted("afresh_source_errors_total", &[("class", "auth"), ("name", "shell")]).await);
    assert_eq!(env.live("ConfigMap", "shell").await.unwrap()["data"]["value"], "a", "nothing of the stranger's");

    // Who has compared the fingerprints writes the new key down, and nothing else is needed.
    let patch = json!({ "stringData": { "known_hosts": sshd.known_hosts() } });
    env.objects("Secret").patch("ssh", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    env.ready_at("shell", &second).await;
}

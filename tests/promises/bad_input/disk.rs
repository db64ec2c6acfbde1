//! A disk that takes no more: what can't be fetched is told, everything else is served, and room heals.

use serde_json::json;

use super::sources::{Other, noise};
use crate::support::daemon::Runner;
use crate::support::env::{Env, SOURCE};
use crate::support::manifests::config_map;
use crate::support::scenarios;

scenarios! {
    a_full_disk_holds_back_nobody_else_and_room_heals,
    a_data_folder_that_cannot_be_written_is_told_and_healed,
}

/// Limits the size of the files that a process may write, as `ulimit -f` does; `None` where there is no such program.
fn limit_files(id: u32, limit: &str) -> Option<()> {
    let arguments = ["--pid".to_owned(), id.to_string(), format!("--fsize={limit}:")];
    std::process::Command::new("prlimit").args(arguments).status().is_ok_and(|exit| exit.success()).then_some(())
}

async fn a_full_disk_holds_back_nobody_else_and_room_heals(env: &mut Env) {
    env.runner = Runner::Process;
    env.begin(&[("app/settings.yaml", &config_map("settings", "a"))]).await;
    let other = Other::start("small", env).await;
    let small = other.push(&[("small/small.yaml", &config_map("small", "a"))]);
    env.ready_at("small", &small).await;

    let daemon = env.daemon.as_ref().and_then(|daemon| daemon.id()).expect("a process of its own");
    let Some(()) = limit_files(daemon, "65536") else {
        println!("skipped: there is no `prlimit` to make a disk full with");
        return;
    };
    env.push("B", &[("app/settings.yaml", &config_map("settings", "b"))]);
    let b = format!("main@sha1:{}", env.repository.commit_bytes("B", &[("app/noise.bin", &noise(1 << 20))]).unwrap());
    env.announce().await;
    let said = env.source_fails(SOURCE, "File too large").await;
    assert!(said.contains("hint: make room in the folder of `--data-dir`"), "{said}");
    assert_eq!(env.live("ConfigMap", "settings").await.unwrap()["data"]["value"], "a");

    let small = other.push(&[("small/small.yaml", &config_map("small", "b"))]);
    other.announce(env).await;
    env.ready_at("small", &small).await;
    let labels = [("class", "transient"), ("name", SOURCE)];
    assert!(env.is_counted("afresh_source_errors_total", &labels).await);

    // Nobody says that there is room again.
    limit_files(daemon, "unlimited").expect("the limit goes");
    env.ready_at("app", &b).await;
    assert_eq!(env.live("ConfigMap", "settings").await.unwrap()["data"]["value"], "b");
}

async fn a_data_folder_that_cannot_be_written_is_told_and_healed(env: &mut Env) {
    env.begin(&[("app/settings.yaml", &config_map("settings", "a"))]).await;
    let (folder, aside) = (env.data_dir().join("git"), env.data_dir().join("aside"));
    std::fs::rename(&folder, &aside).unwrap();
    // Nobody can make a folder in a file, whatever their rights.
    std::fs::write(&folder, "").unwrap();

    let b = env.push("B", &[("app/settings.yaml", &config_map("settings", "b"))]);
    env.announce().await;
    let said = env.source_fails(SOURCE, "Not a directory").await;
    assert!(said.contains("hint: the folder of `--data-dir` must be writable"), "{said}");
    // What was applied stays in order meanwhile.
    let change = kube::api::Patch::Merge(json!({ "data": { "value": "changed by hand" } }));
    env.objects("ConfigMap").patch("settings", &Default::default(), &change).await.unwrap();
    env.until_live("ConfigMap", "settings", "it is corrected", |settings| settings["data"]["value"] == "a").await;

    std::fs::remove_file(&folder).unwrap();
    std::fs::rename(&aside, &folder).unwrap();
    env.ready_at("app", &b).await;
}

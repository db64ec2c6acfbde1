//! Paths and symlinks that lead out of the repository, or nowhere.

use super::{Broken, each_is_named_and_mended};
use crate::support::env::{Env, message};
use crate::support::manifests::config_map;
use crate::support::scenarios;

scenarios! {
    a_symlink_out_of_the_repository_is_not_followed,
    a_path_out_of_the_repository_is_refused,
    a_symlink_inside_the_repository_is_followed,
}

async fn a_symlink_out_of_the_repository_is_not_followed(env: &mut Env) {
    const HINT: &str = "replace the symlink by the file, or point it to a file of the repository";
    let cases = [
        Broken::by_link(
            "climbs",
            "bad.yaml",
            "../../outside.yaml",
            &["leads out of the repository, to `../../outside.yaml`", HINT],
        ),
        Broken::by_link(
            "absolute",
            "bad.yaml",
            "/etc/hostname",
            &["leads out of the repository, to `/etc/hostname`", HINT],
        ),
        Broken::by_link("circle", "bad.yaml", "bad.yaml", &["leads through more than 40 others"]),
        Broken::by_link("dangling", "bad.yaml", "../nowhere.yaml", &["this symlink leads to nothing"]),
        Broken {
            links: vec![("afresh.yaml", "../../../etc/afresh.yaml")],
            ..Broken::by_link("settings", "afresh.yaml", "", &["leads out of the repository", HINT])
        },
    ];
    each_is_named_and_mended(env, &cases).await;
}

async fn a_path_out_of_the_repository_is_refused(env: &mut Env) {
    env.begin(&[("app/settings.yaml", &config_map("settings", "a")), ("other/other.yaml", &config_map("other", "a"))])
        .await;
    env.repository.commit_symlinks("links", &[("out", "../../elsewhere")]).unwrap();
    let cases = [
        ("../app", "path `../app` leaves the repository", "without `..`"),
        ("./app/../../..", "path `./app/../../..` leaves the repository", "without `..`"),
        ("./app/settings.yaml", "path `app/settings.yaml` is not a directory", ""),
        ("./ap", "path `ap` not found: the repository has `app`, `other`", ""),
        ("./out/etc", "symlink `out` leads out of the repository, to `../../elsewhere`", ""),
    ];
    let mut revision = String::new();
    for (number, (path, says, hint)) in cases.into_iter().enumerate() {
        env.kustomization("app", |spec| spec["path"] = path.into()).await;
        let failed = env.until("app", says, |app| message(app).contains(says)).await;
        assert!(message(&failed).contains(hint), "{}", message(&failed));

        env.kustomization("other", |_| {}).await;
        let value = number.to_string();
        revision = env.push("more", &[("other/other.yaml", &config_map("other", &value))]);
        env.announce().await;
        env.ready_at("other", &revision).await;
        assert_eq!(env.live("ConfigMap", "settings").await.unwrap()["data"]["value"], "a");
    }
    env.kustomization("app", |_| {}).await;
    env.ready_at("app", &revision).await;
}

async fn a_symlink_inside_the_repository_is_followed(env: &mut Env) {
    env.begin(&[("app/settings.yaml", &config_map("settings", "a")), ("shared/x.yaml", &config_map("x", "a"))]).await;
    env.repository.commit_symlinks("links", &[("app/x.yaml", "../shared/x.yaml")]).unwrap();
    let b = env.push("B", &[("shared/x.yaml", &config_map("x", "b"))]);
    env.announce().await;
    env.ready_at("app", &b).await;
    assert_eq!(env.live("ConfigMap", "x").await.unwrap()["data"]["value"], "b");
}

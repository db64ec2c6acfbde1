//! Repositories that are not as expected.

use afresh::sandbox::git_server::{Fault, GitServer};
use afresh::sandbox::repository::TestRepository;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tempfile::TempDir;

use crate::support::env::{Env, SOURCE, message};
use crate::support::manifests::config_map;
use crate::support::scenarios;

scenarios! {
    a_server_that_misbehaves_holds_back_nobody_else,
    a_file_of_a_hundred_megabytes_is_named_where_it_is_read_and_ignored_where_not,
    a_commit_that_is_too_large_does_not_hold_back_its_fix,
    a_repository_without_commits_is_no_reason_to_give_up,
    a_force_push_is_followed,
    a_spec_that_changes_while_the_server_hangs_is_followed,
}

/// Another source, on a server of its own, with an application of its name.
pub struct Other {
    name: &'static str,
    pub server: GitServer,
    pub repository: TestRepository,
    _folder: TempDir,
}

impl Other {
    pub async fn start(name: &'static str, env: &Env) -> Other {
        let folder = tempfile::tempdir().unwrap();
        let repository = TestRepository::create(&folder.path().join(name)).unwrap();
        let server = GitServer::start(folder.path()).unwrap();
        env.source_at(name, &server.url(name), |spec| spec["timeout"] = json!("3s")).await;
        env.kustomization(name, |spec| spec["sourceRef"]["name"] = json!(name)).await;
        Other { name, server, repository, _folder: folder }
    }

    pub fn push(&self, files: &[(&str, &str)]) -> String {
        let changes: Vec<_> = files.iter().map(|(path, text)| (*path, Some(*text))).collect();
        format!("main@sha1:{}", self.repository.commit("next", &changes).unwrap())
    }

    pub async fn announce(&self, env: &Env) {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let token = format!("other-{}", NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        let patch = json!({ "metadata": { "annotations": { afresh::api::REQUESTED_AT: token } } });
        env.sources().patch(self.name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }
}

/// Bytes that don't compress.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(length).collect()
}

/// A delta that says it makes ten gigabytes of a base of one byte.
fn delta_bomb() -> Vec<u8> {
    use std::io::Write as _;
    let zlib = |content: &[u8]| {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    };
    // a blob of one byte; a delta of seven, on what began ten bytes before
    let (base, sizes) = (zlib(b"x"), [1, 0x80, 0x80, 0x80, 0x80, 0x28, 0]);
    let distance = base.len() as u8 + 1;
    [&b"PACK\0\0\0\x02\0\0\0\x02\x31"[..], &base, &[0x67, distance], &zlib(&sizes), &[0; 20]].concat()
}

async fn a_server_that_misbehaves_holds_back_nobody_else(env: &mut Env) {
    env.begin(&[("app/settings.yaml", &config_map("settings", "a"))]).await;
    let other = Other::start("slow", env).await;
    let first = other.push(&[("slow/slow.yaml", &config_map("slow", "a"))]);
    env.ready_at("slow", &first).await;
    let cases = [
        (Fault::Drip, "took longer than 3s while", "raise `spec.timeout`", "unreachable"),
        (Fault::Hang, "took longer than 3s while", "raise `spec.timeout`", "unreachable"),
        (Fault::Pack(b"PACK\0\0\0\x02\0\0\0\x01\x31no zlib".to_vec().into()), "its pack is broken", "", "transient"),
        (
            Fault::Pack(delta_bomb().into()),
            "sends more than the limit of 134217728 bytes in one object",
            "keep large files out of the repository",
            "permanent",
        ),
        (Fault::Garbage, "gave an answer that is not understood", "", "transient"),
    ];
    let mut last = first;
    for (number, (fault, says, hint, class)) in cases.into_iter().enumerate() {
        let value = number.to_string();
        other.server.faults().set(fault.clone());
        last = other.push(&[("slow/slow.yaml", &config_map("slow", &value))]);
        other.announce(env).await;
        let revision = env.push("more", &[("app/settings.yaml", &config_map("settings", &value))]);
        env.announce().await;
        env.ready_at("app", &revision).await;
        assert_eq!(env.live("ConfigMap", "settings").await.unwrap()["data"]["value"], value);
        let said = env.source_fails("slow", says).await;
        assert!(said.contains(hint), "{fault:?}: {said}");
        let labels = [("class", class), ("name", "slow")];
        assert!(env.is_counted("afresh_source_errors_total", &labels).await, "{fault:?} is not counted as {class}");
    }
    // Nobody says that the server behaves again.
    other.server.faults().clear();
    env.ready_at("slow", &last).await;
}

async fn a_file_of_a_hundred_megabytes_is_named_where_it_is_read_and_ignored_where_not(env: &mut Env) {
    const HUGE: usize = 100_000_000;
    env.begin(&[("app/settings.yaml", &config_map("settings", "a"))]).await;
    let other = Other::start("huge", env).await;
    env.source_at("huge", &other.server.url("huge"), |_| {}).await;
    env.kustomization("beside", |spec| spec["sourceRef"]["name"] = json!("huge")).await;
    other.push(&[("huge/good.yaml", &config_map("huge", "a")), ("beside/beside.yaml", &config_map("beside", "a"))]);
    let commit = other.repository.commit_bytes("huge", &[("huge/huge.yaml", &noise(HUGE))]).unwrap();
    let huge = format!("main@sha1:{commit}");
    other.announce(env).await;
    let b = env.push("B", &[("app/settings.yaml", &config_map("settings", "b"))]);
    env.announce().await;
    env.ready_at("app", &b).await;

    env.ready_at("beside", &huge).await;
    let failed = env.failed_at("huge", &huge, "huge/huge.yaml").await;
    assert!(
        message(&failed).contains("`huge/huge.yaml` is 100000000 bytes long, over the limit of"),
        "{}",
        message(&failed)
    );

    let fix = other.repository.commit("fix", &[("huge/huge.yaml", None)]).unwrap();
    env.ready_at("huge", &format!("main@sha1:{fix}")).await;
}

async fn a_commit_that_is_too_large_does_not_hold_back_its_fix(env: &mut Env) {
    env.begin(&[("app/settings.yaml", &config_map("settings", "a"))]).await;
    // Some kilobytes when it is sent.
    env.repository.commit_bytes("B", &[("film.bin", &vec![0; 150 << 20])]).unwrap();
    env.announce().await;
    let said = env.source_fails(SOURCE, "sends more than the limit of 134217728 bytes in one object").await;
    assert!(said.contains("keep large files out of the repository"), "{said}");
    // It is looked for another commit, and this one isn't fetched again.
    let commands =
        |name: &str| env.git.records().iter().filter(|record| record.command.as_deref() == Some(name)).count();
    let (probes, fetches) = (commands("ls-refs"), commands("fetch"));
    env.eventually("it looks twice more", async || (commands("ls-refs") >= probes + 2).then_some(())).await;
    assert_eq!(commands("fetch"), fetches);

    let fix = env.push_changes("C", &[("film.bin", None), ("app/settings.yaml", Some(&config_map("settings", "c")))]);
    env.ready_at("app", &fix).await;
    assert_eq!(env.live("ConfigMap", "settings").await.unwrap()["data"]["value"], "c");
}

async fn a_repository_without_commits_is_no_reason_to_give_up(env: &mut Env) {
    env.source(|_| {}).await;
    env.kustomization("app", |_| {}).await;
    env.start();
    let waits = env.until("app", "it says that there is no revision", |app| !message(app).is_empty()).await;
    assert!(message(&waits).contains("has no commits\nhint: push a first commit"), "{}", message(&waits));
    let first = env.push("first", &[("app/settings.yaml", &config_map("settings", "a"))]);
    env.ready_at("app", &first).await;
}

async fn a_force_push_is_followed(env: &mut Env) {
    env.begin(&[("app/settings.yaml", &config_map("settings", "a"))]).await;
    let text = config_map("settings", "b");
    let commit = env.repository.force_push("another history", &[("app/settings.yaml", &text)]).unwrap();
    env.announce().await;
    env.ready_at("app", &format!("main@sha1:{commit}")).await;
    assert_eq!(env.live("ConfigMap", "settings").await.unwrap()["data"]["value"], "b");
}

async fn a_spec_that_changes_while_the_server_hangs_is_followed(env: &mut Env) {
    env.begin(&[("app/settings.yaml", &config_map("settings", "a"))]).await;
    env.git.faults().set(Fault::Hang);
    let asked = env.git.requests();
    env.announce().await;
    env.eventually("the server is asked", async || (env.git.requests() > asked).then_some(())).await;
    let b = env.push("B", &[("app/settings.yaml", &config_map("settings", "b"))]);
    env.git.faults().clear();
    env.source(|spec| spec["interval"] = json!("9m")).await;
    env.ready_at("app", &b).await;
}

//! Probes and fetches over HTTP.

use std::time::{Duration, Instant};

use afresh::sandbox::git_server::Fault;
use afresh::source::git::fetch::FetchLimits;
use afresh::source::git::pack::PackLimits;
use afresh::source::version::VersionRange;
use afresh::source::{Class, Reference, RemoteOptions, SourceError, SourceUrl};
use git2::Oid;
use tokio_util::sync::CancellationToken;

use crate::support::{TIMEOUT, World, access, main_branch, message, names, observe, read};

#[tokio::test]
async fn a_first_fetch_and_then_only_what_changed() {
    let world = World::new();
    // sending it twice would be seen
    let big = incompressible();
    let first = world.repository.commit("first", &[("a.yaml", Some("a: 1")), ("apps/big.txt", Some(&big))]).unwrap();
    let remote = world.remote();
    let snapshot = observe(&remote, &main_branch()).await.unwrap();
    assert_eq!(snapshot.revision.to_string(), format!("main@sha1:{first}"));
    assert_eq!(snapshot.commit().subject, "first");
    assert_eq!(snapshot.commit().author, "Afresh <afresh@example.com>");
    assert_eq!(read(&snapshot, "a.yaml").as_deref(), Some("a: 1"));

    let (requests, bytes) = (world.server.requests(), world.server.response_bytes());
    let second = world.repository.commit("second", &[("a.yaml", Some("a: 2"))]).unwrap();
    let newer = observe(&remote, &main_branch()).await.unwrap();
    assert_eq!(newer.revision.commit, second);
    assert_eq!(read(&newer, "a.yaml").as_deref(), Some("a: 2"));
    assert_eq!(read(&newer, "apps/big.txt").as_deref(), Some(big.as_str()));
    assert_eq!(read(&snapshot, "a.yaml").as_deref(), Some("a: 1"), "the older one stays readable");
    assert_eq!(world.server.requests() - requests, 2, "one probe, one fetch");
    let sent = world.server.response_bytes() - bytes;
    assert!(sent < 1_000, "{sent} bytes for an increment");

    let requests = world.server.requests();
    observe(&remote, &main_branch()).await.unwrap();
    assert_eq!(world.server.requests() - requests, 1, "nothing new: the probe alone");
    assert!(world.server.records().iter().all(|record| record.user_agent.starts_with("git/")));
}

#[tokio::test]
async fn what_is_only_in_the_history_is_not_fetched() {
    let world = World::new();
    world.repository.commit("much", &[("a.yaml", Some("a: 1")), ("big.txt", Some(&incompressible()))]).unwrap();
    world.repository.commit("little", &[("a.yaml", Some("a: 2")), ("big.txt", None)]).unwrap();
    let snapshot = observe(&world.remote(), &main_branch()).await.unwrap();
    assert_eq!(read(&snapshot, "a.yaml").as_deref(), Some("a: 2"));
    let sent = world.server.response_bytes();
    assert!(sent < 2_000, "{sent} bytes for one small file");
}

/// Some 300 kB of text.
fn incompressible() -> String {
    (0..20_000_u64).map(|n| format!("{:x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect()
}

#[tokio::test]
async fn a_history_that_was_rewritten_and_one_that_was_deleted() {
    let world = World::new();
    world.repository.commit("first", &[("a.yaml", Some("a: 1"))]).unwrap();
    let remote = world.remote();
    observe(&remote, &main_branch()).await.unwrap();
    let forced = world.repository.force_push("anew", &[("b.yaml", "b: 1")]).unwrap();
    let snapshot = observe(&remote, &main_branch()).await.unwrap();
    assert_eq!(snapshot.revision.commit, forced);
    assert_eq!(names(&snapshot, ""), ["b.yaml"]);

    world.repository.set_branch("other", forced).unwrap();
    world.repository.delete_branch("main").unwrap();
    let error = observe(&remote, &main_branch()).await.unwrap_err();
    assert_eq!(message(&error, &world), "`URL` has no branch `main`");
    assert_eq!(error.class(), Class::Transient);
    // A name that is a prefix of others is not taken for one of them.
    world.repository.set_branch("main-2", forced).unwrap();
    assert!(matches!(observe(&remote, &main_branch()).await, Err(SourceError::RefNotFound { .. })));
}

#[tokio::test]
async fn an_empty_repository_says_so() {
    let world = World::new();
    for fault in [Fault::None, Fault::WithoutVersion2] {
        world.server.faults().set(fault);
        let error = world.remote().probe(&main_branch(), TIMEOUT).await.unwrap_err();
        assert_eq!(message(&error, &world), "the repository `URL` has no commits");
    }
}

#[tokio::test]
async fn tags_and_pinned_commits() {
    for fault in [Fault::None, Fault::WithoutVersion2] {
        let world = World::new();
        let first = world.repository.commit("first", &[("a.yaml", Some("a: 1"))]).unwrap();
        let tag_object = world.repository.tag("v1", first, Some("a release")).unwrap();
        world.repository.tag("light", first, None).unwrap();
        world.repository.commit("second", &[("a.yaml", Some("a: 2"))]).unwrap();
        world.server.faults().set(fault.clone());
        let remote = world.remote();
        assert_ne!(tag_object, first);
        for tag in ["v1", "light"] {
            let snapshot = observe(&remote, &Reference::Tag(tag.to_owned())).await.unwrap();
            assert_eq!(snapshot.revision.to_string(), format!("{tag}@sha1:{first}"));
            assert_eq!(read(&snapshot, "a.yaml").as_deref(), Some("a: 1"));
        }
        let pinned = Reference::Commit { branch: None, sha: first };
        let snapshot = observe(&remote, &pinned).await.unwrap();
        assert_eq!(snapshot.revision.to_string(), format!("sha1:{first}"));

        let missing = Reference::Commit { branch: None, sha: Oid::from_str(&"0123456789".repeat(4)).unwrap() };
        let error = observe(&remote, &missing).await.unwrap_err();
        assert!(matches!(error, SourceError::CommitNotFound { pinned: true, .. }), "{fault:?}: {error}");
        assert_eq!(error.class(), Class::NotFound);
    }
}

#[tokio::test]
async fn a_pinned_commit_behind_the_tip_is_fetched_by_its_id() {
    let world = World::new();
    let first = world.repository.commit("first", &[("a.yaml", Some("a: 1"))]).unwrap();
    world.repository.commit("second", &[("a.yaml", Some("a: 2"))]).unwrap();
    let pinned = Reference::Commit { branch: Some("main".to_owned()), sha: first };
    let snapshot = observe(&world.remote(), &pinned).await.unwrap();
    assert_eq!(snapshot.revision.to_string(), format!("main@sha1:{first}"));
    assert_eq!(read(&snapshot, "a.yaml").as_deref(), Some("a: 1"));
}

#[tokio::test]
async fn a_tag_on_a_tree_is_not_a_commit() {
    let world = World::new();
    let first = world.repository.commit("first", &[("a.yaml", Some("a: 1"))]).unwrap();
    let git = git2::Repository::open_bare(world.repository.path()).unwrap();
    let tree = git.find_commit(first).unwrap().tree_id();
    world.repository.tag("tree", tree, None).unwrap();
    let error = observe(&world.remote(), &Reference::Tag("tree".to_owned())).await.unwrap_err();
    assert_eq!(message(&error, &world), "tag `tree` of `URL` is not a commit");
    assert_eq!(error.class(), Class::Permanent);
}

#[tokio::test]
async fn a_server_without_version_2_gives_the_same() {
    let world = World::new();
    world.repository.commit("first", &[("a.yaml", Some("a: 1")), ("b.yaml", Some("b: 1"))]).unwrap();
    world.server.faults().set(Fault::WithoutVersion2);
    let remote = world.remote();
    observe(&remote, &main_branch()).await.unwrap();
    let second = world.repository.commit("second", &[("a.yaml", Some("a: 2"))]).unwrap();
    let bytes = world.server.response_bytes();
    let snapshot = observe(&remote, &main_branch()).await.unwrap();
    assert!(world.server.response_bytes() - bytes < 2_000);
    assert_eq!(snapshot.revision.commit, second);
    assert_eq!(read(&snapshot, "a.yaml").as_deref(), Some("a: 2"));
    assert_eq!(read(&snapshot, "b.yaml").as_deref(), Some("b: 1"));

    // The server is upgraded under us, and downgraded again.
    for fault in [Fault::None, Fault::WithoutVersion2] {
        world.server.faults().set(fault);
        let next = world.repository.commit("next", &[("a.yaml", Some(&format!("n: {}", world.packs())))]).unwrap();
        assert_eq!(observe(&remote, &main_branch()).await.unwrap().revision.commit, next);
    }
}

#[tokio::test]
async fn wrong_credentials_are_told_and_never_echoed() {
    let world = World::new();
    world.repository.commit("first", &[("a.yaml", Some("a: 1"))]).unwrap();
    world.server.require_basic("git", "right");
    for secret in [&[][..], &[("username", "git"), ("password", "hunter2")], &[("bearerToken", "hunter2")]] {
        let error = world.remote_as(secret).probe(&main_branch(), TIMEOUT).await.unwrap_err();
        assert_eq!(message(&error, &world), "`URL` refuses the credentials (HTTP 401)");
        assert_eq!(error.class(), Class::Auth);
        assert!(!format!("{error:?}").contains("hunter2"));
    }
    observe(&world.remote_as(&[("username", "git"), ("password", "right")]), &main_branch()).await.unwrap();
    world.server.require_bearer("token");
    observe(&world.remote_as(&[("bearerToken", "token")]), &main_branch()).await.unwrap();
}

#[tokio::test]
async fn credentials_written_into_the_url_work_and_stay_hidden() {
    let world = World::new();
    world.repository.commit("first", &[("a.yaml", Some("a: 1"))]).unwrap();
    world.server.require_basic("git", "hunter2");
    let url = world.server.url("platform.git").replace("http://", "http://git:hunter2@");
    let url = afresh::source::SourceUrl::parse(&url).unwrap();
    let remote = world.remotes.get(&url, &access(&[])).unwrap();
    observe(&remote, &main_branch()).await.unwrap();
    assert!(!format!("{} {:?}", remote.url(), remote.url()).contains("hunter2"));
}

#[tokio::test]
async fn remotes_with_other_credentials_share_nothing() {
    let world = World::new();
    world.repository.commit("first", &[("a.yaml", Some("a: 1"))]).unwrap();
    let first = world.remote_as(&[("username", "a"), ("password", "x")]);
    let commit = observe(&first, &main_branch()).await.unwrap().revision.commit;
    assert!(std::sync::Arc::ptr_eq(&first, &world.remote_as(&[("username", "a"), ("password", "x")])));

    // The other one may not read from the server: then not from the first one's cache either.
    world.server.require_basic("a", "x");
    let second = world.remote_as(&[("username", "b"), ("password", "y")]);
    let error = second
        .snapshot(&main_branch(), &main_branch().at(commit), None, TIMEOUT, CancellationToken::new())
        .await
        .unwrap_err();
    assert_eq!(error.class(), Class::Auth);
}

#[tokio::test]
async fn answers_of_the_server_are_classified() {
    let world = World::new();
    world.repository.commit("first", &[("a.yaml", Some("a: 1"))]).unwrap();
    let remote = world.remote();
    observe(&remote, &main_branch()).await.unwrap();
    let cases = [
        (Fault::Status(404), Class::NotFound, "there is no repository at `URL`"),
        (Fault::Status(403), Class::Auth, "`URL` refuses the credentials (HTTP 403)"),
        (Fault::Status(502), Class::Unreachable, "`URL` failed to answer (HTTP 502)"),
        (Fault::Status(418), Class::Transient, "`URL` gave an answer that is not understood: HTTP 418"),
        (Fault::RateLimited { retry_after: Some(7) }, Class::Transient, "`URL` asks for fewer requests (HTTP 429)"),
        (
            Fault::Redirect("http://elsewhere.example".to_owned()),
            Class::Permanent,
            "`URL` redirects to `http://elsewhere.example`, which is not followed",
        ),
    ];
    for (fault, class, expected) in cases {
        world.server.faults().set(fault.clone());
        let error = remote.probe(&main_branch(), TIMEOUT).await.unwrap_err();
        assert_eq!(message(&error, &world), expected);
        assert_eq!(error.class(), class, "{fault:?}");
        let limited = matches!(fault, Fault::RateLimited { .. });
        assert_eq!(error.retry_after(), limited.then_some(Duration::from_secs(7)));
    }
    for fault in [Fault::Unreachable, Fault::Garbage, Fault::Truncate] {
        world.server.faults().set(fault.clone());
        let error = remote.probe(&main_branch(), TIMEOUT).await.unwrap_err();
        assert!(matches!(error.class(), Class::Unreachable | Class::Transient), "{fault:?}: {error}");
    }
    world.server.faults().clear();
    remote.probe(&main_branch(), TIMEOUT).await.unwrap();
}

#[tokio::test]
async fn retry_after_closes_the_remote_for_announced_probes_too() {
    use afresh::source::ProbeKind;
    let world = World::new();
    world.server.faults().set(Fault::RateLimited { retry_after: Some(3600) });
    let remote = world.remote();
    assert_eq!(remote.permit(ProbeKind::Announced, Instant::now()), Ok(()));
    remote.probe(&main_branch(), TIMEOUT).await.unwrap_err();
    let until = remote.permit(ProbeKind::Announced, Instant::now()).unwrap_err();
    assert!(until > Instant::now() + Duration::from_secs(3000));
}

#[tokio::test]
async fn a_page_and_a_folder_of_files_are_not_git() {
    let world = World::new();
    world.repository.commit("first", &[("a.yaml", Some("a: 1"))]).unwrap();
    world.server.faults().set(Fault::Status(200));
    let error = world.remote().probe(&main_branch(), TIMEOUT).await.unwrap_err();
    let expected =
        "`URL` can't be used: the server offers the repository as plain files, not with Git's smart protocol";
    assert_eq!(message(&error, &world), expected);
    assert_eq!(error.class(), Class::Permanent);
}

#[tokio::test]
async fn a_server_that_hangs_or_drips_meets_the_deadline() {
    let world = World::new();
    world.repository.commit("first", &[("a.yaml", Some("a: 1"))]).unwrap();
    let remote = world.remote();
    let commit = remote.probe(&main_branch(), TIMEOUT).await.unwrap().commit;
    let short = Duration::from_millis(1500);
    for fault in [Fault::Hang, Fault::Drip] {
        world.server.faults().set(fault.clone());
        let start = Instant::now();
        let error = remote.probe(&main_branch(), short).await.unwrap_err();
        assert!(matches!(error, SourceError::Timeout { .. }), "{fault:?}: {error}");
        let error = remote
            .snapshot(&main_branch(), &main_branch().at(commit), None, short, CancellationToken::new())
            .await
            .unwrap_err();
        assert!(matches!(error, SourceError::Timeout { .. }), "{fault:?}: {error}");
        assert_eq!(error.class(), Class::Unreachable);
        assert!(start.elapsed() < Duration::from_secs(10));
    }
    world.server.faults().clear();
    observe(&remote, &main_branch()).await.unwrap();
}

#[tokio::test]
async fn a_fetch_can_be_cancelled() {
    let world = World::new();
    world.repository.commit("first", &[("a.yaml", Some("a: 1"))]).unwrap();
    let remote = world.remote();
    let commit = remote.probe(&main_branch(), TIMEOUT).await.unwrap().commit;
    world.server.faults().set(Fault::Hang);
    let cancel = CancellationToken::new();
    let requests = world.server.requests();
    let work = tokio::spawn({
        let (remote, cancel) = (remote.clone(), cancel.clone());
        async move { remote.snapshot(&main_branch(), &main_branch().at(commit), None, TIMEOUT, cancel).await }
    });
    while world.server.requests() == requests {
        tokio::task::yield_now().await;
    }
    cancel.cancel();
    assert!(matches!(work.await.unwrap(), Err(SourceError::Cancelled { .. })));
    world.server.faults().clear();
    observe(&remote, &main_branch()).await.unwrap();
}

#[tokio::test]
async fn probes_at_the_same_time_share_requests() {
    let world = World::new();
    let commit = world.repository.commit("first", &[("a.yaml", Some("a: 1"))]).unwrap();
    let remote = world.remote();
    remote.probe(&main_branch(), TIMEOUT).await.unwrap();
    let requests = world.server.requests();
    let reference = main_branch();
    let probes = (0..50).map(|_| remote.probe(&reference, TIMEOUT));
    for answer in futures::future::join_all(probes).await {
        assert_eq!(answer.unwrap().commit, commit);
    }
    let used = world.server.requests() - requests;
    assert!(used <= 2, "{used} requests for fifty callers");
}

fn range(text: &str) -> Reference {
    Reference::Semver(VersionRange::parse(text).unwrap())
}

#[tokio::test]
async fn probes_of_many_refs_at_the_same_time_share_requests_and_each_has_its_own_answer() {
    let world = World::new();
    let first = world.repository.commit("first", &[("a.yaml", Some("a: 1"))]).unwrap();
    let second = world.repository.commit("second", &[("a.yaml", Some("a: 2"))]).unwrap();
    world.repository.set_branch("release", first).unwrap();
    world.repository.set_branch("release-2", second).unwrap();
    world.repository.tag("v1.0.0", first, Some("annotated")).unwrap();
    let remote = world.remote();
    remote.probe(&main_branch(), TIMEOUT).await.unwrap();
    let requests = world.server.requests();
    let references = [
        (main_branch(), Some(second)),
        (Reference::Branch("release".to_owned()), Some(first)),
        (Reference::Branch("release-2".to_owned()), Some(second)),
        (Reference::Name("refs/heads/release".to_owned()), Some(first)),
        (Reference::Tag("v1.0.0".to_owned()), Some(first)),
        (range(">=1.0.0"), Some(first)),
        (range(">=2.0.0"), None),
        (Reference::Branch("missing".to_owned()), None),
    ];
    let probes = references.iter().map(|(reference, _)| remote.probe(reference, TIMEOUT));
    for (answer, (reference, expected)) in futures::future::join_all(probes).await.into_iter().zip(&references) {
        match (answer, expected) {
            (Ok(revision), Some(commit)) => assert_eq!(revision.commit, *commit, "{reference}"),
            (Err(SourceError::RefNotFound { .. }), None) => {}
            (answer, _) => panic!("{reference}: {answer:?}"),
        }
    }
    let used = world.server.requests() - requests;
    assert!(used <= 2, "{used} requests for eight refs");
}

#[tokio::test]
async fn a_probe_never_answers_with_what_was_true_before_it_was_asked() {
    let world = World::new();
    world.repository.commit("first", &[("a.yaml", Some("a: 1"))]).unwrap();
    let remote = world.remote();
    remote.probe(&main_branch(), TIMEOUT).await.unwrap();
    // The first probe hangs on its way to the server; the second is asked after the push.
    world.server.faults().set(Fault::Hang);
    let requests = world.server.requests();
    let first = tokio::spawn({
        let remote = remote.clone();
        async move { remote.probe(&main_branch(), Duration::from_secs(2)).await }
    });
    while world.server.requests() == requests {
        tokio::task::yield_now().await;
    }
    world.server.faults().clear();
    let pushed = world.repository.commit("second", &[("a.yaml", Some("a: 2"))]).unwrap();
    assert_eq!(remote.probe(&main_branch(), TIMEOUT).await.unwrap().commit, pushed);
    first.await.unwrap().unwrap_err();
}

#[tokio::test]
async fn snapshots_at_the_same_time_share_a_fetch() {
    let world = World::new();
    world.repository.commit("first", &[("a.yaml", Some("a: 1"))]).unwrap();
    let remote = world.remote();
    let revision = remote.probe(&main_branch(), TIMEOUT).await.unwrap();
    let requests = world.server.requests();
    let reference = main_branch();
    let work = (0..20).map(|_| remote.snapshot(&reference, &revision, None, TIMEOUT, CancellationToken::new()));
    for snapshot in futures::future::join_all(work).await {
        snapshot.unwrap();
    }
    assert_eq!(world.server.requests() - requests, 1);
}

#[tokio::test]
async fn what_is_too_large_is_refused() {
    let default = FetchLimits::default();
    let pack = |change: fn(&mut PackLimits)| {
        let mut limits = default;
        change(&mut limits.pack);
        limits
    };
    let cases = [
        (FetchLimits { bytes: 2_000, ..default }, "`URL` sends more than the limit of 2000 bytes"),
        (pack(|pack| pack.objects = 2), "`URL` sends more than the limit of 2 objects"),
        (pack(|pack| pack.object_bytes = 10_000), "`URL` sends more than the limit of 10000 bytes in one object"),
        (pack(|pack| pack.unfolded_bytes = 10_000), "`URL` sends more than the limit of 10000 bytes, unpacked"),
    ];
    for (limits, expected) in cases {
        let world = World::with_options(RemoteOptions { limits, ..RemoteOptions::default() });
        let big: String = (0..2_000_u64).map(|n| format!("{:x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
        world.repository.commit("first", &[("a/big.txt", Some(&big))]).unwrap();
        let error = observe(&world.remote(), &main_branch()).await.unwrap_err();
        assert_eq!(message(&error, &world), expected);
        assert_eq!(error.class(), Class::Permanent);
        assert_eq!(world.packs(), 0, "nothing half-written stays");
    }
}

#[tokio::test]
async fn a_redirect_on_the_same_host_is_followed_and_remembered() {
    let world = World::new();
    world.repository.commit("first", &[("a.yaml", Some("a: 1"))]).unwrap();
    world.server.require_basic("git", "right");
    let url = afresh::source::SourceUrl::parse(&world.server.url("platform")).unwrap();
    let remote = world.remotes.get(&url, &access(&[("username", "git"), ("password", "right")])).unwrap();
    observe(&remote, &main_branch()).await.unwrap();
    let paths: Vec<_> = world.server.records().into_iter().map(|record| record.path).collect();
    assert_eq!(paths[0], "/platform/info/refs");
    assert!(paths[1..].iter().all(|path| path.starts_with("/platform.git/")), "{paths:?}");
}

#[tokio::test]
async fn a_redirect_in_circles_ends() {
    let world = World::new();
    world.server.faults().set(Fault::Redirect(String::new()));
    let error = world.remote().probe(&main_branch(), TIMEOUT).await.unwrap_err();
    assert!(matches!(error, SourceError::Redirected { .. }), "{error}");
    assert!(world.server.requests() < 10);
}

#[tokio::test]
async fn a_fetch_that_breaks_off_leaves_what_was_held_and_nothing_else() {
    let world = World::new();
    let first = world.repository.commit("first", &[("a.yaml", Some("a: 1"))]).unwrap();
    let remote = world.remote();
    observe(&remote, &main_branch()).await.unwrap();
    world.repository.commit("second", &[("a.yaml", Some("a: 2"))]).unwrap();
    let commit = remote.probe(&main_branch(), TIMEOUT).await.unwrap().commit;
    for fault in [Fault::Truncate, Fault::Garbage, Fault::Status(500), Fault::Unreachable] {
        world.server.faults().set(fault.clone());
        let error = remote
            .snapshot(&main_branch(), &main_branch().at(commit), None, TIMEOUT, CancellationToken::new())
            .await
            .unwrap_err();
        assert!(matches!(error.class(), Class::Unreachable | Class::Transient), "{fault:?}: {error}");
        let held = remote
            .snapshot(&main_branch(), &main_branch().at(first), None, TIMEOUT, CancellationToken::new())
            .await
            .unwrap();
        assert_eq!(read(&held, "a.yaml").as_deref(), Some("a: 1"));
        assert_eq!(world.generations().len(), 1);
    }
    world.server.faults().clear();
    let snapshot = observe(&remote, &main_branch()).await.unwrap();
    assert_eq!(read(&snapshot, "a.yaml").as_deref(), Some("a: 2"));
    assert_eq!(world.packs(), 2);
}

#[tokio::test]
async fn the_newest_version_in_a_range_and_a_ref_by_its_full_name() {
    for fault in [Fault::None, Fault::WithoutVersion2] {
        let world = World::new();
        let first = world.repository.commit("first", &[("a.yaml", Some("a: 1"))]).unwrap();
        world.repository.tag("v1.9.0", first, None).unwrap();
        let second = world.repository.commit("second", &[("a.yaml", Some("a: 2"))]).unwrap();
        world.repository.tag("v1.10.0", second, Some("an annotated tag")).unwrap();
        let third = world.repository.commit("third", &[("a.yaml", Some("a: 3"))]).unwrap();
        world.repository.tag("v2.0.0-rc.1", third, None).unwrap();
        world.server.faults().set(fault.clone());
        let remote = world.remote();
        let cases = [
            (range(">=1.0.0"), format!("v1.10.0@sha1:{second}"), "a: 2"),
            (range("<1.10"), format!("v1.9.0@sha1:{first}"), "a: 1"),
            (range(">=1.0.0-0"), format!("v2.0.0-rc.1@sha1:{third}"), "a: 3"),
            (Reference::Name("refs/heads/main".to_owned()), format!("refs/heads/main@sha1:{third}"), "a: 3"),
            (Reference::Name("refs/tags/v1.10.0".to_owned()), format!("refs/tags/v1.10.0@sha1:{second}"), "a: 2"),
            (Reference::Name("HEAD".to_owned()), format!("HEAD@sha1:{third}"), "a: 3"),
        ];
        for (reference, revision, content) in cases {
            let snapshot = observe(&remote, &reference).await.unwrap();
            assert_eq!(snapshot.revision.to_string(), revision, "{reference} {fault:?}");
            assert_eq!(read(&snapshot, "a.yaml").as_deref(), Some(content));
        }
        let error = remote.probe(&range(">=3"), TIMEOUT).await.unwrap_err();
        assert_eq!(message(&error, &world), "`URL` has no tag with a version in `>=3`");
        assert_eq!(error.class(), Class::Transient, "a push is all it takes");
        let local = SourceUrl::parse(world.repository.path().to_str().unwrap()).unwrap();
        let remotes = world.restart_with(RemoteOptions { allow_local_sources: true, ..Default::default() });
        let remote = remotes.remotes.get(&local, &access(&[])).unwrap();
        let found = remote.probe(&range("1.x"), TIMEOUT).await.unwrap();
        assert_eq!(found.to_string(), format!("v1.10.0@sha1:{second}"));
    }
}

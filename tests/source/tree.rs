//! Snapshots as trees of files, from servers and from repositories on this machine.

use afresh::manifest::{EntryKind, Tree, TreeError};
use afresh::source::{Class, RemoteOptions, SourceError, SourceUrl};
use tokio_util::sync::CancellationToken;

use crate::support::{TIMEOUT, World, access, main_branch, names, observe, read};

#[tokio::test]
async fn entries_are_listed_by_name_with_their_kinds() {
    let world = World::new();
    let files = [("b/x.yaml", Some("x")), ("b.yaml", Some("b")), ("b-c", Some("-")), ("a/b/c/d.yaml", Some("d"))];
    world.repository.commit("first", &files).unwrap();
    world.repository.commit_symlinks("links", &[("a/link", "../b.yaml"), ("out", "/etc/passwd")]).unwrap();
    let snapshot = observe(&world.remote(), &main_branch()).await.unwrap();
    assert_eq!(names(&snapshot, ""), ["a", "b", "b-c", "b.yaml", "out"]);
    assert_eq!(names(&snapshot, "a"), ["b", "link"]);
    let kind = |path: &str| snapshot.entry(path).unwrap().map(|entry| entry.kind);
    assert_eq!(kind(""), Some(EntryKind::Directory));
    assert_eq!(kind("a/b/c"), Some(EntryKind::Directory));
    assert_eq!(kind("a/b/c/d.yaml"), Some(EntryKind::File));
    assert_eq!(kind("out"), Some(EntryKind::Symlink));
    assert_eq!(read(&snapshot, "a/link").as_deref(), Some("../b.yaml"), "a link is not followed");
    for missing in ["c", "b.yaml/x", "a/../b.yaml", "/b.yaml", "a//b", "a/link/x", "."] {
        assert_eq!(kind(missing), None, "{missing}");
        assert_eq!(snapshot.list(missing).unwrap(), None, "{missing}");
        assert_eq!(snapshot.read(missing, 10).unwrap(), None, "{missing}");
    }
    assert_eq!(snapshot.list("b.yaml").unwrap(), None);
    assert_eq!(snapshot.read("a", 10).unwrap(), None);
}

#[tokio::test]
async fn equal_content_has_equal_ids() {
    let world = World::new();
    world.repository.commit("first", &[("a/x.yaml", Some("x")), ("b/y.yaml", Some("y"))]).unwrap();
    let remote = world.remote();
    let first = observe(&remote, &main_branch()).await.unwrap();
    world.repository.commit("second", &[("a/x.yaml", Some("z"))]).unwrap();
    let second = observe(&remote, &main_branch()).await.unwrap();
    assert_ne!(first.tree_id(), second.tree_id());
    assert_ne!(first.entry("a").unwrap(), second.entry("a").unwrap());
    assert_eq!(first.entry("b").unwrap(), second.entry("b").unwrap());
    world.repository.commit("back", &[("a/x.yaml", Some("x"))]).unwrap();
    let third = observe(&remote, &main_branch()).await.unwrap();
    assert_ne!(first.revision, third.revision);
    assert_eq!(first.tree_id(), third.tree_id());
}

#[tokio::test]
async fn ignore_rules_apply_on_the_way_down() {
    let world = World::new();
    let files = [
        (".gitignore", Some("x")),
        ("logo.png", Some("x")),
        ("apps/web.yaml", Some("web")),
        ("apps/notes.txt", Some("x")),
        ("apps/.sourceignore", Some("*.txt\n/local/\n")),
        ("apps/local/x.yaml", Some("x")),
        ("apps/sub/local/x.yaml", Some("x")),
        ("docs/readme.md", Some("x")),
    ];
    world.repository.commit("first", &files).unwrap();
    let snapshot = observe(&world.remote(), &main_branch()).await.unwrap();
    assert_eq!(names(&snapshot, ""), ["apps", "docs"]);
    assert_eq!(names(&snapshot, "apps"), [".sourceignore", "sub", "web.yaml"]);
    assert_eq!(snapshot.entry("apps/local/x.yaml").unwrap(), None, "below a hidden folder");
    assert_eq!(names(&snapshot, "apps/sub/local"), ["x.yaml"]);

    let narrowed = snapshot.with_ignore(Some("/*\n!/apps\n"));
    assert_eq!(names(&narrowed, ""), ["apps"]);
    assert_eq!(read(&narrowed, "apps/web.yaml").as_deref(), Some("web"));
    assert_eq!(narrowed.list("docs").unwrap(), None);
    assert_eq!(names(&snapshot, ""), ["apps", "docs"], "the other one is as before");
}

#[tokio::test]
async fn a_huge_blob_is_refused_by_its_size_before_it_is_read() {
    let world = World::new();
    let huge = vec![0_u8; 50 * 1024 * 1024];
    world.repository.commit_bytes("first", &[("huge.yaml", &huge)]).unwrap();
    let snapshot = observe(&world.remote(), &main_branch()).await.unwrap();
    let error = snapshot.read("huge.yaml", 1024).unwrap_err();
    assert!(matches!(error, TreeError::TooLarge { size, limit: 1024, .. } if size == huge.len() as u64), "{error}");
    assert_eq!(snapshot.read("huge.yaml", 64 * 1024 * 1024).unwrap().unwrap().len(), huge.len());
}

#[tokio::test]
async fn many_threads_may_read_one_snapshot() {
    let world = World::new();
    let paths: Vec<_> = (0..200).map(|n| format!("apps/{n}/app.yaml")).collect();
    let files: Vec<_> = paths.iter().map(|path| (path.as_str(), Some(path.as_str()))).collect();
    world.repository.commit("first", &files).unwrap();
    let snapshot = observe(&world.remote(), &main_branch()).await.unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for path in &paths {
                    assert_eq!(read(&snapshot, path).as_deref(), Some(path.as_str()));
                }
            });
        }
    });
}

#[tokio::test]
async fn repositories_on_this_machine_are_read_in_place() {
    let world = World::with_options(RemoteOptions { allow_local_sources: true, ..RemoteOptions::default() });
    let path = world.repository.path().display().to_string();
    for text in [path.clone(), format!("file://{path}")] {
        let remote = world.remotes.get(&SourceUrl::parse(&text).unwrap(), &access(&[])).unwrap();
        let error = remote.probe(&main_branch(), TIMEOUT).await;
        if world.repository.tip("main").unwrap().is_none() {
            assert!(matches!(error, Err(SourceError::EmptyRepository { .. })), "{error:?}");
        }
        let commit = world.repository.commit("next", &[("a.yaml", Some(&text))]).unwrap();
        let snapshot = observe(&remote, &main_branch()).await.unwrap();
        assert_eq!(snapshot.revision.to_string(), format!("main@sha1:{commit}"));
        assert_eq!(read(&snapshot, "a.yaml"), Some(text));

        let other = afresh::source::Reference::Branch("other".to_owned());
        assert!(matches!(observe(&remote, &other).await, Err(SourceError::RefNotFound { .. })));
        let missing = "0123456789".repeat(4);
        let gone = git2::Oid::from_str(&missing).unwrap();
        let error = remote
            .snapshot(&main_branch(), &main_branch().at(gone), None, TIMEOUT, CancellationToken::new())
            .await
            .unwrap_err();
        assert!(matches!(error, SourceError::CommitNotFound { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_worktree_is_as_good_as_a_bare_repository() {
    let world = World::with_options(RemoteOptions { allow_local_sources: true, ..RemoteOptions::default() });
    let path = world.folder.path().join("work");
    let git = |arguments: &[&str]| {
        let output = std::process::Command::new("git")
            .arg("-C")
            .arg(&path)
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .envs([("GIT_AUTHOR_NAME", "a"), ("GIT_AUTHOR_EMAIL", "a@example.com")])
            .envs([("GIT_COMMITTER_NAME", "a"), ("GIT_COMMITTER_EMAIL", "a@example.com")])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    std::fs::create_dir(&path).unwrap();
    git(&["init", "-q", "-b", "main"]);
    let remote = world.remotes.get(&SourceUrl::parse(path.to_str().unwrap()).unwrap(), &access(&[])).unwrap();
    for number in 0..3 {
        std::fs::write(path.join("a.yaml"), number.to_string()).unwrap();
        git(&["add", "-A"]);
        git(&["commit", "-q", "-m", "next"]);
        // Objects move into a pack under a snapshot that is open.
        let snapshot = observe(&remote, &main_branch()).await.unwrap();
        git(&["gc", "-q", "--prune=now"]);
        assert_eq!(read(&snapshot, "a.yaml"), Some(number.to_string()));
    }
}

#[tokio::test]
async fn repositories_on_this_machine_need_leave() {
    let world = World::new();
    let url = SourceUrl::parse(world.repository.path().to_str().unwrap()).unwrap();
    let Err(error) = world.remotes.get(&url, &access(&[])) else { panic!("local sources are off by default") };
    assert!(error.to_string().ends_with("repositories on this machine need `--allow-local-sources`"), "{error}");
    assert_eq!(error.class(), Class::Permanent);
}

#[tokio::test]
async fn a_path_without_a_repository_is_not_found() {
    let world = World::with_options(RemoteOptions { allow_local_sources: true, ..RemoteOptions::default() });
    let url = SourceUrl::parse(world.folder.path().join("nothing").to_str().unwrap()).unwrap();
    let remote = world.remotes.get(&url, &access(&[])).unwrap();
    let error = remote.probe(&main_branch(), TIMEOUT).await.unwrap_err();
    assert!(matches!(error, SourceError::NotFound { .. }), "{error}");
}

#[tokio::test]
async fn some_directories_alone_and_parts_of_other_trees_are_seen() {
    use afresh::manifest::{EntryKind, Tree};
    use afresh::source::mount::names as path;
    use afresh::source::{Mount, Sparse};

    let world = World::new();
    let files = [
        (".sourceignore", "apps/a/\n"),
        ("root.yaml", "r"),
        ("apps/a/x.yaml", "a"),
        ("apps/b/y.yaml", "b"),
        ("base/z.yaml", "z"),
        ("base/file", "f"),
    ];
    let all: Vec<_> = files.iter().map(|(path, text)| (*path, Some(*text))).collect();
    world.repository.commit("first", &all).unwrap();
    let whole = observe(&world.remote(), &main_branch()).await.unwrap();
    assert_eq!(names(&whole, "apps"), ["b"], "the root's rules hide the other");

    let sparse =
        |paths: &[&str]| Sparse::parse(&paths.iter().map(|path| (*path).to_owned()).collect::<Vec<_>>()).unwrap();
    let some = whole.with_sparse(sparse(&["apps/b", "base"])).unwrap().unwrap();
    assert_eq!(names(&some, ""), ["apps", "base"]);
    assert_eq!(names(&some, "apps"), ["b"]);
    assert_eq!(read(&some, "apps/b/y.yaml").as_deref(), Some("b"));
    assert_eq!((read(&some, "root.yaml"), some.list("apps/a").unwrap()), (None, None));
    assert_eq!(
        whole.with_sparse(sparse(&["nowhere", "root.yaml", "base"])).unwrap().unwrap_err(),
        ["nowhere", "root.yaml"]
    );

    // The tree of the second commit with a directory of the first one in it.
    world.repository.commit("second", &[("base/z.yaml", Some("z2")), ("apps/b/y.yaml", Some("b2"))]).unwrap();
    let newer = observe(&world.remote(), &main_branch()).await.unwrap();
    let mount =
        |at: &str, from: &str| Mount { at: path(at).unwrap(), from: path(from).unwrap(), snapshot: some.clone() };
    let mixed = newer.with_mounts(vec![mount("base/file", "base"), mount("vendor/deep/b", "apps/b")]);
    assert_eq!(names(&mixed, ""), [".sourceignore", "apps", "base", "root.yaml", "vendor"].map(String::from).to_vec());
    assert_eq!(names(&mixed, "base"), ["file", "z.yaml"]);
    assert_eq!(names(&mixed, "base/file"), ["file", "z.yaml"], "it replaces the file of that name");
    assert_eq!(names(&mixed, "vendor/deep/b"), ["y.yaml"]);
    for (at, content) in [("base/z.yaml", "z2"), ("base/file/z.yaml", "z"), ("vendor/deep/b/y.yaml", "b")] {
        assert_eq!(read(&mixed, at).as_deref(), Some(content), "{at}");
    }
    assert_eq!(read(&mixed, "vendor/deep"), None);
    let kind = |path: &str| mixed.entry(path).unwrap().map(|entry| (entry.name, entry.kind));
    assert_eq!(kind("vendor"), Some(("vendor".to_owned(), EntryKind::Directory)));
    assert_eq!(kind("vendor/deep/b"), Some(("b".to_owned(), EntryKind::Directory)));
    assert_eq!(kind("vendor/other"), None);

    // Ids tell whether anything below changed, also in what others bring.
    let id = |tree: &afresh::source::Snapshot, path: &str| tree.entry(path).unwrap().unwrap().id;
    let other = newer.with_mounts(vec![mount("base/file", "apps"), mount("vendor/deep/b", "apps/b")]);
    for (path, same) in [("vendor", true), ("apps", true), ("base", false), ("", false)] {
        assert_eq!(id(&mixed, path) == id(&other, path), same, "{path}");
    }
    assert_ne!(mixed.tree_id(), newer.tree_id());
}

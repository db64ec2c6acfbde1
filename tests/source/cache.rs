//! The cache may vanish, rot, or be left by another process.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use tokio_util::sync::CancellationToken;

use crate::support::{TIMEOUT, World, main_branch, observe, read};

#[tokio::test]
async fn a_cache_that_vanished_is_fetched_anew() {
    let world = World::new();
    let first = world.repository.commit("first", &[("a.yaml", Some("a: 1"))]).unwrap();
    let remote = world.remote();
    observe(&remote, &main_branch()).await.unwrap();
    fs::remove_dir_all(world.folder.path().join("data/git")).unwrap();
    let again = remote
        .snapshot(&main_branch(), &main_branch().at(first), None, TIMEOUT, CancellationToken::new())
        .await
        .unwrap();
    assert_eq!(read(&again, "a.yaml").as_deref(), Some("a: 1"));

    world.repository.commit("second", &[("a.yaml", Some("a: 2"))]).unwrap();
    fs::remove_dir_all(world.folder.path().join("data/git")).unwrap();
    let newer = observe(&remote, &main_branch()).await.unwrap();
    assert_eq!(read(&newer, "a.yaml").as_deref(), Some("a: 2"));
}

#[tokio::test]
async fn a_corrupted_cache_is_fetched_anew() {
    let world = World::new();
    let first = world.repository.commit("first", &[("a.yaml", Some("a: 1"))]).unwrap();
    observe(&world.remote(), &main_branch()).await.unwrap();
    rot(&world);
    let remote = world.remote();
    let snapshot = remote
        .snapshot(&main_branch(), &main_branch().at(first), None, TIMEOUT, CancellationToken::new())
        .await
        .unwrap();
    assert_eq!(read(&snapshot, "a.yaml").as_deref(), Some("a: 1"));
    assert_eq!(world.generations().len(), 1, "the rotten generation is gone");
}

#[tokio::test]
async fn a_cache_that_rots_under_a_running_process_heals_with_the_next_snapshot() {
    let world = World::new();
    let commit = world.repository.commit("first", &[("a.yaml", Some("a: 1")), ("b/c.yaml", Some("c: 1"))]).unwrap();
    let remote = world.remote();
    let old = observe(&remote, &main_branch()).await.unwrap();
    for generation in world.generations() {
        for file in fs::read_dir(generation.join("objects/pack")).unwrap() {
            fs::remove_file(file.unwrap().path()).unwrap();
        }
    }
    let new = remote
        .snapshot(&main_branch(), &main_branch().at(commit), None, TIMEOUT, CancellationToken::new())
        .await
        .unwrap();
    assert_eq!(read(&new, "b/c.yaml").as_deref(), Some("c: 1"));
    drop(old);
    assert_eq!(world.generations().len(), 1);
}

#[tokio::test]
async fn many_packs_are_swapped_for_one_and_readers_keep_theirs() {
    let world = World::new();
    world.repository.commit("first", &[("a.yaml", Some("0")), ("b.yaml", Some("b"))]).unwrap();
    let remote = world.remote();
    let first = observe(&remote, &main_branch()).await.unwrap();
    for number in 1..60 {
        let content = number.to_string();
        world.repository.commit("next", &[("a.yaml", Some(&content))]).unwrap();
        let snapshot = observe(&remote, &main_branch()).await.unwrap();
        assert_eq!(read(&snapshot, "a.yaml"), Some(content));
        assert_eq!(read(&snapshot, "b.yaml").as_deref(), Some("b"));
    }
    assert_eq!(world.generations().len(), 2, "the first snapshot still reads from the old one");
    assert_eq!(read(&first, "a.yaml").as_deref(), Some("0"));
    drop(first);
    assert_eq!(world.generations().len(), 1);
    assert!(world.packs() < 20, "{} packs", world.packs());
}

#[tokio::test]
async fn a_restart_goes_on_with_what_was_held() {
    let world = World::new();
    let commit = world.repository.commit("first", &[("a.yaml", Some("a: 1"))]).unwrap();
    observe(&world.remote(), &main_branch()).await.unwrap();
    let world = world.restart();
    let requests = world.server.requests();
    let held = world
        .remote()
        .snapshot(&main_branch(), &main_branch().at(commit), None, TIMEOUT, CancellationToken::new())
        .await
        .unwrap();
    assert_eq!(read(&held, "a.yaml").as_deref(), Some("a: 1"));
    assert_eq!(world.server.requests(), requests, "no server was asked");
    drop(held);

    // What rotted while nobody looked is found out as well.
    rot(&world);
    let world = world.restart();
    let anew = world
        .remote()
        .snapshot(&main_branch(), &main_branch().at(commit), None, TIMEOUT, CancellationToken::new())
        .await
        .unwrap();
    assert_eq!(read(&anew, "a.yaml").as_deref(), Some("a: 1"));
}

/// Turns every pack into noise, in place.
fn rot(world: &World) {
    for generation in world.generations() {
        for file in fs::read_dir(generation.join("objects/pack")).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "pack") {
                fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
                let mut bytes = fs::read(&path).unwrap();
                bytes.iter_mut().skip(12).for_each(|byte| *byte ^= 0x5a);
                fs::write(&path, bytes).unwrap();
            }
        }
    }
}

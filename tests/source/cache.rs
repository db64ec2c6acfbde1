//! The cache may vanish, rot, or be left by another process.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use afresh::sandbox::git_server::Fault;
use git2::Oid;
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

/// Packs beyond which a cache is fetched anew.
const PACKS_MAX: usize = 50;
/// What each commit brings that the next one takes away; it can't be compressed.
const NOISE_BYTES: usize = 64 * 1024;

fn noise() -> Vec<u8> {
    std::iter::repeat_with(rand::random).take(NOISE_BYTES).collect()
}

/// A commit that changes a number, and brings another noise.
fn grow(world: &World, number: usize) -> Oid {
    world.repository.commit_bytes("next", &[("noise", &noise())]).unwrap();
    world.repository.commit("next", &[("a.yaml", Some(&number.to_string()))]).unwrap()
}

/// What all generations have on disk.
fn bytes(world: &World) -> u64 {
    let of = |folder: &PathBuf| {
        let files = fs::read_dir(folder.join("objects/pack")).unwrap();
        files.map(|file| file.unwrap().metadata().unwrap().len()).sum::<u64>()
    };
    world.generations().iter().map(of).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_packs_are_swapped_for_one_and_readers_keep_theirs() {
    let world = World::new();
    world.repository.commit("first", &[("a.yaml", Some("0")), ("b.yaml", Some("b"))]).unwrap();
    let remote = world.remote();
    let first = Arc::new(observe(&remote, &main_branch()).await.unwrap());
    // somebody reads from it all the while
    let (reading, swapped) = (first.clone(), Arc::new(AtomicBool::new(false)));
    let reader = tokio::task::spawn_blocking({
        let swapped = swapped.clone();
        move || {
            let mut read_after = 0;
            while read_after < 100 {
                assert_eq!(read(&reading, "a.yaml").as_deref(), Some("0"));
                read_after += usize::from(swapped.load(Ordering::Relaxed));
            }
        }
    });
    let mut most = 0;
    for number in 1..PACKS_MAX + 10 {
        grow(&world, number);
        let snapshot = observe(&remote, &main_branch()).await.unwrap();
        assert_eq!(read(&snapshot, "a.yaml"), Some(number.to_string()));
        assert_eq!(read(&snapshot, "b.yaml").as_deref(), Some("b"));
        most = most.max(bytes(&world));
    }
    assert_eq!(world.generations().len(), 2, "the first snapshot still reads from the old one");
    swapped.store(true, Ordering::Relaxed);
    reader.await.expect("what was read in flight is read");
    assert_eq!(read(&first, "b.yaml").as_deref(), Some("b"), "what nobody had read before the swap");
    drop(first);
    assert_eq!(world.generations().len(), 1);
    assert!(world.packs() < 20, "{} packs", world.packs());
    let left = bytes(&world);
    assert!(most > (PACKS_MAX * NOISE_BYTES) as u64 && left < most / 3, "{left} of {most} bytes are left");
}

#[tokio::test]
async fn a_cache_that_cannot_be_fetched_anew_is_read_as_it_is() {
    let world = World::new();
    world.repository.commit("first", &[("a.yaml", Some("0"))]).unwrap();
    let remote = world.remote();
    let mut last = world.repository.tip("main").unwrap().unwrap();
    for number in 0..PACKS_MAX {
        if number > 0 {
            last = grow(&world, number);
        }
        observe(&remote, &main_branch()).await.unwrap();
    }
    assert_eq!(world.packs(), PACKS_MAX);
    let newer = grow(&world, PACKS_MAX);
    world.server.faults().set(Fault::Truncate);
    let asked = main_branch().at(newer);
    let failed = remote.snapshot(&main_branch(), &asked, None, TIMEOUT, CancellationToken::new()).await;
    assert!(failed.is_err());
    assert_eq!(world.generations().len(), 1, "half of a fetch is not kept");
    let held = remote.held(&main_branch(), &main_branch().at(last), None, TIMEOUT).await.unwrap().expect("it is held");
    assert_eq!(read(&held, "a.yaml"), Some((PACKS_MAX - 1).to_string()));
    drop(held);

    world.server.faults().clear();
    let fresh = remote.snapshot(&main_branch(), &asked, None, TIMEOUT, CancellationToken::new()).await.unwrap();
    assert_eq!(read(&fresh, "a.yaml"), Some(PACKS_MAX.to_string()));
    drop(fresh);
    assert_eq!((world.generations().len(), world.packs()), (1, 1));
}

#[tokio::test]
async fn a_process_killed_while_it_fetched_anew_left_what_it_had_before() {
    let world = World::new();
    let commit = world.repository.commit("first", &[("a.yaml", Some("a: 1"))]).unwrap();
    observe(&world.remote(), &main_branch()).await.unwrap();
    // what SIGKILL leaves of a generation that was being filled: no commit is told to be whole
    let [current] = &world.generations()[..] else { panic!("one generation") };
    let number: u32 = current.file_name().unwrap().to_str().unwrap().parse().unwrap();
    let next = current.with_file_name((number + 1).to_string()).join("objects/pack");
    fs::create_dir_all(&next).unwrap();
    fs::write(next.join("pack_git2_half"), "PACK").unwrap();
    let world = world.restart();
    world.server.faults().set(Fault::Unreachable);
    let held = world.remote().held(&main_branch(), &main_branch().at(commit), None, TIMEOUT).await.unwrap();
    assert_eq!(read(&held.expect("it is held"), "a.yaml").as_deref(), Some("a: 1"));
    assert_eq!(world.generations().len(), 1, "half of a fetch is removed");

    world.server.faults().clear();
    world.repository.commit("second", &[("a.yaml", Some("a: 2"))]).unwrap();
    let newer = observe(&world.remote(), &main_branch()).await.unwrap();
    assert_eq!(read(&newer, "a.yaml").as_deref(), Some("a: 2"));
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

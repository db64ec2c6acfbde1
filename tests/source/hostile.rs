//! Packs that are not what was asked for.

use std::io::Write as _;

use afresh::sandbox::git_server::Fault;
use afresh::source::Class;
use flate2::Compression;
use flate2::write::ZlibEncoder;
use tokio_util::sync::CancellationToken;

use crate::support::{TIMEOUT, World, main_branch, message, observe, read};

/// A good pack, of something else.
fn another_pack() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let repository = git2::Repository::init_bare(folder.path()).unwrap();
    let mut builder = repository.packbuilder().unwrap();
    builder.insert_object(repository.blob(b"something else").unwrap(), None).unwrap();
    let mut pack = git2::Buf::new();
    builder.write_buf(&mut pack).unwrap();
    pack.to_vec()
}

/// A pack of one delta on what nobody has, with a hash that isn't its own.
fn delta_without_base() -> Vec<u8> {
    let mut content = ZlibEncoder::new(Vec::new(), Compression::fast());
    content.write_all(&[1, 1, 1, b'x']).unwrap();
    [&b"PACK\0\0\0\x02\0\0\0\x01\x74"[..], &[0xab; 20], &content.finish().unwrap(), &[0; 20]].concat()
}

#[tokio::test]
async fn a_pack_that_is_not_what_was_asked_for_is_refused_and_leaves_nothing() {
    let cut = another_pack();
    let cut = cut[..cut.len() - 25].to_vec();
    for (pack, says) in [
        (another_pack(), "it lacks the commit that was asked for"),
        (delta_without_base(), "its pack is broken"),
        (cut, "its pack is broken"),
        (b"PACK\0\0\0\x02\0\0\0\0".to_vec(), "its pack is broken"),
        (b"PA".to_vec(), "it sent something that is not a pack"),
    ] {
        let world = World::new();
        let first = world.repository.commit("first", &[("a.yaml", Some("a: 1"))]).unwrap();
        let remote = world.remote();
        world.server.faults().set(Fault::Pack(pack.clone().into()));
        let error = observe(&remote, &main_branch()).await.unwrap_err();
        assert!(message(&error, &world).contains(says), "{error}");
        assert_eq!(error.class(), Class::Transient, "the next answer may be another");
        assert_eq!(world.packs(), 0, "{says}");

        // The same to one who holds something: that is not lost.
        world.server.faults().clear();
        let held = observe(&remote, &main_branch()).await.unwrap();
        world.repository.commit("second", &[("a.yaml", Some("a: 2"))]).unwrap();
        world.server.faults().set(Fault::Pack(pack.into()));
        let error = observe(&remote, &main_branch()).await.unwrap_err();
        assert!(message(&error, &world).contains(says), "{error}");
        assert_eq!(read(&held, "a.yaml").as_deref(), Some("a: 1"));

        world.server.faults().clear();
        let second = observe(&remote, &main_branch()).await.unwrap();
        assert_eq!(read(&second, "a.yaml").as_deref(), Some("a: 2"));
        let cancel = CancellationToken::new();
        let first = remote.snapshot(&main_branch(), &main_branch().at(first), None, TIMEOUT, cancel).await.unwrap();
        assert_eq!(read(&first, "a.yaml").as_deref(), Some("a: 1"));
    }
}

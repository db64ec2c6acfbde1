//! Probes and fetches over ssh: through a script in place of `ssh`, and (ignored, for CI) through a real sshd.
//!
//! The keys in `keys/` are for these tests alone; nothing else knows them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use afresh::source::credentials::{Use, from_secret};
use afresh::source::git::fetch::FetchLimits;
use afresh::source::{Access, Class, Remote, RemoteOptions, SourceError, SourceUrl};
use tokio_util::sync::CancellationToken;

use crate::support::sshd::Sshd;
use crate::support::{TIMEOUT, World, main_branch, observe, read};

const IDENTITY: &str = include_str!("keys/identity");
const IDENTITY_LOCKED: &str = include_str!("keys/identity_locked");
const PASSWORD: &str = "hunter2";

/// Notes how it was called, then does what `mode` says.
const FAKE: &str = r#"#!/bin/sh
here=$(dirname "$0")
printf '%s\n' "$@" > "$here/arguments"
echo "$GIT_PROTOCOL" > "$here/protocol"
stat -c %a . identity known_hosts > "$here/modes"
cp identity "$here/identity"; cp known_hosts "$here/known_hosts"
echo $$ > "$here/pid.new"; mv "$here/pid.new" "$here/pid"
for command; do :; done
case "$(cat "$here/mode")" in
  serve) eval "exec $command" ;;
  old) unset GIT_PROTOCOL; eval "exec $command" ;;
  hang) exec sleep 600 ;;
  trickle) while :; do printf 1; sleep 0.2; done ;;
  page) echo '<html>hello</html>' ;;
  silent) exit 0 ;;
  *) cat "$here/mode" >&2; exit 255 ;;
esac
"#;

struct Fake {
    world: World,
    folder: PathBuf,
}

impl Fake {
    fn new(mode: &str) -> Fake {
        Self::with_limits(mode, FetchLimits::default())
    }

    fn with_limits(mode: &str, limits: FetchLimits) -> Fake {
        let folder = tempfile::Builder::new().prefix("afresh-ssh-").tempdir().unwrap().keep();
        let program = folder.join("ssh");
        fs::write(&program, FAKE).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
        let fake =
            Fake { world: World::with_options(RemoteOptions { ssh: program, limits, ..Default::default() }), folder };
        fake.mode(mode);
        fake
    }

    fn mode(&self, mode: &str) {
        fs::write(self.folder.join("mode"), mode).unwrap();
    }

    fn noted(&self, name: &str) -> String {
        fs::read_to_string(self.folder.join(name)).unwrap()
    }

    fn remote(&self) -> Arc<Remote> {
        self.remote_with(&key(IDENTITY, None))
    }

    fn remote_with(&self, access: &Access) -> Arc<Remote> {
        let path = self.world.repository.path().display();
        let url = SourceUrl::parse(&format!("ssh://git@forge.example:2222{path}")).unwrap();
        self.world.remotes.get(&url, access).unwrap()
    }

    /// What lies in the folder for keys.
    fn keys_on_disk(&self) -> usize {
        fs::read_dir(self.world.folder.path().join("data/ssh")).unwrap().count()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn key(identity: &str, password: Option<&str>) -> Access {
    key_for(identity, password, "forge.example ssh-ed25519 AAAA")
}

fn key_for(identity: &str, password: Option<&str>, known_hosts: &str) -> Access {
    let entries = [("identity", Some(identity)), ("password", password), ("known_hosts", Some(known_hosts))];
    let data = entries.iter().filter_map(|(key, value)| Some(((*key).to_owned(), value.as_ref()?.as_bytes().to_vec())));
    from_secret(&data.collect(), Use::Ssh).unwrap()
}

/// Without this test's folder.
fn message(error: &SourceError, remote: &Remote) -> String {
    error.to_string().replace(&remote.url().to_string(), "URL")
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !done() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_repository_is_followed_over_ssh_in_both_versions_of_the_protocol() {
    for mode in ["serve", "old"] {
        let fake = Fake::new(mode);
        let remote = fake.remote();
        let error = remote.probe(&main_branch(), TIMEOUT).await.unwrap_err();
        assert_eq!(message(&error, &remote), "the repository `URL` has no commits", "{mode}");

        let first =
            fake.world.repository.commit("first", &[("a.yaml", Some("a: 1")), ("b.yaml", Some("b: 1"))]).unwrap();
        let snapshot = observe(&remote, &main_branch()).await.unwrap();
        assert_eq!(snapshot.revision.to_string(), format!("main@sha1:{first}"));
        let second = fake.world.repository.commit("second", &[("a.yaml", Some("a: 2"))]).unwrap();
        let snapshot = observe(&remote, &main_branch()).await.unwrap();
        assert_eq!(snapshot.revision.commit, second);
        assert_eq!(read(&snapshot, "a.yaml").as_deref(), Some("a: 2"));
        assert_eq!(read(&snapshot, "b.yaml").as_deref(), Some("b: 1"));
        let missing = afresh::source::Reference::Branch("other".to_owned());
        let error = remote.probe(&missing, TIMEOUT).await.unwrap_err();
        assert_eq!(message(&error, &remote), "`URL` has no branch `other`");

        let arguments = fake.noted("arguments");
        assert!(
            arguments.starts_with("-F\nnone\n-T\n-o\nBatchMode=yes\n-o\nStrictHostKeyChecking=yes\n"),
            "{arguments}"
        );
        assert!(arguments.contains("\n-p\n2222\n-l\ngit\n--\nforge.example\ngit-upload-pack '/"), "{arguments}");
        assert_eq!(fake.noted("protocol"), "version=2\n");
        assert_eq!(fake.noted("modes"), "700\n600\n600\n", "nobody else may read the key");
        assert_eq!(fake.noted("identity"), IDENTITY);
        assert_eq!(fake.noted("known_hosts"), "forge.example ssh-ed25519 AAAA\n");
        assert_eq!(fake.keys_on_disk(), 0);
    }
}

#[tokio::test]
async fn an_encrypted_key_is_opened_with_its_password() {
    let fake = Fake::new("serve");
    fake.world.repository.commit("first", &[("a.yaml", Some("a: 1"))]).unwrap();
    observe(&fake.remote_with(&key(IDENTITY_LOCKED, Some(PASSWORD))), &main_branch()).await.unwrap();
    let given = ssh_key::PrivateKey::from_openssh(fake.noted("identity")).unwrap();
    assert!(!given.is_encrypted(), "`ssh` has nobody to ask for a password");

    let remote = fake.remote_with(&key(IDENTITY_LOCKED, Some("wrong")));
    let error = remote.probe(&main_branch(), TIMEOUT).await.unwrap_err();
    assert_eq!(
        message(&error, &remote),
        "`identity` of the Secret for `URL` can't be used: `password` doesn't open it"
    );
    assert_eq!((error.class(), fake.keys_on_disk()), (Class::Auth, 0));
}

#[tokio::test]
async fn what_goes_wrong_before_the_first_byte_is_named() {
    let cases = [
        (
            "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nSHA256:abc.\nHost key verification failed.",
            Class::Auth,
            "the host key of `URL` is not the one in `known_hosts`: it shows `SHA256:abc`",
        ),
        ("git@forge.example: Permission denied (publickey).", Class::Auth, "the host of `URL` doesn't accept the key"),
        ("fatal: 'x' does not appear to be a git repository", Class::NotFound, "there is no repository at `URL`"),
        (
            "ssh: connect: Connection refused",
            Class::Unreachable,
            "`URL` is unreachable: ssh: connect: Connection refused",
        ),
        ("silent", Class::Unreachable, "`URL` is unreachable: `ssh` ended without a word"),
        (
            "page",
            Class::Transient,
            "`URL` gave an answer that is not understood: a packet's length is not four hexadecimal digits",
        ),
    ];
    let fake = Fake::new("serve");
    let remote = fake.remote();
    for (mode, class, expected) in cases {
        fake.mode(mode);
        let error = remote.probe(&main_branch(), TIMEOUT).await.unwrap_err();
        assert_eq!((error.class(), message(&error, &remote).as_str()), (class, expected), "{mode}");
        assert_eq!(fake.keys_on_disk(), 0);
    }
    let options = RemoteOptions { ssh: fake.folder.join("no-such-program"), ..Default::default() };
    let without = World::with_options(options);
    let url = SourceUrl::parse("ssh://git@forge.example/a").unwrap();
    let remote = without.remotes.get(&url, &key(IDENTITY, None)).unwrap();
    let error = remote.probe(&main_branch(), TIMEOUT).await.unwrap_err();
    let expected = "`URL` can't be used: the program `ssh` is not installed (package `openssh-client`)";
    assert_eq!(message(&error, &remote), expected);
    let error = without.remotes.get(&url, &Access::default()).err().unwrap();
    assert!(error.to_string().ends_with("ssh needs a Secret in `spec.secretRef` with `identity` and `known_hosts`"));
}

#[tokio::test]
async fn a_child_that_hangs_or_trickles_ends_with_its_deadline_or_its_cancellation() {
    let fake = Fake::new("hang");
    let commit = fake.world.repository.commit("first", &[("a.yaml", Some("a: 1"))]).unwrap();
    let remote = fake.remote();
    let is_gone = |pid: &str| !Path::new("/proc").join(pid.trim()).exists();
    for mode in ["hang", "trickle"] {
        fake.mode(mode);
        let error = remote.probe(&main_branch(), Duration::from_millis(1500)).await.unwrap_err();
        assert!(matches!(error, SourceError::Timeout { .. }), "{mode}: {error}");
        let pid = fake.noted("pid");
        until("the child has ended", || is_gone(&pid)).await;
        assert_eq!(fake.keys_on_disk(), 0);
    }
    fake.mode("hang");
    fs::remove_file(fake.folder.join("pid")).unwrap();
    let cancel = CancellationToken::new();
    let revision = main_branch().at(commit);
    let work = tokio::spawn({
        let (remote, cancel) = (remote.clone(), cancel.clone());
        async move { remote.snapshot(&main_branch(), &revision, None, TIMEOUT, cancel).await }
    });
    until("the child runs", || fake.folder.join("pid").exists()).await;
    cancel.cancel();
    assert!(matches!(work.await.unwrap(), Err(SourceError::Cancelled { .. })));
    let pid = fake.noted("pid");
    until("the child has ended", || is_gone(&pid)).await;
    assert_eq!(fake.keys_on_disk(), 0);
    fake.mode("serve");
    observe(&remote, &main_branch()).await.unwrap();
}

#[tokio::test]
async fn the_limits_of_a_fetch_hold_over_ssh() {
    let fake = Fake::with_limits("serve", FetchLimits { bytes: 2_000, ..FetchLimits::default() });
    let big: String = (0..20_000_u64).map(|n| format!("{:x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
    fake.world.repository.commit("first", &[("big.txt", Some(&big))]).unwrap();
    let remote = fake.remote();
    let error = observe(&remote, &main_branch()).await.unwrap_err();
    assert_eq!(message(&error, &remote), "`URL` sends more than the limit of 2000 bytes");
}

#[tokio::test]
#[ignore = "needs openssh-server; run by .ci/run"]
async fn a_real_sshd_is_followed_and_a_changed_host_key_stops_it_with_advice() {
    let sshd = Sshd::start(IDENTITY);
    let world = World::new();
    let first = world.repository.commit("first", &[("a.yaml", Some("a: 1"))]).unwrap();
    let url = SourceUrl::parse(&sshd.url(world.repository.path())).unwrap();
    until("sshd listens", || sshd.listens()).await;
    for access in [key_for(IDENTITY, None, &sshd.known_hosts()), key_for(IDENTITY, None, &sshd.known_hosts())] {
        let remote = world.remotes.get(&url, &access).unwrap();
        let snapshot = match observe(&remote, &main_branch()).await {
            Ok(snapshot) => snapshot,
            Err(error) => panic!("{error}: {}", sshd.log()),
        };
        assert_eq!(snapshot.revision.commit, first);
        assert_eq!(read(&snapshot, "a.yaml").as_deref(), Some("a: 1"));
    }

    // The key that `known_hosts` has is another one than the server's.
    let other = ssh_key::PrivateKey::from_openssh(IDENTITY).unwrap().public_key().to_openssh().unwrap();
    let changed = key_for(IDENTITY, None, &format!("[127.0.0.1]:{} {other}", sshd.port));
    let remote = world.remotes.get(&url, &changed).unwrap();
    let error = remote.probe(&main_branch(), TIMEOUT).await.unwrap_err();
    let text = message(&error, &remote);
    assert!(text.starts_with("the host key of `URL` is not the one in `known_hosts`: it shows `SHA256:"), "{text}");
    assert!(error.hint().unwrap().contains("replace the host's line in `known_hosts` of the Secret"));

    let unknown = key_for(IDENTITY, None, "elsewhere.example ssh-ed25519 AAAA");
    let remote = world.remotes.get(&url, &unknown).unwrap();
    let error = remote.probe(&main_branch(), TIMEOUT).await.unwrap_err();
    assert!(matches!(error, SourceError::HostKeyUnknown { .. }), "{error}");

    let stranger = key_for(IDENTITY_LOCKED, Some(PASSWORD), &sshd.known_hosts());
    let remote = world.remotes.get(&url, &stranger).unwrap();
    let error = remote.probe(&main_branch(), TIMEOUT).await.unwrap_err();
    assert_eq!(message(&error, &remote), "the host of `URL` doesn't accept the key");
}

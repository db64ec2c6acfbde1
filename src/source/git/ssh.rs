//! Git's protocol over ssh: each request is one child process `ssh … git-upload-pack '<path>'`, bytes in and out.
//!
//! The child reads no configuration, asks nobody, uses no agent, and talks only to a host whose key is in `known_hosts`
//! of the Secret. Its key is a file of its own in a private folder, removed as soon as the server let us in, whatever
//! happens. The child ends with the value that holds it.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use secrecy::{ExposeSecret, SecretString};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;

use crate::source::attempt::Attempt;
use crate::source::credentials::{Access, SshKey};
use crate::source::error::SourceError;
use crate::source::url::SshAddress;

/// What a child says on stderr is for messages; more than this is not read.
const COMPLAINT_BYTES_MAX: u64 = 16 * 1024;
/// A child that closed its output is about to end.
const END_MAX: Duration = Duration::from_secs(2);
/// A packet of Git's protocol has at most 64 kB.
const CHUNK_BYTES: usize = 64 * 1024;

const IDENTITY: &str = "identity";
const KNOWN_HOSTS: &str = "known_hosts";

/// The way to one remote over ssh.
pub struct SshTransport {
    command: PathBuf,
    /// Private folders of children are made here.
    folder: PathBuf,
    address: SshAddress,
    key: SshKey,
    /// The identity as `ssh` can read it: decrypting takes a tenth of a second.
    identity: OnceCell<SecretString>,
}

/// One child process.
pub struct Conversation {
    child: Child,
    /// `None` once everything was sent.
    input: Option<ChildStdin>,
    output: ChildStdout,
    /// What it says on stderr.
    complaint: Option<JoinHandle<String>>,
    /// The key, until the server let us in.
    files: Option<TempDir>,
    buffer: BytesMut,
}

impl SshTransport {
    /// `command` is the program `ssh`; `folder` is where private files may lie for a moment.
    pub fn new(command: PathBuf, folder: PathBuf, address: SshAddress, key: SshKey) -> SshTransport {
        SshTransport { command, folder, address, key, identity: OnceCell::new() }
    }

    /// Connects. What the server can is then read from the conversation.
    pub async fn open(&self, attempt: &Attempt) -> Result<Conversation, SourceError> {
        let identity =
            attempt.run("reading its key", self.identity.get_or_try_init(|| self.decrypt(attempt))).await??;
        let files = self.files(identity).map_err(|error| attempt.store(error.to_string()))?;
        let mut child = self.spawn(files.path()).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => SourceError::Unsupported {
                url: attempt.url.clone(),
                reason: "the program `ssh` is not installed (package `openssh-client`)".to_owned(),
            },
            _ => attempt.store(format!("`ssh` can't be started: {error}")),
        })?;
        let (Some(input), Some(output), Some(errors)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(attempt.store("`ssh` was started without pipes"));
        };
        let complaint = tokio::spawn(async move {
            let mut bytes = Vec::new();
            let mut errors = errors.take(COMPLAINT_BYTES_MAX);
            let _ = errors.read_to_end(&mut bytes).await;
            // Whatever else it says is let go, so that it never waits for us.
            let _ = tokio::io::copy(&mut errors.into_inner(), &mut tokio::io::sink()).await;
            String::from_utf8_lossy(&bytes).into_owned()
        });
        let (complaint, files) = (Some(complaint), Some(files));
        Ok(Conversation { child, input: Some(input), output, complaint, files, buffer: BytesMut::new() })
    }

    async fn decrypt(&self, attempt: &Attempt) -> Result<SecretString, SourceError> {
        let key = self.key.clone();
        let decrypted = tokio::task::spawn_blocking(move || key.decrypted()).await;
        decrypted
            .map_err(|_| attempt.store("the thread that decrypts its key died"))?
            .map_err(|reason| SourceError::Identity { url: attempt.url.clone(), reason })
    }

    fn files(&self, identity: &SecretString) -> io::Result<TempDir> {
        let private = fs::Permissions::from_mode(0o700);
        let files = tempfile::Builder::new().prefix("key-").permissions(private).tempdir_in(&self.folder)?;
        write_private(&files.path().join(IDENTITY), identity.expose_secret())?;
        write_private(&files.path().join(KNOWN_HOSTS), &self.key.known_hosts)?;
        Ok(files)
    }

    fn spawn(&self, files: &Path) -> io::Result<Child> {
        Command::new(&self.command)
            .args(arguments(&self.address))
            // Files are named relatively: no folder's name can be taken for a pattern or a list.
            .current_dir(files)
            .env("GIT_PROTOCOL", "version=2")
            .env("LC_ALL", "C")
            .env_remove("SSH_AUTH_SOCK")
            .env_remove("SSH_ASKPASS")
            .env_remove("DISPLAY")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
    }
}

/// The arguments of `ssh`, all of them ours but user, host, port and path, which were checked when the URL was read.
fn arguments(address: &SshAddress) -> Vec<String> {
    let options = [
        "BatchMode=yes",
        "StrictHostKeyChecking=yes",
        "UserKnownHostsFile=known_hosts",
        "GlobalKnownHostsFile=/dev/null",
        "UpdateHostKeys=no",
        "VerifyHostKeyDNS=no",
        "IdentitiesOnly=yes",
        "IdentityAgent=none",
        "PreferredAuthentications=publickey",
        "ControlMaster=no",
        "ControlPath=none",
        "ClearAllForwardings=yes",
        "PermitLocalCommand=no",
        "ConnectTimeout=10",
        // A child that outlives us ends by itself.
        "ServerAliveInterval=15",
        "ServerAliveCountMax=2",
        "SendEnv=GIT_PROTOCOL",
    ];
    let mut arguments = vec!["-F".to_owned(), "none".to_owned(), "-T".to_owned()];
    for option in options {
        arguments.extend(["-o".to_owned(), option.to_owned()]);
    }
    arguments.extend(["-i".to_owned(), IDENTITY.to_owned()]);
    if let Some(port) = address.port {
        arguments.extend(["-p".to_owned(), port.to_string()]);
    }
    arguments.extend(["-l".to_owned(), address.user.clone(), "--".to_owned(), address.host.clone()]);
    arguments.push(format!("git-upload-pack {}", quoted(&address.path)));
    arguments
}

/// For the shell on the other side.
fn quoted(path: &str) -> String {
    format!("'{}'", path.replace('\'', r"'\''").replace('!', r"'\!'"))
}

fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    // A key without its last newline is none for `ssh`.
    if text.ends_with('\n') { Ok(()) } else { file.write_all(b"\n") }
}

/// Makes the folder for private files, without what a process that was killed left in it.
pub(in crate::source) fn clean_folder(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => crate::source::data_dir::make_dir(folder),
    }
}

impl Conversation {
    /// The server let us in: the key is not needed any more.
    pub fn authenticated(&mut self) {
        self.files = None;
    }

    /// Sends everything that will be sent.
    pub async fn send(&mut self, request: &[u8], attempt: &Attempt) -> Result<(), SourceError> {
        let Some(mut input) = self.input.take() else { return Err(attempt.protocol("it was asked twice")) };
        let sent = attempt.run("sending a request", input.write_all(request)).await?;
        sent.map_err(|error| SourceError::Unreachable { url: attempt.url.clone(), reason: error.to_string() })
    }

    pub async fn chunk(&mut self, attempt: &Attempt) -> Result<Option<Bytes>, SourceError> {
        self.buffer.reserve(CHUNK_BYTES);
        match self.output.read_buf(&mut self.buffer).await {
            Ok(0) => Ok(None),
            Ok(_) => Ok(Some(self.buffer.split().freeze())),
            Err(error) => Err(SourceError::Unreachable { url: attempt.url.clone(), reason: error.to_string() }),
        }
    }

    /// Why there was no conversation.
    pub async fn failure(&mut self, access: &Access, attempt: &Attempt) -> SourceError {
        let complaint = match self.complaint.take() {
            Some(complaint) => tokio::time::timeout(END_MAX, complaint).await.ok().and_then(Result::ok),
            None => None,
        };
        let _ = tokio::time::timeout(END_MAX, self.child.wait()).await;
        understood(&complaint.unwrap_or_default(), access, attempt)
    }
}

/// What OpenSSH and Git hosts say, as an error.
fn understood(complaint: &str, access: &Access, attempt: &Attempt) -> SourceError {
    let url = attempt.url.clone();
    let said = |words: &str| complaint.contains(words);
    let fingerprint = complaint.split_whitespace().find(|word| word.starts_with("SHA256:"));
    let fingerprint = fingerprint.map(|word| word.trim_end_matches('.').to_owned());
    // The last line says what happened; those before it are greetings and details.
    let last = complaint.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    let reason = match access.scrub(last) {
        words if words.is_empty() => "`ssh` ended without a word".to_owned(),
        words => words,
    };
    if said("REMOTE HOST IDENTIFICATION HAS CHANGED") {
        return SourceError::HostKeyChanged { url, fingerprint: fingerprint.unwrap_or_else(|| "unknown".to_owned()) };
    }
    if said("Host key verification failed") || said("host key is known for") {
        return SourceError::HostKeyUnknown { url };
    }
    if said("Permission denied (") || said("Too many authentication failures") {
        return SourceError::KeyRefused { url };
    }
    if said("No user exists for uid") {
        let reason = "`ssh` runs only for users that `/etc/passwd` knows".to_owned();
        return SourceError::Unsupported { url, reason };
    }
    let absent = ["Repository not found", "does not appear to be a git repository", "could not be found", "not found."];
    if absent.iter().any(|words| said(words)) {
        return SourceError::NotFound { url };
    }
    SourceError::Unreachable { url, reason }
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::source::error::Class;
    use crate::source::url::{Location, SourceUrl};

    fn address(url: &str) -> SshAddress {
        match SourceUrl::parse(url).unwrap().location() {
            Location::Ssh(address) => address.clone(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_command_checks_host_keys_reads_no_configuration_and_asks_nobody() {
        let line = arguments(&address("ssh://git@example.com:2222/org/it's%20a!.git")).join(" ");
        assert!(line.starts_with("-F none -T -o BatchMode=yes -o StrictHostKeyChecking=yes"), "{line}");
        let end = r"-i identity -p 2222 -l git -- example.com git-upload-pack '/org/it'\''s a'\!'.git'";
        assert!(line.ends_with(end), "{line}");
        let home = arguments(&address("ssh://example.com/~alice/app")).join(" ");
        assert!(home.ends_with("-i identity -l git -- example.com git-upload-pack '~alice/app'"), "{home}");
    }

    #[test]
    fn what_ssh_says_becomes_a_typed_error() {
        let url = SourceUrl::parse("ssh://git@example.com/a").unwrap();
        let attempt = Attempt::new(&url, Duration::from_secs(1), CancellationToken::new());
        let changed = "@@@@\n@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nThe fingerprint for the ED25519 key \
                       sent by the remote host is\nSHA256:abc+/x.\nHost key verification failed.\n";
        let cases = [
            (
                changed,
                Class::Auth,
                "the host key of `ssh://git@example.com/a` is not the one in `known_hosts`: it shows `SHA256:abc+/x`",
            ),
            (
                "No ED25519 host key is known for example.com and you have requested strict checking.\r\nHost key verification failed.",
                Class::Auth,
                "`known_hosts` has no key of the host of `ssh://git@example.com/a`",
            ),
            (
                "git@example.com: Permission denied (publickey).",
                Class::Auth,
                "the host of `ssh://git@example.com/a` doesn't accept the key",
            ),
            (
                "ERROR: Repository not found.\nfatal: Could not read from remote repository.",
                Class::NotFound,
                "there is no repository at `ssh://git@example.com/a`",
            ),
            (
                "fatal: '/x' does not appear to be a git repository",
                Class::NotFound,
                "there is no repository at `ssh://git@example.com/a`",
            ),
            (
                "Welcome!\nssh: connect to host example.com port 22: Connection refused\r\n",
                Class::Unreachable,
                "`ssh://git@example.com/a` is unreachable: ssh: connect to host example.com port 22: Connection refused",
            ),
            ("", Class::Unreachable, "`ssh://git@example.com/a` is unreachable: `ssh` ended without a word"),
        ];
        for (complaint, class, message) in cases {
            let error = understood(complaint, &Access::default(), &attempt);
            assert_eq!((error.class(), error.to_string().as_str()), (class, message), "{complaint}");
        }
    }
}

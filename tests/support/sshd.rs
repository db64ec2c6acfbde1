//! An ssh server on loopback with a key of its own, for as long as the test goes on.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Where Debian has it.
const PROGRAM: &str = "/usr/sbin/sshd";

pub struct Sshd {
    child: Child,
    folder: tempfile::TempDir,
    pub port: u16,
}

impl Sshd {
    pub fn is_installed() -> bool {
        Path::new(PROGRAM).exists()
    }

    /// Lets in who has this private key, which is in OpenSSH's format.
    pub fn start(identity: &str) -> Sshd {
        let folder = tempfile::Builder::new().prefix("afresh-sshd-").tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        fs::write(folder.path().join("identity"), identity).unwrap();
        fs::set_permissions(folder.path().join("identity"), fs::Permissions::from_mode(0o600)).unwrap();
        let public = ssh_key::PrivateKey::from_openssh(identity).unwrap().public_key().to_openssh().unwrap();
        fs::write(folder.path().join("authorized_keys"), public).unwrap();
        let path = folder.path().display();
        let configuration = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {path}/host_key\nAuthorizedKeysFile {path}/authorized_keys\n\
             PidFile none\nUsePAM no\nStrictModes no\nPasswordAuthentication no\nAcceptEnv GIT_PROTOCOL\n"
        );
        fs::write(folder.path().join("sshd_config"), configuration).unwrap();
        // Where sshd wants to have it if it runs as root.
        let _ = fs::create_dir_all("/run/sshd");
        let child = run(folder.path());
        Sshd { child, folder, port }
    }

    /// Ends, and comes back at the same address with another host key.
    pub fn change_host_key(&mut self) {
        self.end();
        for name in ["host_key", "host_key.pub"] {
            fs::remove_file(self.folder.path().join(name)).unwrap();
        }
        self.child = run(self.folder.path());
    }

    pub fn listens(&self) -> bool {
        TcpStream::connect(("127.0.0.1", self.port)).is_ok()
    }

    pub fn known_hosts(&self) -> String {
        let key = fs::read_to_string(self.folder.path().join("host_key.pub")).unwrap();
        format!("[127.0.0.1]:{} {key}", self.port)
    }

    /// The address of a repository on this machine.
    pub fn url(&self, repository: &Path) -> String {
        let user = Command::new("id").arg("-un").output().unwrap();
        let user = String::from_utf8(user.stdout).unwrap();
        format!("ssh://{}@127.0.0.1:{}{}", user.trim(), self.port, repository.display())
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.end();
    }
}

/// With a new host key.
fn run(folder: &Path) -> Child {
    let host_key = ["-q", "-t", "ed25519", "-N", "", "-f", "host_key"];
    assert!(Command::new("ssh-keygen").args(host_key).current_dir(folder).status().unwrap().success());
    let log = fs::File::create(folder.join("log")).unwrap();
    let arguments = ["-D", "-e", "-f"];
    let configuration = folder.join("sshd_config");
    Command::new(PROGRAM).args(arguments).arg(configuration).stdin(Stdio::null()).stderr(log).spawn().unwrap()
}

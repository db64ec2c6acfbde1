//! Real Prometheus and Alertmanager, on loopback, in a folder of their own, gone with the test.

use std::fs::File;
use std::io::Read as _;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Ends the server when the pipe to it closes, which happens however we end.
const KEEPER: &str = r#""$@" & pid=$!; cat >/dev/null; kill -9 $pid"#;

pub struct Server {
    /// `127.0.0.1:<port>`
    pub address: String,
    name: &'static str,
    log: std::path::PathBuf,
    keeper: Child,
}

impl Server {
    /// Alertmanager; `receiver` is the URL that is told of alerts and of their end.
    pub fn alertmanager(dir: &Path, receiver: &str) -> Server {
        let config = dir.join("alertmanager.yaml");
        let route = "{receiver: test, group_by: [alertname, namespace, name], group_wait: 0s, group_interval: 1s}";
        let receivers = format!("[{{name: test, webhook_configs: [{{url: '{receiver}', send_resolved: true}}]}}]");
        std::fs::write(&config, format!("route: {route}\nreceivers: {receivers}\n")).expect("a configuration");
        Server::start(dir, "prometheus-alertmanager", |address| {
            vec![
                format!("--config.file={}", config.display()),
                format!("--storage.path={}", dir.join("alertmanager").display()),
                format!("--web.listen-address={address}"),
                // alone, and silent towards the network
                "--cluster.listen-address=".into(),
            ]
        })
    }

    pub fn prometheus(dir: &Path, config: &Path) -> Server {
        Server::start(dir, "prometheus", |address| {
            vec![
                format!("--config.file={}", config.display()),
                format!("--storage.tsdb.path={}", dir.join("prometheus").display()),
                format!("--web.listen-address={address}"),
            ]
        })
    }

    fn start(dir: &Path, name: &'static str, arguments: impl Fn(&str) -> Vec<String>) -> Server {
        let address = free_address();
        let log = dir.join(format!("{name}.log"));
        let output = File::create(&log).expect("a log");
        let keeper = Command::new("sh")
            .args(["-c", KEEPER, "keeper", name])
            .args(arguments(&address))
            .current_dir(dir)
            .stdin(Stdio::piped())
            .stdout(output.try_clone().expect("a log"))
            .stderr(output)
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("start {name}: {error}"));
        Server { address, name, log, keeper }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
        if std::thread::panicking() {
            let mut log = String::new();
            let _ = File::open(&self.log).map(|mut file| file.read_to_string(&mut log));
            eprintln!("--- the log of {}\n{log}", self.name);
        }
    }
}

/// Somebody else may take the port before the server does: then the server's log says so.
fn free_address() -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    listener.local_addr().expect("an address").to_string()
}

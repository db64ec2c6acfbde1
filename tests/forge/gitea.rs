//! A Gitea of its own for one test, driven as people and machines drive it: its command line, its API, `git push`.

use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use reqwest::{Client, Method};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::wait::eventually;

/// The one user: owner of everything.
pub const USER: &str = "dev";
const PASSWORD: &str = "only-for-this-test";
/// It migrates an empty database first.
const READY_WITHIN: Duration = Duration::from_secs(60);
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);

pub struct Gitea {
    server: Child,
    url: String,
    client: Client,
    dir: TempDir,
}

impl Gitea {
    /// Starts the Gitea in the folder `AFRESH_GITEA` (`tests/tools/gitea/build` prints one), with one user.
    pub async fn start() -> anyhow::Result<Gitea> {
        let home = std::env::var_os("AFRESH_GITEA").context("AFRESH_GITEA is not set: see tests/tools/README.md")?;
        let home = PathBuf::from(home);
        let dir = tempfile::Builder::new().prefix("afresh-gitea-").tempdir()?;
        // found before it is bound: on a loopback of our own that is enough
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let url = format!("http://127.0.0.1:{port}");
        std::fs::write(dir.path().join("app.ini"), configuration(dir.path(), &home.join("share"), port))?;
        run(&mut program(&home, dir.path(), &["migrate"]))?;
        let user = ["admin", "user", "create", "--admin", "--must-change-password=false", "--username", USER];
        let mut create = program(&home, dir.path(), &user);
        run(create.args(["--password", PASSWORD, "--email", "dev@example.com"]))?;
        let log = std::fs::File::create(dir.path().join("log"))?;
        let server = program(&home, dir.path(), &["web"])
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .context("start Gitea")?;
        let client = Client::builder().no_proxy().timeout(ANSWERS_WITHIN).build()?;
        let gitea = Gitea { server, url, client, dir };
        let healthy = async || gitea.client.get(format!("{}/api/healthz", gitea.url)).send().await.ok();
        let up = eventually(READY_WITHIN, healthy).await;
        ensure!(up.is_some(), "Gitea does not answer\n{}", gitea.log());
        Ok(gitea)
    }

    /// An empty private repository; gives its address.
    pub async fn create_repository(&self, name: &str) -> anyhow::Result<String> {
        let body = json!({ "name": name, "private": true, "default_branch": "main" });
        self.call(Method::POST, "user/repos", Some(body)).await?;
        Ok(format!("{}/{USER}/{name}.git", self.url))
    }

    /// Registers a webhook for pushes, as the form in a repository's settings does.
    pub async fn create_webhook(&self, repository: &str, url: &str, secret: &str) -> anyhow::Result<()> {
        let config = json!({ "url": url, "content_type": "json", "secret": secret });
        let body = json!({ "type": "gitea", "active": true, "events": ["push"], "config": config });
        self.call(Method::POST, &format!("repos/{USER}/{repository}/hooks"), Some(body)).await?;
        Ok(())
    }

    /// A token that may do what its user may.
    pub async fn create_token(&self) -> anyhow::Result<String> {
        let body = json!({ "name": "afresh", "scopes": ["write:repository"] });
        let token = self.call(Method::POST, &format!("users/{USER}/tokens"), Some(body)).await?;
        Ok(token["sha1"].as_str().context("no token in the answer")?.to_owned())
    }

    /// `git push` of `main` over HTTP, by the real client.
    pub fn push(&self, from: &Path, repository: &str) -> anyhow::Result<()> {
        let remote = self.url.replace("http://", &format!("http://{USER}:{PASSWORD}@"));
        let mut push = Command::new("git");
        push.arg("-C").arg(from).args(["push", "--quiet", &format!("{remote}/{USER}/{repository}.git"), "main"]);
        run(push.env("GIT_TERMINAL_PROMPT", "0").env("GIT_CONFIG_GLOBAL", "/dev/null").env_remove("http_proxy"))
    }

    /// The statuses of a commit, newest first: context, state, description.
    pub async fn statuses(&self, repository: &str, commit: &str) -> anyhow::Result<Vec<(String, String, String)>> {
        let path = format!("repos/{USER}/{repository}/commits/{commit}/statuses");
        let found = self.call(Method::GET, &path, None).await?;
        let text = |status: &Value, field: &str| status[field].as_str().unwrap_or_default().to_owned();
        let of = |status: &Value| (text(status, "context"), text(status, "status"), text(status, "description"));
        let mut found = found.as_array().context("not a list")?.clone();
        found.sort_by_key(|status| std::cmp::Reverse(status["id"].as_i64()));
        Ok(found.iter().map(of).collect())
    }

    /// What it said so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// As a GitRepository's Secret holds them.
    pub fn credentials(&self) -> Value {
        json!({ "username": USER, "password": PASSWORD })
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> anyhow::Result<Value> {
        let url = format!("{}/api/v1/{path}", self.url);
        let mut request = self.client.request(method, &url).basic_auth(USER, Some(PASSWORD));
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        ensure!(status.is_success(), "{url} answered {status}: {text}");
        Ok(serde_json::from_str(&text)?)
    }
}

impl Drop for Gitea {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- Gitea's log\n{}", self.log());
        }
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn program(home: &Path, dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(home.join("gitea"));
    command.arg("--config").arg(dir.join("app.ini")).args(arguments);
    command.env("HOME", dir).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().with_context(|| format!("start {:?}", command.get_program()))?;
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    ensure!(
        output.status.success(),
        "{:?} failed: {}{}",
        command.get_program(),
        said(&output.stdout),
        said(&output.stderr)
    );
    Ok(())
}

/// All on loopback and in `dir`; nothing that asks the world. CI may be root, which Gitea dislikes.
fn configuration(dir: &Path, share: &Path, port: u16) -> String {
    let (dir, share) = (dir.display(), share.display());
    format!(
        "WORK_PATH = {dir}
I_AM_BEING_UNSAFE_RUNNING_AS_ROOT = true
[server]
HTTP_ADDR = 127.0.0.1
HTTP_PORT = {port}
ROOT_URL = http://127.0.0.1:{port}/
STATIC_ROOT_PATH = {share}
OFFLINE_MODE = true
DISABLE_SSH = true
[database]
DB_TYPE = sqlite3
PATH = {dir}/gitea.db
[security]
INSTALL_LOCK = true
[webhook]
ALLOWED_HOST_LIST = loopback
[log]
MODE = console
LEVEL = warn
[indexer]
ISSUE_INDEXER_TYPE = db
[actions]
ENABLED = false
[cron.update_checker]
ENABLED = false
"
    )
}

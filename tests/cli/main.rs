//! The commands as a person runs them: what they print, and how they end.

mod policies;
#[allow(dead_code, reason = "each test binary uses its part of it")]
#[path = "../support/sshd.rs"]
mod sshd;

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use afresh::cluster::{Cluster, ClusterOptions};
use afresh::manifest::ObjectId;
use afresh::sandbox::repository::TestRepository;
use afresh::sandbox::{Options, Sandbox};
use assert_cmd::Command;
use tempfile::TempDir;

/// `afresh` with an environment of its own.
fn afresh(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_afresh"));
    command.env_clear().env("HOME", home).env("TMPDIR", home).current_dir(home);
    command
}

fn failure(command: &mut Command) -> (i32, String) {
    let output = command.timeout(Duration::from_secs(60)).output().unwrap();
    assert!(output.stdout.is_empty(), "errors are not data: {}", String::from_utf8_lossy(&output.stdout));
    (output.status.code().unwrap_or(-1), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_wrong_flag_is_wrong_usage() {
    let home = TempDir::new().unwrap();
    let (code, text) = failure(afresh(home.path()).args(["run", "--no-such-flag"]));
    assert_eq!(code, 2);
    assert!(text.contains("--no-such-flag"), "{text}");
    let (code, text) = failure(afresh(home.path()).args(["run", "--kubeconfig", "k", "--metrics-addr", "somewhere"]));
    assert_eq!(code, 1);
    assert!(text.contains("`somewhere` is not an address for --metrics-addr"), "{text}");
}

#[test]
fn a_missing_kubeconfig_is_named() {
    let home = TempDir::new().unwrap();
    let (code, text) = failure(afresh(home.path()).args(["run", "--kubeconfig", "nowhere", "--metrics-addr", "none"]));
    assert_eq!(code, 1);
    assert!(text.contains("`nowhere`"), "{text}");
    let (_, text) = failure(afresh(home.path()).args(["run", "--metrics-addr", "none"]));
    assert!(text.contains("give --kubeconfig"), "{text}");
}

#[test]
fn a_data_dir_in_use_is_named_with_its_process() {
    let home = TempDir::new().unwrap();
    let data = home.path().join("data");
    let _held = afresh::source::DataDir::open(&data).unwrap();
    let (code, text) = failure(afresh(home.path()).args(["run", "--sandbox", "--data-dir", "data"]));
    assert_eq!(code, 1);
    assert!(text.contains("data") && text.contains(&std::process::id().to_string()), "{text}");
}

#[test]
fn a_data_dir_that_cannot_be_written_is_named_with_what_to_do() {
    let home = TempDir::new().unwrap();
    std::fs::write(home.path().join("file"), "").unwrap();
    // nobody can make a folder in either, whoever runs this
    for folder in ["/proc/afresh", "file/data"] {
        let (code, text) = failure(afresh(home.path()).args(["run", "--sandbox", "--data-dir", folder]));
        assert_eq!(code, 1);
        assert!(text.contains(&format!("the data folder `{folder}` can't be written: ")), "{text}");
        assert!(text.contains("hint: choose another folder with `--data-dir`"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_without_the_definitions_says_how_to_install_them() {
    let home = TempDir::new().unwrap();
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    sandbox.write_kubeconfig(&home.path().join("kubeconfig")).unwrap();
    let mut command = afresh(home.path());
    command.args(["run", "--kubeconfig", "kubeconfig", "--metrics-addr", "none"]);
    let (code, text) = tokio::task::spawn_blocking(move || failure(&mut command)).await.unwrap();
    assert_eq!(code, 1);
    assert!(text.contains("afresh crds | kubectl apply --server-side -f -"), "{text}");
}

#[test]
fn an_error_in_a_manifest_is_shown_where_it_is() {
    let home = TempDir::new().unwrap();
    let app = home.path().join("app");
    std::fs::create_dir(&app).unwrap();
    std::fs::write(app.join("web.yaml"), "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: web\n").unwrap();
    let (code, text) = failure(afresh(home.path()).args(["render", "app"]));
    assert_eq!(code, 1);
    assert!(text.contains("web.yaml:") && text.contains("metadata: {name: web"), "{text}");
}

/// A folder with a repository, and a Kustomization of it in `ks.yaml`.
fn working_copy() -> TempDir {
    let home = TempDir::new().unwrap();
    std::fs::create_dir_all(home.path().join("copy/.git")).unwrap();
    std::fs::create_dir_all(home.path().join("copy/app")).unwrap();
    let config = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: web}\ndata: {a: '${A}', region: '${REGION}', size: '${SIZE:=small}'}\n";
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: token}\nstringData: {token: hunter2}\n";
    std::fs::write(home.path().join("copy/app/web.yaml"), config).unwrap();
    std::fs::write(home.path().join("copy/app/token.yaml"), secret).unwrap();
    let kustomization = "apiVersion: kustomize.toolkit.fluxcd.io/v1\nkind: Kustomization\nmetadata: {name: shop, namespace: flux-system}\n\
        spec:\n  interval: 10m\n  prune: true\n  path: ./app\n  targetNamespace: shop\n  sourceRef: {kind: GitRepository, name: platform}\n  \
        commonMetadata: {labels: {team: web}}\n  postBuild:\n    substitute: {A: one}\n    substituteFrom: [{kind: ConfigMap, name: region}]\n";
    std::fs::write(home.path().join("ks.yaml"), kustomization).unwrap();
    home
}

#[test]
fn a_kustomization_in_a_file_says_how_a_folder_is_rendered() {
    let home = working_copy();
    let rendered = |arguments: &[&str]| {
        let output = afresh(home.path()).arg("render").args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let of_folder = rendered(&["copy/app", "--kustomization", "ks.yaml", "--set", "REGION=eu"]);
    assert_eq!(
        of_folder,
        rendered(&["copy", "--kustomization", "ks.yaml", "--set", "REGION=eu"]),
        "the root will do, too"
    );
    insta::assert_snapshot!(of_folder, @r"
    ---
    # app/token.yaml:1
    apiVersion: v1
    data:
      token: '***'
    kind: Secret
    metadata:
      labels:
        team: web
      name: token
      namespace: shop
    ---
    # app/web.yaml:1
    apiVersion: v1
    data:
      a: one
      region: eu
      size: small
    kind: ConfigMap
    metadata:
      labels:
        team: web
      name: web
      namespace: shop
    ");
    assert!(
        rendered(&["copy", "--kustomization", "ks.yaml", "--set", "REGION=eu", "--show-secrets"])
            .contains("aHVudGVyMg==")
    );
}

#[test]
fn variables_that_only_the_cluster_has_are_asked_for_by_name() {
    let home = working_copy();
    let (code, text) = failure(afresh(home.path()).args(["render", "copy", "--kustomization", "ks.yaml"]));
    assert_eq!(code, 1);
    assert!(text.contains("`REGION`") && text.contains("app/web.yaml:4"), "{text}");
    assert!(text.contains("ConfigMap `region`") && text.contains("--set NAME=VALUE"), "{text}");
}

#[test]
fn what_can_not_be_rendered_or_compared_is_said_with_the_code_for_it() {
    let home = working_copy();
    std::fs::create_dir(home.path().join("copy/other")).unwrap();
    for (arguments, code, said) in [
        (vec!["render"], 2, "<PATH>"),
        (vec!["render", "copy", "--kustomization", "ks.yaml", "--target-namespace", "x"], 2, "--target-namespace"),
        (vec!["render", "nowhere"], 1, "can't read `nowhere`"),
        (vec!["render", "copy/other", "--kustomization", "ks.yaml"], 1, "`spec.path` is `./app`"),
        (vec!["render", "copy", "--kustomization", "copy/app/web.yaml"], 1, "holds no Kustomization"),
        (vec!["diff"], 2, "<TARGET>"),
        (vec!["diff", "ks/shop", "--kubeconfig", "nowhere"], 2, "`nowhere`"),
    ] {
        let (found, text) = failure(afresh(home.path()).args(&arguments));
        assert!(found == code && text.contains(said), "{arguments:?}: {found}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_diff_of_a_kustomization_that_is_not_there_says_so() {
    let home = working_copy();
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    sandbox.write_kubeconfig(&home.path().join("kubeconfig")).unwrap();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cluster =
        Cluster::connect(Some(&home.path().join("kubeconfig")), None, ClusterOptions::default()).await.unwrap();
    for definition in afresh::api::definitions() {
        let kind = cluster.resolve("apiextensions.k8s.io", "CustomResourceDefinition", None).await.unwrap();
        let id = ObjectId::new(
            "apiextensions.k8s.io",
            "CustomResourceDefinition",
            "",
            definition.metadata.name.clone().unwrap(),
        );
        cluster.create(&kind, &id, &serde_json::to_value(&definition).unwrap(), "test").await.unwrap();
    }
    for (arguments, said) in [
        (vec!["diff", "ks/shop"], "there is no Kustomization `flux-system/shop`"),
        (vec!["diff", "copy/app"], "has `app` as its `spec.path`"),
    ] {
        let mut command = afresh(home.path());
        command.args(arguments).args(["--kubeconfig", "kubeconfig"]);
        let (code, text) = tokio::task::spawn_blocking(move || failure(&mut command)).await.unwrap();
        assert!(code == 2 && text.contains(said), "{code}: {text}");
    }
}

#[test]
fn encrypted_files_are_rendered_with_an_identity_and_their_values_are_shown_only_on_request() {
    let home = TempDir::new().unwrap();
    let recorded = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sops");
    let app = home.path().join("app");
    std::fs::create_dir(&app).unwrap();
    std::fs::copy(recorded.join("encrypted/values.yaml"), app.join("values.yaml")).unwrap();
    std::fs::write(app.join("afresh.yaml"), "render: template\nvalues: [values.yaml]\n").unwrap();
    let template = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: db}\ndata:\n  \
                    url: postgres://{{ values.database.user }}:{{ values.database.password }}@db\n";
    std::fs::write(app.join("a.yaml"), template).unwrap();
    let shown = |more: &[&str], variable: Option<&Path>| {
        let mut command = afresh(home.path());
        command.args(["render", "app"]).args(more);
        variable.map(|path| command.env("SOPS_AGE_KEY_FILE", path));
        let output = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let key = recorded.join("keys/team.agekey");
    let flag = format!("--sops-age-key-file={}", key.display());
    for (code, out, error) in [shown(&[&flag], None), shown(&[], Some(&key))] {
        assert_eq!(code, Some(0), "{error}");
        assert!(out.contains("url: postgres://***:***@db") && !out.contains("pa$$"), "{out}");
    }
    let (_, out, _) = shown(&[&flag, "--show-secrets"], None);
    assert!(out.contains("url: postgres://metabase:pa$$ word@db"), "{out}");
    let (code, _, error) = shown(&["--sops-age-key-file", "app/a.yaml"], None);
    assert_eq!(code, Some(1));
    assert!(error.contains("`app/a.yaml` holds no age identity"), "{error}");
    let (code, _, error) = shown(&["--sops-age-key-file", "nowhere"], None);
    assert_eq!(code, Some(1));
    assert!(error.contains("can't read `nowhere`"), "{error}");
    // without one, whoever renders is told which
    let other = home.path().join("other");
    std::fs::create_dir(&other).unwrap();
    std::fs::copy(recorded.join("encrypted/secret.yaml"), other.join("secret.yaml")).unwrap();
    let output = afresh(home.path()).args(["render", "other"]).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("encrypted with SOPS") && error.contains("--sops-age-key-file"), "{error}");
}

#[test]
fn the_definitions_are_printed_as_data() {
    let home = TempDir::new().unwrap();
    let output = afresh(home.path()).arg("crds").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    for name in ["gitrepositories.source.toolkit.fluxcd.io", "kustomizations.kustomize.toolkit.fluxcd.io"] {
        assert!(text.contains(name), "{name}");
    }
}

/// A daemon that is ended with its test.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "not within 30 s: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_edit_in_the_configuration_folder_keeps_the_last_good_one() {
    let home = TempDir::new().unwrap();
    let config = home.path().join("config");
    std::fs::create_dir(&config).unwrap();
    let document = |value: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: one, namespace: default}}\ndata: {{value: {value}}}\n"
        )
    };
    std::fs::write(config.join("one.yaml"), document("first")).unwrap();
    let log = std::fs::File::create(home.path().join("log")).unwrap();
    let child = std::process::Command::new(env!("CARGO_BIN_EXE_afresh"))
        .args(["run", "--sandbox", "--config", "config", "--data-dir", "data", "--metrics-addr", "none"])
        .env_clear()
        .env("HOME", home.path())
        .current_dir(home.path())
        .stdin(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    let _daemon = Daemon(child);
    let kubeconfig = home.path().join("data/sandbox.kubeconfig");
    eventually("the sandbox is up", async || kubeconfig.exists().then_some(())).await;
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cluster = Cluster::connect(Some(&kubeconfig), None, ClusterOptions::default()).await.unwrap();
    let id = ObjectId::new("", "ConfigMap", "default", "one");
    let value = async || {
        let kind = cluster.resolve("", "ConfigMap", Some("v1")).await.ok()?;
        let object = cluster.get(&kind, &id).await.ok()??;
        object["data"]["value"].as_str().map(str::to_owned)
    };
    eventually("the document is applied", async || value().await.filter(|v| v == "first")).await;

    std::fs::write(config.join("one.yaml"), "kind: ConfigMap\nmetadata: {name: one\n").unwrap();
    let said = async || {
        let text = std::fs::read_to_string(home.path().join("log")).ok()?;
        (text.contains("one.yaml") && text.contains("the last good version stays in force")).then_some(())
    };
    eventually("the broken edit is named", said).await;
    assert_eq!(value().await.as_deref(), Some("first"));

    std::fs::write(config.join("one.yaml"), document("second")).unwrap();
    eventually("the repaired document is applied", async || value().await.filter(|v| v == "second")).await;
    std::fs::remove_file(config.join("one.yaml")).unwrap();
    std::fs::write(config.join("two.yaml"), document("third").replace("name: one", "name: two")).unwrap();
    let two = ObjectId::new("", "ConfigMap", "default", "two");
    let kind = cluster.resolve("", "ConfigMap", Some("v1")).await.unwrap();
    eventually("the new document is applied", async || cluster.get(&kind, &two).await.ok()?).await;
    assert_eq!(value().await.as_deref(), Some("second"), "a document that vanishes deletes nothing");
}

#[test]
fn a_base_over_ssh_is_rendered_with_the_key_and_the_host_keys_that_were_given() {
    const IDENTITY: &str = include_str!("../source/keys/identity");
    if !sshd::Sshd::is_installed() {
        println!("skipped: there is no sshd");
        return;
    }
    let home = TempDir::new().unwrap();
    let path = home.path();
    let other = TestRepository::create(&path.join("other")).unwrap();
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: far}\n";
    let files = [("maps/kustomization.yaml", Some("resources: [map.yaml]\n")), ("maps/map.yaml", Some(map))];
    let commit = other.commit("one", &files).unwrap();
    let sshd = sshd::Sshd::start(IDENTITY);
    let deadline = Instant::now() + Duration::from_secs(30);
    while !sshd.listens() {
        assert!(Instant::now() < deadline, "{}", sshd.log());
        std::thread::yield_now();
    }
    std::fs::create_dir(path.join("app")).unwrap();
    let base = format!("namePrefix: near-\nresources: ['{}//maps?ref={commit}']\n", sshd.url(other.path()));
    std::fs::write(path.join("app/kustomization.yaml"), base).unwrap();
    std::fs::write(path.join("identity"), IDENTITY).unwrap();
    std::fs::write(path.join("known_hosts"), sshd.known_hosts()).unwrap();
    std::fs::write(path.join("nobody"), "[127.0.0.1]:1 ssh-ed25519 AAAA\n").unwrap();
    let render = |more: &[&str]| {
        let mut command = afresh(path);
        command.args(["render", "app"]).args(more);
        command
    };

    let (_, text) = failure(&mut render(&[]));
    assert!(text.contains("give --allow-remote-bases"), "{text}");
    let (_, text) = failure(&mut render(&["--allow-remote-bases"]));
    assert!(text.contains("give `--ssh-identity FILE` and `--ssh-known-hosts FILE`"), "{text}");
    let with = |known_hosts| ["--allow-remote-bases", "--ssh-identity", "identity", "--ssh-known-hosts", known_hosts];
    let (_, text) = failure(&mut render(&with("nobody")));
    assert!(text.contains("`known_hosts` has no key of the host of"), "{text}");
    let (_, text) = failure(&mut render(&with("nowhere")));
    assert!(text.contains("`nowhere` can't be read"), "{text}");
    let output = render(&with("known_hosts")).timeout(Duration::from_secs(60)).output().unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && shown.contains("name: near-far"), "{output:?}");
}

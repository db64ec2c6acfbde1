//! Files encrypted by the real sops for age recipients, against what they were before (`tests/sops/record` makes them
//! anew). With `AFRESH_SOPS=$(tests/tools/sops/build)` and `--ignored`, fresh ones each time.

mod damaged;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use afresh::manifest::{MemoryTree, yaml};
use afresh::render::{AppRef, Keys, Rendered, Request, render};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

const MANIFESTS: [&str; 8] = [
    "secret.yaml",
    "whole.yaml",
    "types.yaml",
    "several.yaml",
    "mac-only.yaml",
    "suffix.yaml",
    "comments.yaml",
    "secret.json",
];
const GENERATED: [&str; 4] = ["app.env", "app.ini", "cert.p12", "config.dockerconfigjson"];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sops")
}

fn read(path: &str) -> Vec<u8> {
    fs::read(folder().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn keys(names: &[&str]) -> Keys {
    let files: Vec<_> =
        names.iter().map(|name| (format!("{name}.agekey"), read(&format!("keys/{name}.agekey")))).collect();
    Keys::of(files.iter().map(|(name, content)| (name.as_str(), content.as_slice()))).expect("age identities")
}

fn built(tree: &MemoryTree, keys: Option<&Keys>) -> Result<Rendered, String> {
    let app = AppRef { name: "app".into(), namespace: "default".into() };
    let request = Request { decryption: keys, ..Request::of(tree, "", &app) };
    render(&request).map_err(|failed| failed.error.render(false))
}

/// The objects by name, without what a Secret's `stringData` becomes.
fn objects(tree: &MemoryTree, keys: Option<&Keys>) -> Result<BTreeMap<String, Value>, String> {
    let rendered = built(tree, keys)?;
    Ok(rendered.objects.iter().map(|object| (object.id.to_string(), object.value.clone())).collect())
}

/// The manifest as sops takes it in: what it is to go-yaml v3, which reads `yes` as text.
fn plain(name: &str) -> Vec<u8> {
    let content = read(&format!("plain/{name}"));
    match name {
        "types.yaml" => {
            let text = String::from_utf8(content).expect("text");
            text.replace(": yes\n", ": \"yes\"\n").replace("- y: z", "- \"y\": z").into_bytes()
        }
        _ => content,
    }
}

/// Numbers as they count: sops writes `1e3` as 1000.
fn assert_same(name: &str, ours: &Value, theirs: &Value) {
    match (ours, theirs) {
        (Value::Object(a), Value::Object(b)) => {
            assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>(), "{name}");
            a.iter().for_each(|(key, a)| assert_same(&format!("{name}.{key}"), a, &b[key]));
        }
        (Value::Array(a), Value::Array(b)) => {
            assert_eq!(a.len(), b.len(), "{name}");
            a.iter().zip(b).enumerate().for_each(|(i, (a, b))| assert_same(&format!("{name}[{i}]"), a, b));
        }
        (Value::Number(a), Value::Number(b)) => assert_eq!(a.as_f64(), b.as_f64(), "{name}"),
        // a time of day is written out
        (Value::String(a), Value::String(b)) if b.starts_with("2024-") => {
            let written_out = b.replace("-5-1", "-05-01") + "T00:00:00Z";
            assert!(a == b || *a == written_out, "{name}: {a} for {b}");
        }
        _ => assert_eq!(ours, theirs, "{name}"),
    }
}

#[test]
fn what_sops_encrypted_is_read_as_it_was_before() {
    for recipient in ["team", "other"] {
        let keys = keys(&["stranger", recipient]);
        for name in MANIFESTS {
            let encrypted = read(&format!("encrypted/{name}"));
            assert!(String::from_utf8_lossy(&encrypted).contains("ENC[AES256_GCM"), "{name} is encrypted");
            // JSON is YAML; only files so named are manifests
            let file = name.replace(".json", ".yaml");
            let ours = objects(&MemoryTree::new().with(&file, encrypted), Some(&keys))
                .unwrap_or_else(|error| panic!("{name}: {error}"));
            let theirs = objects(&MemoryTree::new().with(&file, plain(name)), None).expect("the plain file is fine");
            assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>(), "{name}");
            ours.iter().for_each(|(id, value)| assert_same(&format!("{name}: {id}"), value, &theirs[id]));
        }
    }
}

fn generator_tree(kind: &str, files: &[(&str, Vec<u8>)]) -> MemoryTree {
    let list: String = files
        .iter()
        .map(|(name, _)| match *name {
            "app.env" => String::new(),
            "config.dockerconfigjson" => "  - .dockerconfigjson=config.dockerconfigjson\n".to_owned(),
            name => format!("  - {name}\n"),
        })
        .collect();
    let list = if list.is_empty() { list } else { format!("  files:\n{list}") };
    let envs = if files.iter().any(|(name, _)| *name == "app.env") { "  envs: [app.env]\n" } else { "" };
    let kustomization = format!("{kind}:\n- name: made\n{envs}{list}");
    let tree = MemoryTree::new().with("kustomization.yaml", kustomization);
    files.iter().fold(tree, |tree, (name, content)| tree.with(name, content.clone()))
}

#[test]
fn a_secret_is_generated_from_files_of_any_format_and_its_name_follows_what_they_hold() {
    let of = |folder: &str| -> Vec<_> { GENERATED.map(|name| (name, read(&format!("{folder}/{name}")))).to_vec() };
    let ours =
        objects(&generator_tree("secretGenerator", &of("encrypted")), Some(&keys(&["team"]))).expect("decrypted");
    let (id, secret) = ours.first_key_value().expect("a Secret");
    let value = |key: &str| {
        let text = secret["data"][key].as_str().unwrap_or_else(|| panic!("{key} in {secret}")).replace('\n', "");
        STANDARD.decode(text).expect("base64")
    };
    assert_eq!(value("PASSWORD"), b"a=b c");
    assert_eq!(value("EMPTY"), b"");
    assert_eq!(value("LINES"), b"one\\ntwo", "the text of the line, as kustomize takes it");
    assert_eq!(value("cert.p12"), read("plain/cert.p12"));
    let docker: Value = serde_json::from_slice(&value(".dockerconfigjson")).expect("JSON");
    assert_eq!(docker, json!({"auths": {"registry.example.org": {"auth": "dXNlcjpwYXNz"}}}));
    let ini = String::from_utf8(value("app.ini")).expect("text");
    let settings: Vec<_> =
        ini.lines().filter_map(|line| line.split_once('=')).map(|(k, v)| (k.trim(), v.trim())).collect();
    assert_eq!(settings, [("user", "admin"), ("password", "`s3cr3t#1`"), ("url", "redis://:pw@cache/0")], "{ini}");
    assert!(!ini.contains("sops"), "{ini}");
    // what is in the clear in the repository would be in the clear in the cluster: a ConfigMap takes the file as it is
    let public =
        objects(&generator_tree("configMapGenerator", &of("encrypted")), Some(&keys(&["team"]))).expect("built");
    let text = serde_json::to_string(&public).expect("JSON");
    assert!(text.contains("ENC[AES256_GCM") && !text.contains("s3cr3t"), "{text}");
    // whole files may be for their reader to decrypt; single values may not
    let unopened = objects(&generator_tree("secretGenerator", &of("encrypted")[1..]), None).expect("built");
    assert_ne!(unopened.first_key_value().map(|(id, _)| id), Some(id));
    let error = objects(&generator_tree("secretGenerator", &of("encrypted")), None).expect_err("encrypted");
    assert!(error.contains("the application has no `spec.decryption`"), "{error}");
}

#[test]
fn values_of_templates_may_be_encrypted() {
    let tree = MemoryTree::new()
        .with("afresh.yaml", "render: template\nvalues: [values.yaml]\n")
        .with("values.yaml", read("encrypted/values.yaml"))
        .with("secret.yaml", "apiVersion: v1\nkind: Secret\nmetadata: {name: db}\nstringData: {password: {{ values.database.password | tojson }}}\n");
    let ours = objects(&tree, Some(&keys(&["team"]))).expect("rendered");
    let secret = ours.values().next().expect("a Secret");
    assert_eq!(secret["data"]["password"], STANDARD.encode("pa$$ word"));
}

#[test]
fn a_value_of_a_secret_that_is_an_encrypted_file_is_decrypted_in_place() {
    let value = STANDARD.encode(read("encrypted/app.env"));
    let secret = format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: files}}\ndata:\n  app.env: {value}\n");
    let ours = objects(&MemoryTree::new().with("s.yaml", secret), Some(&keys(&["team"]))).expect("decrypted");
    let data = ours.values().next().expect("a Secret")["data"]["app.env"].as_str().expect("text").to_owned();
    assert_eq!(
        String::from_utf8(STANDARD.decode(data).expect("base64")).expect("text"),
        String::from_utf8(read("plain/app.env")).expect("text")
    );
}

#[test]
fn what_was_changed_after_encryption_is_refused_and_says_where() {
    let keys = keys(&["team"]);
    let secret = String::from_utf8(read("encrypted/secret.yaml")).expect("text");
    let line = |key: &str| {
        let wanted = format!("{key}: ");
        let at = secret.lines().position(|line| line.trim_start().starts_with(&wanted));
        at.unwrap_or_else(|| panic!("{key} in {secret}"))
    };
    let value =
        |key: &str| secret.lines().nth(line(key)).and_then(|l| l.split_once(": ")).expect("a value").1.to_owned();
    let moved = secret.replace(&value("password"), &value("user"));
    let dropped: String =
        secret.lines().filter(|l| !l.trim_start().starts_with("password: ")).map(|l| format!("{l}\n")).collect();
    let cases = [
        ("name: s3", "name: s4", "changed after it was encrypted"),
        ("type:str]", "type:int]", "is of a number's type and is none"),
        ("user: ENC[AES256_GCM,data:", "user: ENC[AES256_GCM,", "an encrypted value was expected here"),
    ]
    .map(|(from, to, wanted)| (secret.replacen(from, to, 1), wanted));
    let more = [
        (moved, "can't be decrypted: it was changed, or moved here"),
        (dropped, "changed after it was encrypted"),
        (
            secret.replacen("mac: ENC[AES256_GCM,data:", "mac: ENC[AES256_GCM,data:AAAA", 1),
            "changed after it was encrypted",
        ),
        (secret.lines().take(14).map(|l| format!("{l}\n")).collect(), "without SOPS' own part"),
        (secret.lines().filter(|l| !l.starts_with("    mac:")).map(|l| format!("{l}\n")).collect(), "lacks `mac`"),
    ];
    for (text, wanted) in cases.into_iter().chain(more) {
        assert_ne!(text, secret, "{wanted}: the case changes something");
        match built(&MemoryTree::new().with("apps/secret.yaml", text.clone()), Some(&keys)) {
            Ok(_) => panic!("{wanted}: was accepted:\n{text}"),
            Err(error) => {
                assert!(error.contains(wanted) && error.contains("apps/secret.yaml"), "{wanted}:\n{error}");
                for hidden in ["correct horse", "hunter", "admin", "aGVsbG8"] {
                    assert!(!error.contains(hidden), "{error}");
                }
            }
        }
    }
    let error =
        built(&MemoryTree::new().with("s.yaml", secret.replacen(&value("password"), &value("user"), 1)), Some(&keys))
            .expect_err("a moved value");
    assert!(
        error.contains(&format!("s.yaml:{}:", line("password") + 1)) && error.contains("`stringData.password`"),
        "{error}"
    );
}

#[test]
fn a_wrong_or_missing_key_names_the_recipients_wanted() {
    let secret = read("encrypted/secret.yaml");
    let team = String::from_utf8(read("keys/team.agekey")).expect("text");
    let recipient = team.lines().find_map(|line| line.strip_prefix("# public key: ")).expect("a public key").to_owned();
    let tree = MemoryTree::new().with("secret.yaml", secret.clone());
    for (names, wanted) in
        [(&["stranger"][..], "the age identity opens nothing here"), (&[], "there is no age identity")]
    {
        let error = built(&tree, Some(&keys(names))).expect_err("no key fits");
        assert!(error.contains(wanted) && error.contains(&recipient), "{error}");
    }
    let error = built(&tree, None).expect_err("encrypted");
    assert!(
        error.contains("the Secret is encrypted with SOPS, and the application has no `spec.decryption`"),
        "{error}"
    );
    let pgp = String::from_utf8(secret).expect("text");
    let at = pgp.find("    age:").expect("recipients");
    let rest = pgp[at..].find("    lastmodified").expect("the rest");
    let pgp = format!("{}    pgp:\n        - fp: ABC\n          enc: x\n{}", &pgp[..at], &pgp[at + rest..]);
    let error = built(&MemoryTree::new().with("s.yaml", pgp), Some(&keys(&["team"]))).expect_err("PGP");
    assert!(error.contains("encrypted for PGP only, which is not served"), "{error}");
    assert!(Keys::of([("a.agekey", &b"AGE-SECRET-KEY-1QQ"[..])]).is_err());
    assert!(Keys::of([("identity.asc", &b"-----BEGIN PGP"[..])]).is_ok(), "keys of other tools may lie beside");
}

#[test]
fn an_object_that_an_operator_decrypts_stays_as_it_is() {
    let secret = String::from_utf8(read("encrypted/secret.yaml")).expect("text");
    let annotated = secret.replacen(
        "    name: s3\n",
        "    name: s3\n    annotations: {kustomize.toolkit.fluxcd.io/decrypt: Disabled}\n",
        1,
    );
    assert_ne!(annotated, secret);
    for keys in [Some(keys(&["team"])), None] {
        let ours = objects(&MemoryTree::new().with("s.yaml", annotated.clone()), keys.as_ref()).expect("left alone");
        assert!(ours.values().next().expect("a Secret")["sops"]["mac"].is_string());
    }
}

#[test]
fn an_error_in_a_decrypted_file_has_its_line_and_shows_no_value() {
    // `data` of a ConfigMap must be text: the API server would say so, here its name is doubled
    let values = String::from_utf8(read("encrypted/values.yaml")).expect("text");
    let tree = MemoryTree::new()
        .with("afresh.yaml", "render: template\nvalues: [values.yaml]\n")
        .with("values.yaml", values)
        .with("a.yaml", "{{ values.database.nothing }}\n");
    let error = built(&tree, Some(&keys(&["team"]))).expect_err("an undefined value");
    assert!(error.contains("a.yaml:1") && !error.contains("pa$$"), "{error}");
    let several = String::from_utf8(read("encrypted/several.yaml")).expect("text");
    let rendered =
        built(&MemoryTree::new().with("s.yaml", several.clone()), Some(&keys(&["team"]))).expect("decrypted");
    let line = several.lines().position(|line| line.trim_start().starts_with("b: ENC")).expect("`b`") as u32 + 1;
    let error = rendered.error_at(1, &["stringData".into(), "b".into()], "x");
    assert_eq!(error.line, line);
    assert!(!error.render(false).contains("three"), "{}", error.render(false));
    assert!(rendered.secrets.contains(&"three".to_owned()), "nobody may quote it");
    let whole = built(&MemoryTree::new().with("w.yaml", read("encrypted/whole.yaml")), Some(&keys(&["team"])))
        .expect("decrypted");
    let error = whole.error_at(0, &["data".into(), "b".into()], "x").render(false);
    assert!(!error.contains("text"), "{error}");
}

/// The real sops and age, with an identity of their own.
struct Tools {
    programs: PathBuf,
    folder: tempfile::TempDir,
    recipient: String,
}

impl Tools {
    fn new() -> Tools {
        let programs = PathBuf::from(std::env::var_os("AFRESH_SOPS").expect("AFRESH_SOPS is set"));
        let folder = tempfile::tempdir().expect("a folder");
        let mut tools = Tools { programs, folder, recipient: String::new() };
        tools.run("age-keygen", &["-o", "a.agekey"]);
        tools.recipient =
            String::from_utf8(tools.run("age-keygen", &["-y", "a.agekey"])).expect("text").trim().to_owned();
        tools
    }

    fn keys(&self) -> Keys {
        let identity = fs::read(self.folder.path().join("a.agekey")).expect("the identity");
        Keys::of([("a.agekey", identity.as_slice())]).expect("an identity")
    }

    fn run(&self, program: &str, args: &[&str]) -> Vec<u8> {
        let folder = self.folder.path();
        let mut command = Command::new(self.programs.join(program));
        command.args(args).current_dir(folder).env_clear().env("HOME", folder);
        let output = command.env("SOPS_AGE_KEY_FILE", folder.join("a.agekey")).output().expect("it runs");
        assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// A file as sops encrypts it now, and what sops decrypts of that.
    fn around(&self, name: &str, content: &[u8], options: &[&str]) -> (Vec<u8>, Vec<u8>) {
        let types: &[&str] = match name {
            "config.dockerconfigjson" => &["--input-type", "json", "--output-type", "json"],
            _ => &[],
        };
        let write = |name: &str, content: &[u8]| fs::write(self.folder.path().join(name), content).expect("written");
        write(name, content);
        let encrypted = self.run("sops", &[&["encrypt", "--age", &self.recipient], types, options, &[name]].concat());
        write(name, &encrypted);
        let decrypted = self.run("sops", &[&["decrypt"], types, &[name]].concat());
        (encrypted, decrypted)
    }
}

#[test]
#[ignore = "needs AFRESH_SOPS"]
fn what_sops_encrypts_now_is_read_and_what_it_decrypts_is_the_same() {
    let tools = Tools::new();
    let keys = tools.keys();
    let some: &[&str] = &["--encrypted-regex", "^(data|stringData|b.*)$"];
    for (name, options) in MANIFESTS.into_iter().flat_map(|name| [(name, &[][..]), (name, some)]) {
        let (encrypted, decrypted) = tools.around(name, &plain(name), options);
        let file = name.replace(".json", ".yaml");
        let ours = objects(&MemoryTree::new().with(&file, encrypted), Some(&keys));
        let ours = ours.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(yaml::documents(name, &decrypted).is_ok());
        let theirs = objects(&MemoryTree::new().with(&file, decrypted), None).expect("decrypted by sops");
        assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>(), "{name}");
        ours.iter().for_each(|(id, value)| assert_same(&format!("{name}: {id}"), value, &theirs[id]));
    }
}

#[test]
#[ignore = "needs AFRESH_SOPS"]
fn files_of_generators_that_sops_encrypts_now_are_what_it_decrypts() {
    let tools = Tools::new();
    let keys = tools.keys();
    for name in GENERATED {
        let (encrypted, decrypted) = tools.around(name, &read(&format!("plain/{name}")), &[]);
        let data = |content: Vec<u8>, keys| {
            let made = objects(&generator_tree("secretGenerator", &[(name, content)]), keys);
            let made = made.unwrap_or_else(|error| panic!("{name}: {error}"));
            made.into_values().next().expect("a Secret")["data"].clone()
        };
        let (ours, theirs) = (data(encrypted, Some(&keys)), data(decrypted, None));
        let values = |data: &Value| -> BTreeMap<String, Vec<u8>> {
            let data = data.as_object().expect("data").iter();
            data.map(|(key, value)| (key.clone(), meaning(name, value.as_str().expect("text")))).collect()
        };
        assert_eq!(values(&ours), values(&theirs), "{name}");
    }
}

/// What a value in base64 says, whatever spaces are around it.
fn meaning(name: &str, value: &str) -> Vec<u8> {
    let content = STANDARD.decode(value.replace('\n', "")).expect("base64");
    match name {
        "app.ini" => {
            let text = String::from_utf8(content).expect("text");
            let lines = text.lines().map(|line| line.split('=').map(str::trim).collect::<Vec<_>>().join("="));
            lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n").into_bytes()
        }
        "config.dockerconfigjson" => serde_json::from_slice::<Value>(&content).expect("JSON").to_string().into_bytes(),
        _ => content,
    }
}
